"""The metrics of an executor in the Prometheus format; labels come from closed sets, never from a task."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

CALL_SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)


class ExecutorMetrics:
    """One executor's metrics in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.running = Gauge(
            "flotilla_executor_calls_running", "Calls that this executor is making.", registry=self.registry
        )
        self.calls = Histogram(
            "flotilla_executor_call_duration_seconds",
            "Seconds that functions took, by outcome of the call.",
            ["outcome"],
            buckets=CALL_SECONDS,
            registry=self.registry,
        )
        self.lost = Counter(
            "flotilla_executor_calls_lost",
            "Calls whose lease this executor lost before they ended.",
            registry=self.registry,
        )
        self.store_problems = Counter(
            "flotilla_executor_store_problems", "Times that Redis did not answer.", registry=self.registry
        )
        self.left_behind = Gauge(
            "flotilla_executor_threads_left_behind",
            "Threads that run functions past their time limit.",
            registry=self.registry,
        )
