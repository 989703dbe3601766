"""Decides how many agent workers a fleet needs: as many as its tasks keep busy. Pure.

A worker runs many tasks at once and waits most of the time, so the queue says more than CPU usage does:
wanted = ceil((waiting + in flight) / concurrency), within the bounds, and no more than for the tasks that the
models have room for. More workers are started at once. Fewer
are kept only after the need has been lower for a while, and at least one stays while a task is in flight.
A task that is suspended needs none: when its time comes it counts as waiting. Unknown is not zero: without
figures nothing changes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

QUIET_SECONDS: Final = 60.0  # a worker starts in a few seconds, so a minute outlasts the pauses of a chat


class WorkersReason(StrEnum):
    """Reason for the number of workers."""

    NO_FIGURES = "NoFigures"
    IDLE = "Idle"
    TASKS = "Tasks"
    ADMISSION = "Admission"
    MINIMUM = "Minimum"
    MAXIMUM = "Maximum"
    QUIET_WINDOW = "QuietWindow"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSignals:
    """Figures that the gateway reports of the queue; an `admitted` of None means no limit."""

    waiting: int
    in_flight: int
    admitted: int | None = None

    @property
    def at_work(self) -> int:
        """How many tasks may be at work at once."""
        return at_work(self.waiting, self.in_flight, self.admitted)

    @property
    def is_held_back(self) -> bool:
        """Whether admission lets some tasks wait that workers would take."""
        return self.at_work < self.waiting + self.in_flight


def at_work(waiting: int, in_flight: int, admitted: int | None) -> int:
    """How many tasks may be at work: what has begun goes on, and one may always begin."""
    tasks = waiting + in_flight
    return tasks if admitted is None else min(tasks, max(in_flight, admitted, 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerPolicy:
    """The fleet's `workers`."""

    min_replicas: int
    max_replicas: int
    concurrency: int
    quiet_seconds: float = QUIET_SECONDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """How many workers the tasks needed at one time."""

    at: datetime
    workers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerMemory:
    """Needs of the quiet window. A restart forgets them, which only delays scaling down."""

    needs: Sequence[Need] = field(default=())


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkersDecision:
    """How many workers are wanted, why, and what it was decided from."""

    current: int
    wanted: int
    reason: WorkersReason
    signals: WorkerSignals | None
    policy: WorkerPolicy

    @property
    def message(self) -> str:
        if self.signals is None:
            return f"{self.wanted} workers until the gateway reports the queue"
        held = f"; {self.signals.at_work} may be at work" if self.signals.is_held_back else ""
        return (
            f"{self.wanted} workers for {self.signals.waiting} waiting tasks and "
            f"{self.signals.in_flight} in flight{held}"
        )


def decide(
    signals: WorkerSignals | None,
    policy: WorkerPolicy,
    memory: WorkerMemory,
    *,
    current: int,
    now: datetime,
) -> tuple[WorkersDecision, WorkerMemory]:
    """The number of workers, and what to remember."""

    def decided(wanted: int, reason: WorkersReason) -> WorkersDecision:
        return WorkersDecision(current=current, wanted=wanted, reason=reason, signals=signals, policy=policy)

    if signals is None:
        wanted = min(max(current, policy.min_replicas), policy.max_replicas)
        return decided(wanted, WorkersReason.NO_FIGURES), memory
    need, reason = _need(signals, policy)
    window = timedelta(seconds=policy.quiet_seconds)
    remembered = _within(memory, now - window)
    kept = WorkerMemory(needs=(*remembered, Need(at=now, workers=need)))
    if need >= current:
        return decided(need, reason), kept
    watched_whole_window = any(now - before.at >= window for before in memory.needs)
    highest = max(before.workers for before in kept.needs)
    wanted = highest if watched_whole_window else current
    if wanted >= current:
        held = min(current, policy.max_replicas)
        return decided(held, WorkersReason.QUIET_WINDOW), kept
    return decided(wanted, reason), kept


def _need(signals: WorkerSignals, policy: WorkerPolicy) -> tuple[int, WorkersReason]:
    """Return the number of workers that the present tasks need, within the bounds, and the reason."""
    tasks = signals.at_work
    asked = -(-tasks // policy.concurrency)
    reason = WorkersReason.TASKS if tasks else WorkersReason.IDLE
    if signals.is_held_back and asked < -(-(signals.waiting + signals.in_flight) // policy.concurrency):
        reason = WorkersReason.ADMISSION
    if asked < policy.min_replicas:
        return policy.min_replicas, WorkersReason.MINIMUM
    if asked > policy.max_replicas:
        return policy.max_replicas, WorkersReason.MAXIMUM
    return asked, reason


def _within(memory: WorkerMemory, since: datetime) -> tuple[Need, ...]:
    """The needs inside the window, and the last one before it, which still held when the window began."""
    inside = tuple(need for need in memory.needs if need.at > since)
    before = tuple(need for need in memory.needs if need.at <= since)
    return (*before[-1:], *inside)
