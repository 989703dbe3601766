"""The figures of one run, from the tasks as they stand in Redis. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from fleet.facts import TaskFacts
from multiplexing.plans import CALL_SECONDS, SLOTS

STEADY: Final = (0.1, 0.9)  # of all calls: the start and the end, when few tasks are at work, do not count
WARM_SHARE: Final = 0.9  # of the history that the call before left in the cache


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call of the model: when it ended, and what its replica knew of the prompt."""

    ended_ms: int
    tokens: int
    cached: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How a number of tasks at work did; None where too little has ended."""

    utilisation: float | None
    warm_prefill_share: float | None
    task_p95_seconds: float | None
    seconds: float


def calls_of(task: TaskFacts) -> list[Call]:
    """The calls of the model with their results, in order."""
    return [
        Call(
            ended_ms=entry.at,
            tokens=entry.fields["input_tokens"],
            cached=entry.fields.get("cached_input_tokens", 0),
        )
        for entry in task.entries
        if entry.type == "Done" and entry.fields.get("input_tokens")
    ]


def seconds_of(task: TaskFacts, speed: float) -> float:
    """From the first claim to the end, in seconds of the story."""
    return (int(task.fields["endedAt"]) - int(task.fields["startedAt"])) / 1000 * speed


def load_of(tasks: Iterable[TaskFacts], speed: float) -> Load:
    """The figures of tasks that ran beside each other."""
    known = list(tasks)
    calls = [calls_of(task) for task in known]
    ended = [task for task in known if task.has_ended]
    took = sorted(seconds_of(task, speed) for task in ended)
    began = min(int(task.fields["startedAt"]) for task in known)
    return Load(
        utilisation=_utilisation(sorted(call.ended_ms for each in calls for call in each), speed),
        warm_prefill_share=_warm_share(calls),
        task_p95_seconds=round(took[int(0.95 * (len(took) - 1))], 1) if len(ended) == len(known) else None,
        seconds=round((max(int(task.fields["endedAt"]) for task in ended) - began) / 1000 * speed, 1),
    )


def _utilisation(ends_ms: Sequence[int], speed: float) -> float | None:
    """The share of the slots' time that calls need when nothing is computed again."""
    first, last = (int(share * (len(ends_ms) - 1)) for share in STEADY)
    if last <= first or ends_ms[last] == ends_ms[first]:
        return None
    seconds = (ends_ms[last] - ends_ms[first]) / 1000 * speed
    return round((last - first) * CALL_SECONDS / (SLOTS * seconds), 3)


def _warm_share(calls: Iterable[Sequence[Call]]) -> float | None:
    """Of the calls that follow another one of their task, those whose history was in the cache."""
    pairs = [(before, call) for each in calls for before, call in pairwise(each)]
    warm = sum(call.cached >= WARM_SHARE * before.tokens for before, call in pairs)
    return round(warm / len(pairs), 3) if pairs else None


def late_death_extra(killed: Sequence[float], others: Sequence[float]) -> float | None:
    """How much longer the slowest task took whose replica died than the one that nothing held up."""
    if not killed or not others:
        return None
    return round(max(killed) - min(others), 2)
