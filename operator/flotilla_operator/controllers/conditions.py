"""Conditions as values, and how they become `status.conditions`.

A controller judges; this module applies Kubernetes' rules. `lastTransitionTime` changes only when `status`
changes. `Ready` summarizes the other conditions. kstatus reads `Reconciling` and `Stalled`, which are True
when something is wrong: `Reconciling` when it is expected to end by itself, `Stalled` when a person must act.
All three are always written, because kstatus takes an object without a Ready condition for finished.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from math import floor, log10
from typing import Any

from flotilla_operator.api.parts import MESSAGE_LIMIT
from flotilla_operator.cluster.writes import Event, EventType
from flotilla_operator.objects.resources import Manifest
from flotilla_operator.objects.times import timestamp

READY = "Ready"
RECONCILING = "Reconciling"
STALLED = "Stalled"
SPEC_VALID = "SpecValid"


class Truth(StrEnum):
    """The three values of a condition's status."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"

    @classmethod
    def of(cls, value: bool | None) -> "Truth":
        """The status for a boolean; None stands for Unknown."""
        return cls.UNKNOWN if value is None else cls.TRUE if value else cls.FALSE


class MendedBy(StrEnum):
    """Way in which a condition that is not true ends."""

    TIME = "Time"
    PERSON = "Person"


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One condition; with `counts` False it only informs and does not affect Ready."""

    type: str
    status: Truth
    reason: str
    message: str = ""
    mended_by: MendedBy = MendedBy.TIME
    counts: bool = field(default=True)

    @property
    def holds_back(self) -> bool:
        """Whether this keeps the object from being Ready."""
        return self.counts and self.status is not Truth.TRUE


def with_summary(conditions: Sequence[Condition]) -> list[Condition]:
    """The conditions, followed by Ready, Reconciling and Stalled.

    Ready shows one condition that is not True: first one that a person must mend, and of those one that is
    False rather than Unknown.
    """
    open_ones = [condition for condition in conditions if condition.holds_back]
    if not open_ones:
        return [*conditions, *_summary(Truth.TRUE, "Ready", "", stalled=False, reconciling=False)]
    stalled = [c for c in open_ones if c.mended_by is MendedBy.PERSON]
    shown = min(stalled or open_ones, key=lambda condition: condition.status is not Truth.FALSE)
    message = f"{shown.type}: {shown.message}" if shown.message else f"{shown.type} is {shown.status}"
    return [
        *conditions,
        *_summary(shown.status, shown.reason, message, stalled=bool(stalled), reconciling=not stalled),
    ]


def merged(
    existing: Sequence[Mapping[str, Any]],
    wanted: Sequence[Condition],
    *,
    generation: int,
    now: datetime,
) -> list[dict[str, Any]]:
    """The wanted conditions as JSON for the status, each with the time at which its status last changed."""
    before = {condition.get("type"): condition for condition in existing}
    return [_rendered(condition, before.get(condition.type), generation, now) for condition in wanted]


def transitions(existing: Sequence[Mapping[str, Any]], wanted: Sequence[Condition]) -> list[Event]:
    """An event for each condition whose status or reason has changed, except Ready, Reconciling and Stalled.

    A condition of a new object makes an event only when a person must mend it.
    """
    before = {condition.get("type"): condition for condition in existing}
    events = []
    for condition in wanted:
        if condition.type in (READY, RECONCILING, STALLED):
            continue
        needs_a_person = condition.status is not Truth.TRUE and condition.mended_by is MendedBy.PERSON
        held = before.get(condition.type)
        if held is None and not needs_a_person:
            continue
        if held is not None and (held.get("status"), held.get("reason")) == (
            condition.status,
            condition.reason,
        ):
            continue
        event_type = EventType.WARNING if needs_a_person else EventType.NORMAL
        note = condition.message or condition.type
        events.append(Event(type=event_type, reason=condition.reason, note=note, subject=condition.type))
    return events


def conditions_of(manifest: Manifest) -> Sequence[Mapping[str, Any]]:
    """The conditions an object carries now."""
    conditions: Sequence[Mapping[str, Any]] = (manifest.get("status") or {}).get("conditions") or ()
    return conditions


def is_true(manifest: Manifest, condition_type: str) -> bool:
    """Whether an object, ours or Kubernetes' own, carries this condition as True."""
    return any(c.get("type") == condition_type and c.get("status") == "True" for c in conditions_of(manifest))


def rounded(value: float | None, digits: int = 3) -> float | None:
    """A figure for the status, rounded to significant digits, so that noise causes no write."""
    if value is None or value == 0:
        return value
    return round(value, digits - 1 - floor(log10(abs(value))))


def _summary(
    ready: Truth, reason: str, message: str, *, stalled: bool, reconciling: bool
) -> tuple[Condition, Condition, Condition]:
    def abnormal(condition_type: str, present: bool) -> Condition:
        return Condition(
            type=condition_type,
            status=Truth.of(present),
            reason=reason if present else f"Not{condition_type}",
            message=message if present else "",
            counts=False,
        )

    return (
        Condition(type=READY, status=ready, reason=reason, message=message),
        abnormal(RECONCILING, reconciling),
        abnormal(STALLED, stalled),
    )


def _rendered(
    condition: Condition, before: Mapping[str, Any] | None, generation: int, now: datetime
) -> dict[str, Any]:
    same_status = before is not None and before.get("status") == condition.status
    since = before.get("lastTransitionTime") if before is not None and same_status else None
    return {
        "type": condition.type,
        "status": str(condition.status),
        "reason": condition.reason,
        "message": condition.message[:MESSAGE_LIMIT],
        "lastTransitionTime": since or timestamp(now),
        "observedGeneration": generation,
    }
