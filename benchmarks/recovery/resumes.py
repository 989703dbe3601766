"""How long tasks stood still after their worker was killed: until their next call. Pure.

A task that stands before an Unsafe call whose effect is unknown makes no call, because it must not. It has
come so far when it asks `reconcile` or is suspended, and that counts as its next call. So does its end. A
task that ends or is suspended by what the worker sent before its death has not stood still.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from fleet.facts import Entry, TaskFacts

TAKES = "Claimed"
LEAVES = frozenset({"HandedOver", "Suspended", "Ended"})
GOES_ON = frozenset({"Intended", "Resolved", "Suspended", "Ended"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Killed:
    """A worker that was killed at this time, in milliseconds since the epoch."""

    worker: str
    at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Resume:
    """How long one task stood still after one kill."""

    seconds: float
    task: str
    kill: Killed


def resumes_of(kills: Sequence[Killed], tasks: Iterable[TaskFacts]) -> list[Resume]:
    """For each kill and each task that the worker held: the time until the task's next call."""
    return [
        Resume(seconds=seconds, task=task.id, kill=kill)
        for task in tasks
        for kill in kills
        for seconds in _resumed(kill, task)
    ]


def percentile(values: Sequence[float], percent: float) -> float | None:
    """The smallest value that this share of the values does not exceed; None of no values."""
    if not values:
        return None
    return sorted(values)[max(0, math.ceil(len(values) * percent / 100) - 1)]


def _resumed(kill: Killed, task: TaskFacts) -> Iterator[float]:
    place = _claim_at(kill, task.entries)
    if place is None:
        return
    is_taken = False
    for entry in task.entries[place + 1 :]:
        if entry.type in LEAVES and not is_taken:
            return
        is_taken = is_taken or entry.type == TAKES
        if is_taken and entry.type in GOES_ON:
            yield (entry.at - kill.at) / 1000
            return


def _claim_at(kill: Killed, entries: Sequence[Entry]) -> int | None:
    """The place of the claim by which the worker held the task when it was killed."""
    held: int | None = None
    for place, entry in enumerate(entries):
        if entry.at > kill.at:
            break
        if entry.type == TAKES:
            held = place if entry.fields.get("worker") == kill.worker else None
        elif entry.type in LEAVES:
            held = None
    return held
