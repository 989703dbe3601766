"""The operator's own metrics, named like controller-runtime's, with the prefix `flotilla_`.

Labels come from closed sets (kinds, resources, results), never from object names. The queue, the reflectors
and the scraper report to `Metrics` through small protocols and do not depend on Prometheus.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

SECONDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0)


class OfKind(Protocol):
    """Anything with a kind: a key of the queue, a resource."""

    @property
    def kind(self) -> str:
        """The name of the kind."""


class Metrics:
    """One process's metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._reconciles = self._counter(
            "flotilla_controller_reconcile",
            "Finished reconciles, by kind and result: success, refused (a write was refused), error.",
            "kind",
            "result",
        )
        self._errors = self._counter(
            "flotilla_controller_reconcile_errors", "Reconciles that failed with an error.", "kind"
        )
        self._seconds = self._histogram(
            "flotilla_controller_reconcile_time_seconds", "Seconds that a reconcile took.", "kind"
        )
        self._adds = self._counter("flotilla_workqueue_adds", "Objects added to the work queue.", "kind")
        self._retries = self._counter(
            "flotilla_workqueue_retries", "Objects queued again after a failed reconcile.", "kind"
        )
        self._waits = self._histogram(
            "flotilla_workqueue_queue_duration_seconds",
            "Seconds that an object waited in the work queue.",
            "kind",
        )
        self._depth = self._gauge("flotilla_workqueue_depth", "Objects that wait in the work queue.")
        self._leader = self._gauge("flotilla_leader", "1 while this process is the leader, else 0.")
        self._lag = self._gauge(
            "flotilla_event_loop_lag_seconds", "Seconds by which the event loop ran its last timer late."
        )
        self._lists = self._counter("flotilla_cache_lists", "Complete lists of a resource.", "resource")
        self._cached = self._gauge(
            "flotilla_cache_objects", "Objects in the cache after the last list.", "resource"
        )
        self._cache_errors = self._counter(
            "flotilla_cache_errors", "Lists or watches of a resource that failed.", "resource"
        )
        self._age = self._gauge(
            "flotilla_cache_age_seconds",
            "Seconds since the last activity of a resource's watch; the longest, with several watches.",
            "resource",
        )
        self._scrapes = self._counter(
            "flotilla_scrapes", "Scrapes of pods, by result: success, error.", "result"
        )

    def reconciled(self, key: OfKind, result: str, seconds: float) -> None:
        """A reconcile ended."""
        self._reconciles.labels(key.kind, result).inc()
        self._seconds.labels(key.kind).observe(seconds)
        if result == "error":
            self._errors.labels(key.kind).inc()

    def added(self, key: OfKind) -> None:
        """A key began to wait."""
        self._adds.labels(key.kind).inc()

    def taken(self, key: OfKind, waited_seconds: float) -> None:
        """A key stopped waiting."""
        self._waits.labels(key.kind).observe(waited_seconds)

    def retried(self, key: OfKind) -> None:
        """A key failed and will be queued again."""
        self._retries.labels(key.kind).inc()

    def listed(self, resource: OfKind, objects: int) -> None:
        """A list was complete."""
        self._lists.labels(resource.kind).inc()
        self._cached.labels(resource.kind).set(objects)

    def failed(self, resource: OfKind, error: Exception) -> None:
        """A list or a watch failed."""
        self._cache_errors.labels(resource.kind).inc()

    def scraped(self, *, succeeded: bool) -> None:
        """A scrape ended."""
        self._scrapes.labels("success" if succeeded else "error").inc()

    def watch_age(self, resource: OfKind, ages_seconds: Sequence[Callable[[], float]]) -> None:
        """Report the age of a resource's oldest watch, computed each time the metrics are read."""
        self._age.labels(resource.kind).set_function(lambda: max(age() for age in ages_seconds))

    def depth_is(self, depth: Callable[[], int]) -> None:
        """Report the queue's depth, computed each time the metrics are read."""
        self._depth.set_function(depth)

    def leads(self, *, leading: bool) -> None:
        """Record whether this process leads."""
        self._leader.set(leading)

    def lagged(self, seconds: float) -> None:
        """Record how late the event loop was."""
        self._lag.set(seconds)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, *labels: str) -> Histogram:
        return Histogram(name, text, labels, registry=self.registry, buckets=SECONDS)
