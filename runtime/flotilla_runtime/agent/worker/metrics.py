"""The metrics of a worker in the Prometheus format; labels come from closed sets, never from a task."""

from collections.abc import Mapping, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from flotilla_runtime.agent.patterns.values import PatternEnd, PatternKind
from flotilla_runtime.agent.traces.counts import spans_counter

CALL_SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300)
BRANCHES = (1, 2, 3, 5, 10, 20, 50, 100, 300, 1000)
LAG_SECONDS = (0.001, 0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 5)
WON_BY: Final[Mapping[bool | None, str]] = {True: "First", False: "Later", None: "Nobody"}


class WorkerMetrics:
    """One worker's metrics in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.running = Gauge(
            "flotilla_worker_tasks_running", "Tasks that this worker is running.", registry=self.registry
        )
        self.runs = Counter(
            "flotilla_worker_runs",
            "Runs of tasks by this worker, by outcome: Ended, HandedOver, Lost, Crashed.",
            ["outcome"],
            registry=self.registry,
        )
        self.calls = Histogram(
            "flotilla_worker_call_duration_seconds",
            "Seconds that calls of models and indexes took.",
            ["kind", "outcome"],
            buckets=CALL_SECONDS,
            registry=self.registry,
        )
        self.store_problems = Counter(
            "flotilla_worker_store_problems", "Times that Redis did not answer.", registry=self.registry
        )
        self.left_behind = Gauge(
            "flotilla_worker_threads_left_behind",
            "Threads that run functions of tools past their time limit.",
            registry=self.registry,
        )
        self.loop_lag = Histogram(
            "flotilla_worker_loop_lag_seconds",
            "Seconds by which the event loop ran a timer late.",
            buckets=LAG_SECONDS,
            registry=self.registry,
        )
        self.branches = Counter(
            "flotilla_worker_branches",
            "Branches of patterns, by how they ended: Value, NotBegun, or the reason for no value.",
            ["pattern", "outcome"],
            registry=self.registry,
        )
        self.races = Counter(
            "flotilla_worker_races",
            "Races by who won: First, the usual way; Later, a slow path; Nobody.",
            ["won_by"],
            registry=self.registry,
        )

        self.pattern_branches = self._histogram(
            "flotilla_worker_pattern_branches", "Branches of a pattern.", BRANCHES
        )
        self.branch_seconds = self._histogram(
            "flotilla_worker_branch_duration_seconds", "Seconds that branches of patterns took."
        )
        self.slowest_branch = self._histogram(
            "flotilla_worker_slowest_branch_seconds", "Seconds that the slowest branch of a pattern took."
        )
        self.fan_in = self._histogram(
            "flotilla_worker_fan_in_seconds",
            "Seconds from the end of the first branch of a pattern to that of the last one.",
        )
        self.spans = spans_counter("flotilla_worker_spans", self.registry)

    def count_pattern(self, end: PatternEnd) -> None:
        """Count the branches of a pattern that ended."""
        for outcome, branches in end.outcomes.items():
            self.branches.labels(end.kind, outcome).inc(branches)
        if end.kind is PatternKind.RACE:
            self.races.labels(WON_BY[end.was_first]).inc()
        self.pattern_branches.labels(end.kind).observe(sum(end.outcomes.values()))
        for took_ms in end.took_ms:
            self.branch_seconds.labels(end.kind).observe(took_ms / 1000)
        if end.took_ms:
            self.slowest_branch.labels(end.kind).observe(max(end.took_ms) / 1000)
        if end.fan_in_ms is not None:
            self.fan_in.labels(end.kind).observe(end.fan_in_ms / 1000)

    def _histogram(self, name: str, text: str, buckets: Sequence[float] = CALL_SECONDS) -> Histogram:
        """A histogram by pattern."""
        return Histogram(name, text, ["pattern"], buckets=buckets, registry=self.registry)
