"""When the branches of a pattern begin, and when enough of them have ended. Pure: the time is an argument."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any, Final

from flotilla_runtime.agent.failures import AgentError, CallFailedError, LimitReachedError, TaskFailedError
from flotilla_runtime.agent.journal import CallOutcome
from flotilla_runtime.agent.patterns.values import Missing, MissingReason, PatternKind

MILLISECONDS: Final = 1000
LONGEST_PROBLEM: Final = 500  # characters of a branch's problem that are kept

Enough = Callable[[Mapping[str, Any]], bool]  # what ended, in this order, by key: a value or a Missing


def never_enough(_ended: Mapping[str, Any]) -> bool:
    """All branches are waited for."""
    return False


def values_in(ended: Mapping[str, Any]) -> int:
    """How many branches have a value."""
    return sum(not isinstance(one, Missing) for one in ended.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """How much may begin in a second, and how much at once, in units that a branch's `cost` counts."""

    per_second: float
    burst: float

    def __post_init__(self) -> None:
        if self.per_second <= 0 or self.burst <= 0:
            raise ValueError("a rate needs per_second and burst above 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """The tokens of a rate at a moment."""

    tokens: float
    at: int

    def filled(self, rate: Rate, now: int) -> "Bucket":
        """The bucket at a later moment."""
        gained = rate.per_second * max(0, now - self.at) / MILLISECONDS
        return Bucket(tokens=min(rate.burst, self.tokens + gained), at=max(self.at, now))

    def taken(self, cost: float) -> "Bucket":
        """The bucket without these tokens."""
        return Bucket(tokens=self.tokens - cost, at=self.at)

    def opens_at(self, rate: Rate, cost: float) -> int:
        """When it has so many tokens; one that costs more than a whole bucket waits for a whole one."""
        lacking = max(0.0, min(cost, rate.burst) - self.tokens)
        return self.at + ceil(lacking * MILLISECONDS / rate.per_second)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How the branches of a pattern run.

    `at_once`: how many at the same time. `stagger_seconds`: how long after the one before it each begins,
    unless all before it have ended. `is_decided`: which branches count depends on the time, so it is written
    to the journal.
    """

    kind: PatternKind
    enough: Enough = never_enough
    at_once: int | None = None
    stagger_seconds: float = 0
    rate: Rate | None = None
    is_decided: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How far a pattern is. `last_began` is the moment at which a branch began last."""

    running: int
    last_began: int | None
    bucket: Bucket | None
    now: int


def begins_at(plan: Plan, standing: Standing, cost: float) -> int | None:
    """When the next branch may begin; None if only after another one has ended."""
    if plan.at_once is not None and standing.running >= plan.at_once:
        return None
    moment = standing.now
    if plan.stagger_seconds and standing.running and standing.last_began is not None:
        moment = max(moment, standing.last_began + round(plan.stagger_seconds * MILLISECONDS))
    if plan.rate is not None and standing.bucket is not None:
        moment = max(moment, standing.bucket.opens_at(plan.rate, cost))
    return moment


def missing_of(error: BaseException) -> Missing | None:
    """The Missing of a branch that raised this; None if the error is for the agent, not the branch."""
    if isinstance(error, BaseExceptionGroup):
        told = [missing_of(inner) for inner in error.exceptions]
        return None if None in told else told[0]
    if isinstance(error, TaskFailedError) or not isinstance(error, Exception):
        return None
    return Missing(reason=_reason_of(error), problem=_problem_of(error))


def _reason_of(error: Exception) -> MissingReason:
    if isinstance(error, LimitReachedError):
        return MissingReason.LIMIT_REACHED
    is_late = isinstance(error, TimeoutError) or (
        isinstance(error, CallFailedError) and error.outcome is CallOutcome.TIMED_OUT
    )
    return MissingReason.TIMED_OUT if is_late else MissingReason.FAILED


def _problem_of(error: Exception) -> str:
    text = str(error) if isinstance(error, AgentError) else f"{type(error).__name__}: {error}"
    return text if len(text) <= LONGEST_PROBLEM else f"{text[:LONGEST_PROBLEM]}…"
