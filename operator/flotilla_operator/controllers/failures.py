"""The status of an object whose reconcile could not do everything.

An invalid spec or a refused write becomes `Ready=False` with its reason, and `Stalled=True` when only a
person can mend it. The rest of the status stays as this reconcile or the previous one says it.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from pydantic import ValidationError

from flotilla_operator.cluster.writes import Event, EventType, Told
from flotilla_operator.controllers.conditions import (
    READY,
    RECONCILING,
    SPEC_VALID,
    STALLED,
    Condition,
    MendedBy,
    Truth,
    conditions_of,
    merged,
    transitions,
    with_summary,
)
from flotilla_operator.controllers.errors import SpecError
from flotilla_operator.objects.refused_writes import RefusedWrite, WriteReason
from flotilla_operator.objects.resources import Manifest, ObjectRef

MENDED_BY_A_PERSON: Final = frozenset({WriteReason.NAME_TAKEN, WriteReason.INVALID})
SUMMARY: Final = frozenset({READY, RECONCILING, STALLED})
INVALID_SPEC: Final = "InvalidSpec"
WRITES: Final = "Writes"


def spec_error_of(error: ValidationError) -> SpecError:
    """The first of pydantic's errors, as an error that names the field and the fix."""
    first = error.errors(include_url=False, include_input=False)[0]
    field = ".".join(str(part) for part in first["loc"]) or "spec"
    return SpecError(field=field, problem=first["msg"], fix="correct the field and apply the object again")


def status_at_first(manifest: Manifest, now: datetime) -> Mapping[str, Any]:
    """The status of a new object until its first reconcile has succeeded."""
    message = "the operator has started the first reconcile of this object"
    begun = Condition(type=WRITES, status=Truth.UNKNOWN, reason=RECONCILING, message=message)
    summary = [condition for condition in with_summary([begun]) if condition.type in SUMMARY]
    wanted = merged((), summary, generation=manifest["metadata"].get("generation", 0), now=now)
    return {**(manifest.get("status") or {}), "conditions": wanted}


def told_of_invalid_spec(manifest: Manifest, error: SpecError, now: datetime) -> Told:
    """Report in the status what is wrong with the spec."""
    invalid = Condition(
        type=SPEC_VALID,
        status=Truth.FALSE,
        reason=INVALID_SPEC,
        message=str(error),
        mended_by=MendedBy.PERSON,
    )
    generation = manifest["metadata"].get("generation", 0)
    existing = conditions_of(manifest)
    wanted = merged(existing, with_summary([invalid]), generation=generation, now=now)
    status = {**(manifest.get("status") or {}), "observedGeneration": generation}
    return Told(
        status={**status, "conditions": _overlaid(existing, wanted)},
        events=transitions(existing, [invalid]),
    )


def corrected(
    told: Told,
    refusals: Sequence[RefusedWrite],
    manifest: Manifest,
    now: datetime,
    rests_on: Mapping[str, frozenset[ObjectRef]] | None = None,
) -> Told:
    """Correct the reports of a reconcile by its refused writes.

    The refusals are reported in Ready and in events. `rests_on` maps an event's subject or a condition's type
    to the writes on which it depends. When one of these writes is refused, the event is left out and the
    condition becomes False.
    """
    if not refusals:
        return told
    by_ref = {refusal.ref: refusal for refusal in refusals}
    unfounded = {
        subject: by_ref[ref] for subject, refs in (rests_on or {}).items() for ref in refs if ref in by_ref
    }
    base = told.status if told.status is not None else manifest.get("status") or {}
    below: Sequence[Mapping[str, Any]] = base.get("conditions") or ()
    shown = min(refusals, key=lambda refusal: refusal.reason not in MENDED_BY_A_PERSON)
    summary = [c for c in with_summary([_refused(WRITES, shown)]) if c.type in SUMMARY]
    types = {condition["type"] for condition in below}
    wanted = merged(
        conditions_of(manifest),
        [*(_refused(subject, by) for subject, by in unfounded.items() if subject in types), *summary],
        generation=manifest["metadata"].get("generation", 0),
        now=now,
    )
    return Told(
        status={**base, "conditions": _overlaid(below, wanted)},
        events=[
            *(event for event in told.events if event.subject not in unfounded),
            *_refusal_events(manifest, refusals),
        ],
    )


def _refused(condition_type: str, refusal: RefusedWrite) -> Condition:
    return Condition(
        type=condition_type,
        status=Truth.FALSE,
        reason=refusal.reason,
        message=f"{refusal.ref.plural}/{refusal.ref.name}: {refusal.message}",
        mended_by=MendedBy.PERSON if refusal.reason in MENDED_BY_A_PERSON else MendedBy.TIME,
    )


def _refusal_events(manifest: Manifest, refusals: Sequence[RefusedWrite]) -> list[Event]:
    """A warning event for each refusal whose reason Ready does not show already."""
    said = {c.get("reason") for c in conditions_of(manifest) if c.get("type") == READY}
    return [
        Event(
            type=EventType.WARNING,
            reason=refusal.reason,
            note=f"{refusal.ref.name}: {refusal.message}",
            subject=refusal.ref.plural,
        )
        for refusal in refusals
        if refusal.reason not in said
    ]


def _overlaid(
    below: Sequence[Mapping[str, Any]], above: Sequence[Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    named = {condition["type"] for condition in above}
    return [*(condition for condition in below if condition["type"] not in named), *above]
