"""Results of the branches of a pattern. Pure.

A branch that gives no value has a `Missing` in its place, with a reason. So what is handed on says how much
of it is there.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from flotilla_runtime.agent.failures import IncompleteError

VALUE: Final = "Value"
NOT_BEGUN: Final = "NotBegun"


class MissingReason(StrEnum):
    """Why a branch has no value."""

    FAILED = "Failed"
    TIMED_OUT = "TimedOut"
    LIMIT_REACHED = "LimitReached"  # a limit of the task leaves no room for a call of it
    REFUSED = "Refused"  # it gave a value that the agent does not take
    NOT_NEEDED = "NotNeeded"  # enough others had ended before it


class PatternKind(StrEnum):
    """The patterns that have branches, as metrics name them."""

    FAN_OUT = "FanOut"
    RACE = "Race"
    SEARCH = "Search"
    ENSEMBLE = "Ensemble"
    DOCUMENTS = "Documents"
    MAP_REDUCE = "MapReduce"


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """A branch without a value: the reason, and for people the problem."""

    reason: MissingReason
    problem: str

    @property
    def document(self) -> dict[str, str]:
        """The reason and the problem as JSON."""
        return {"reason": str(self.reason), "problem": self.problem}


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    """The results of branches, by key, in the order in which they were asked for.

    `values` has every key: None stands where `missing` says why. So `len(values)` is always what was asked.
    """

    values: Mapping[str, Any]
    missing: Mapping[str, Missing] = field(default_factory=dict)

    @property
    def present(self) -> dict[str, Any]:
        """The values that are there."""
        return {key: value for key, value in self.values.items() if key not in self.missing}

    @property
    def is_complete(self) -> bool:
        """Whether every branch gave a value."""
        return not self.missing

    @property
    def document(self) -> dict[str, Any]:
        """All of it as JSON, for a prompt or a result: marked as incomplete where it is."""
        return {
            "results": dict(self.values),
            "expected": len(self.values),
            "received": len(self.values) - len(self.missing),
            "complete": self.is_complete,
            "missing": {key: missing.document for key, missing in self.missing.items()},
        }

    def at_least(self, count: int) -> "Gathered":
        """The same; raises IncompleteError if fewer values than this are there."""
        received = len(self.values) - len(self.missing)
        if received < count:
            raise IncompleteError(received, count, problems_of(self.missing))
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class PatternEnd:
    """How a pattern ended, for metrics: how many branches ended how, and whether the first one was first.

    `outcomes` has the reasons of the missing and, for those with a value, `Value`. What was not needed before
    it began is `NotBegun` here, since nothing of it was cancelled; the agent and the journal have `NotNeeded`
    for it. `was_first` is None if none has a value. `took_ms` are the times of the branches, of the whole of
    which this run made alone: else nobody knows how long they took. `fan_in_ms` is what the first that ended
    waited for the last one.
    """

    kind: PatternKind
    outcomes: Mapping[str, int]
    was_first: bool | None
    took_ms: tuple[int, ...] = ()
    fan_in_ms: int | None = None

    @classmethod
    def of(
        cls,
        kind: PatternKind,
        keys: Sequence[str],
        ended: Mapping[str, Any],
        spans: Sequence[tuple[int, int]] = (),
        not_begun: Collection[str] = (),
    ) -> "PatternEnd":
        """The end of a pattern with these keys; `ended` is in the order in which the branches ended.

        `spans` are when each branch began and ended, in milliseconds.
        """
        there = [key for key, one in ended.items() if not isinstance(one, Missing)]
        reasons = {key: str(one.reason) for key, one in ended.items() if isinstance(one, Missing)}
        reasons |= dict.fromkeys(not_begun, NOT_BEGUN)
        outcomes = Counter(reasons.get(key, VALUE) for key in ended)
        ends = [end for _, end in spans]
        return cls(
            kind=kind,
            outcomes=outcomes,
            was_first=there[0] == keys[0] if there else None,
            took_ms=tuple(max(0, end - began) for began, end in spans),
            fan_in_ms=max(ends) - min(ends) if len(ends) > 1 else None,
        )


def numbered(names: Sequence[str]) -> list[str]:
    """A key for each name: the name, and for one that comes again a number behind it: `sql`, `sql-2`."""
    taken = set(names)
    times: Counter[str] = Counter()
    keys = []
    for name in names:
        times[name] += 1
        number = times[name]
        while number > 1 and f"{name}-{number}" in taken:
            number += 1
        keys.append(name if number == 1 else f"{name}-{number}")
        taken.add(keys[-1])
    return keys


def gathered(keys: Sequence[str], ended: Mapping[str, Any]) -> Gathered:
    """The results of the branches, in the order of these keys. Every key must have ended."""
    values = {key: None if isinstance(ended[key], Missing) else ended[key] for key in keys}
    missing = {key: value for key in keys if isinstance(value := ended[key], Missing)}
    return Gathered(values=values, missing=missing)


def problems_of(missing: Mapping[str, Missing]) -> dict[str, str]:
    """The problem of each missing branch, for a message."""
    return {key: f"{one.reason}: {one.problem}" for key, one in missing.items()}


OnPattern = Callable[[PatternEnd], None]


def unheard(_end: PatternEnd) -> None:
    """For runs whose patterns nobody counts."""
