"""Metrics of the levers, in the Prometheus format; labels are names of the spec."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

WAIT_SECONDS = (0.1, 0.3, 1, 3, 10, 30, 60, 120)


class LeverMetrics:
    """The metrics of one worker's levers."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.waits = Histogram(
            "flotilla_worker_rate_limit_wait_seconds",
            "Seconds that calls waited for their turn, by rate limit; those that did not wait count as 0.",
            ["limit"],
            buckets=WAIT_SECONDS,
            registry=registry,
        )
        self.overflows = Counter(
            "flotilla_worker_overflows",
            "Calls of a model that went to another one, by both.",
            ["model", "to"],
            registry=registry,
        )
        self.openings = Counter(
            "flotilla_worker_circuit_openings",
            "How often a circuit opened, because a model or tool had failed.",
            ["kind", "target"],
            registry=registry,
        )
        self.open = Gauge(
            "flotilla_worker_circuit_open",
            "1 while a circuit is open or half open.",
            ["kind", "target"],
            registry=registry,
        )
        self.cache = Counter(
            "flotilla_worker_cache",
            "Calls that the cache may answer, by kind and outcome: Hit, SimilarHit, Miss.",
            ["kind", "outcome"],
            registry=registry,
        )
