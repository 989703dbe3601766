"""Judges by chains: a tuple of named checks over one value of facts, in the order that matters.

A check answers None when it objects to nothing. The first check that objects gives the reason and the
message, so the tuple shows what goes before what.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from flotilla_operator.controllers.conditions import Condition, MendedBy, Truth

Facts = TypeVar("Facts")
Found = TypeVar("Found")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Result of a check about a condition; most checks object, so its status is False.

    With `counts` False it only informs and does not affect Ready.
    """

    reason: str
    message: str = ""
    status: Truth = Truth.FALSE
    mended_by: MendedBy = MendedBy.TIME
    counts: bool = True


def right(reason: str, message: str = "") -> Finding:
    """A finding that makes the condition True."""
    return Finding(reason=reason, message=message, status=Truth.TRUE)


def informs(status: Truth, reason: str, message: str = "", mended_by: MendedBy = MendedBy.TIME) -> Finding:
    """A finding that does not affect Ready."""
    return Finding(reason=reason, message=message, status=status, mended_by=mended_by, counts=False)


def first_finding(checks: Sequence[Callable[[Facts], Found | None]], facts: Facts) -> Found | None:
    """The answer of the first check that objects; None when none does."""
    return next((found for check in checks if (found := check(facts)) is not None), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain(Generic[Facts]):
    """One condition: its checks in their order, and what it says when none objects."""

    type: str
    checks: tuple[Callable[[Facts], Finding | None], ...]
    otherwise: Callable[[Facts], Finding]

    def condition(self, facts: Facts) -> Condition:
        """The condition for these facts."""
        found = first_finding(self.checks, facts) or self.otherwise(facts)
        return Condition(
            type=self.type,
            status=found.status,
            reason=found.reason,
            message=found.message,
            mended_by=found.mended_by,
            counts=found.counts,
        )
