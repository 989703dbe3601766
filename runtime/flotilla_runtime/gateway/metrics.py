"""The metrics of a gateway and the fleet's figures, in the Prometheus format."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from flotilla_runtime.agent.traces.counts import spans_counter
from flotilla_runtime.contract import FleetStatus

REQUEST_SECONDS = (0.005, 0.02, 0.05, 0.1, 0.3, 1, 3, 10)


class GatewayMetrics:
    """One gateway's metrics in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "flotilla_gateway_requests",
            "Requests to the task API, by route and status.",
            ["route", "status"],
            registry=self.registry,
        )
        self.duration = Histogram(
            "flotilla_gateway_request_duration_seconds",
            "Seconds from a request until its answer started, by route.",
            ["route"],
            buckets=REQUEST_SECONDS,
            registry=self.registry,
        )
        self._waiting = self._gauge("flotilla_fleet_tasks_waiting", "Tasks that wait in the queues.")
        self._in_flight = self._gauge("flotilla_fleet_tasks_in_flight", "Tasks that workers are running.")
        self._oldest = self._gauge(
            "flotilla_fleet_queue_lag_seconds", "Seconds that the oldest waiting task has waited."
        )
        self._suspended = self._gauge(
            "flotilla_fleet_tasks_suspended", "Tasks that wait and hold no place in a worker."
        )
        self._unknown = self._gauge(
            "flotilla_fleet_unknown_effects", "Tasks that wait to be told whether a call happened."
        )
        self._approvals = self._gauge(
            "flotilla_fleet_tasks_waiting_for_approval", "Tasks that wait until somebody decides on a call."
        )
        self._dead_letters = self._gauge(
            "flotilla_fleet_dead_letters", "Tasks that failed and can still be read and replayed."
        )
        self._recovered = self._gauge(
            "flotilla_fleet_tasks_recovered_1h",
            "Tasks that ended in the last hour after more than one attempt, such as after a worker was lost.",
        )
        self._tokens = self._gauge(
            "flotilla_fleet_tokens_1h", "Tokens used by the tasks that ended in the last hour."
        )
        self._ended = Gauge(
            "flotilla_fleet_tasks_ended_1h",
            "Tasks that ended in the last hour, by reason.",
            ["reason"],
            registry=self.registry,
        )
        self._seconds = Gauge(
            "flotilla_fleet_task_seconds_1h",
            "Seconds from submission to end and to start, for the tasks of the last hour, as quantiles.",
            ["stage", "quantile"],
            registry=self.registry,
        )

        self.spans = spans_counter("flotilla_gateway_spans", self.registry)

    def show(self, status: FleetStatus) -> None:
        """Set the gauges to the fleet's figures."""
        self._waiting.set(status.waiting)
        self._in_flight.set(status.in_flight)
        self._oldest.set(status.oldest_waiting_seconds or 0)
        self._suspended.set(status.suspended)
        self._unknown.set(status.unknown_effects)
        self._approvals.set(status.waiting_for_approval)
        self._dead_letters.set(status.dead_letters)
        self._recovered.set(status.recovered)
        self._tokens.set(status.tokens)
        self._ended.clear()
        for reason, count in status.ended.items():
            self._ended.labels(reason).set(count)
        self._seconds.clear()
        for stage, quantile, value in (
            ("end", "0.5", status.p50_seconds),
            ("end", "0.95", status.p95_seconds),
            ("start", "0.95", status.wait_p95_seconds),
        ):
            if value is not None:
                self._seconds.labels(stage, quantile).set(value)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(name, text, registry=self.registry)
