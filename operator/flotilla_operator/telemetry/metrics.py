"""The operator's own metrics, named as controller-runtime names its own, with `flotilla_` before.

Labels come from closed sets (kinds, resources, results), never from an object's name. The classes here are
what the queue, the reflectors and the scraper report to; they know nothing of Prometheus.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

SECONDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0)


class OfKind(Protocol):
    """Anything that belongs to a kind: a queue's key, a resource."""

    @property
    def kind(self) -> str:
        """The kind's name."""


class Metrics:
    """One process's metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._reconciles = self._counter(
            "flotilla_controller_reconcile",
            "Reconciles by result: success, refused, error.",
            "kind",
            "result",
        )
        self._errors = self._counter(
            "flotilla_controller_reconcile_errors", "Reconciles that raised.", "kind"
        )
        self._seconds = self._histogram(
            "flotilla_controller_reconcile_time_seconds", "A reconcile's time.", "kind"
        )
        self._adds = self._counter("flotilla_workqueue_adds", "Keys that began to wait.", "kind")
        self._retries = self._counter("flotilla_workqueue_retries", "Keys that failed and came back.", "kind")
        self._waits = self._histogram("flotilla_workqueue_queue_duration_seconds", "A key's wait.", "kind")
        self._depth = self._gauge("flotilla_workqueue_depth", "Keys that wait.")
        self._leader = self._gauge("flotilla_leader", "1 while this process leads.")
        self._lag = self._gauge(
            "flotilla_event_loop_lag_seconds", "How late the event loop ran its last timer."
        )
        self._lists = self._counter("flotilla_cache_lists", "Complete lists.", "resource")
        self._cached = self._gauge("flotilla_cache_objects", "Objects held after the last list.", "resource")
        self._cache_errors = self._counter(
            "flotilla_cache_errors", "Lists or watches that failed.", "resource"
        )
        self._age = self._gauge(
            "flotilla_cache_age_seconds",
            "Since the last sign of life of the quietest watch.",
            "resource",
        )
        self._scrapes = self._counter("flotilla_scrapes", "Scrapes by result: success, error.", "result")

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
        """A key failed and will come back."""
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
        """Ask for the age of the oldest of a resource's watches whenever somebody reads the metrics."""
        self._age.labels(resource.kind).set_function(lambda: max(age() for age in ages_seconds))

    def depth_is(self, depth: Callable[[], int]) -> None:
        """Ask for the queue's depth whenever somebody reads the metrics."""
        self._depth.set_function(depth)

    def leads(self, *, leading: bool) -> None:
        """Whether this process leads."""
        self._leader.set(leading)

    def lagged(self, seconds: float) -> None:
        """How late the event loop was."""
        self._lag.set(seconds)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, *labels: str) -> Histogram:
        return Histogram(name, text, labels, registry=self.registry, buckets=SECONDS)
