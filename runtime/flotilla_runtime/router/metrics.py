"""The router's metrics by queue, replica and caller: counters from request records, gauges from HAProxy's
state.

HAProxy's own exporter (PORT_ROUTER_METRICS) knows neither callers nor reasons. Counters start at zero with
the agent, as Prometheus expects. The counters of refused requests exist for every known caller from the
start: a series that appears with its first refusal shows no increase, so an alert on it would not fire.
"""

from collections import Counter as Tally
from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from flotilla_runtime.contract import RouterStatus
from flotilla_runtime.router.openai_errors import RefusalReason
from flotilla_runtime.router.requests import RequestRecord

UNKNOWN = "unknown"  # a caller without a valid key
NO_REPLICA = "none"
ABORTED = "aborted"  # in place of the status of an answer that no caller has seen
LEAST_CONNECTIONS = "LeastConnections"
QUEUE_SECONDS = (0.01, 0.05, 0.1, 0.5, 1, 2, 5, 10, 30, 60)
REQUEST_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600)


class RouterMetrics:
    """Counts request records and shows the router's status; /metrics exposes the registry."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.refused: Tally[str] = Tally()
        self._requests = self._counter(
            "requests",
            "Requests that have ended, by caller, replica and status.",
            "caller",
            "replica",
            "status",
        )
        self._refused = self._counter(
            "refused", "Requests that the router refused, by caller and reason.", "caller", "reason"
        )
        self._routed = self._counter(
            "routed", "Requests sent to a replica, by how the replica was chosen.", "by"
        )
        self._moved = self._counter(
            "moved", "Requests sent to another replica than the home of their conversation."
        )
        self._rebalanced = self._counter(
            "rebalanced", "Times that the requests queued for one replica were balanced again."
        )
        self._queue_seconds = self._histogram(
            "queue_seconds", "Seconds that requests waited in a queue.", "priority", QUEUE_SECONDS
        )
        self._seconds = self._histogram(
            "request_seconds", "Seconds from a request to the end of its answer.", "caller", REQUEST_SECONDS
        )
        self._waiting = self._gauge("waiting_requests", "Requests that wait in a queue.")
        self._held = self._gauge("held_requests", "Requests that wait for a first replica.")
        self._queue_limit = self._gauge(
            "queue_limit_requests", "This router's share of spec.router.maxQueue."
        )
        self._live = self._gauge("live_routers", "Live routers, which share the limits.")
        self._in_flight = self._gauge(
            "in_flight_requests", "Requests that a replica is answering.", "replica"
        )
        self._queued = self._gauge("queued_requests", "Requests that wait for one replica.", "replica")
        self._sessions = self._gauge(
            "sessions", "Conversations of the last ten minutes, by replica.", "replica"
        )
        self._kv_usage = self._gauge(
            "kv_usage", "Share of a replica's KV cache in use, from 0 to 1.", "replica"
        )
        self._replicas = self._gauge("replicas", "Replicas by state in HAProxy.", "state")
        self._expected: set[str] = set()
        self._refused.labels(UNKNOWN, RefusalReason.UNAUTHORIZED.value)

    def count(self, record: RequestRecord) -> None:
        """Count one request that has ended."""
        caller = record.caller or UNKNOWN
        status = ABORTED if record.aborted else str(record.status)
        self._requests.labels(caller, record.replica or NO_REPLICA, status).inc()
        if record.refused is not None:
            self.refused[record.refused] += 1
            self._refused.labels(caller, record.refused).inc()
            return
        if record.replica is not None:
            self._routed.labels(record.key_source or LEAST_CONNECTIONS).inc()
            self._moved.inc(record.moved)
        if record.queue_seconds is not None:
            self._queue_seconds.labels(record.priority or UNKNOWN).observe(record.queue_seconds)
        if record.total_seconds is not None:
            self._seconds.labels(caller).observe(record.total_seconds)

    def expect(self, callers: Iterable[str]) -> None:
        """Create the counters of refusals for these callers.

        Refusals for a wrong key are left out, because their caller is unknown.
        """
        for caller in set(callers) - self._expected:
            self._expected.add(caller)
            for reason in RefusalReason:
                if reason is not RefusalReason.UNAUTHORIZED:
                    self._refused.labels(caller, reason.value)

    def count_rebalanced(self, servers: int) -> None:
        """Count the servers whose queued requests were balanced again."""
        self._rebalanced.inc(servers)

    def show(self, status: RouterStatus) -> None:
        """Set the gauges; those of replicas that are gone are removed."""
        self._waiting.set(status.waiting)
        self._held.set(status.held)
        self._queue_limit.set(status.queue_limit)
        self._live.set(status.live_routers)
        self._in_flight.clear()
        self._queued.clear()
        self._sessions.clear()
        self._kv_usage.clear()
        self._replicas.clear()
        for server in status.servers:
            self._in_flight.labels(server.name).set(server.in_flight)
            self._queued.labels(server.name).set(server.queued)
            self._sessions.labels(server.name).set(server.sessions)
            if server.kv_usage is not None:
                self._kv_usage.labels(server.name).set(server.kv_usage)
            self._replicas.labels(server.state.value).inc()

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"flotilla_router_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"flotilla_router_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, label: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"flotilla_router_{name}", text, (label,), registry=self.registry, buckets=buckets)
