"""Memory of a set, read from its status and written to it: the only place that knows both forms.

A part of the status that is not valid, such as one that an older release wrote in another form, is forgotten
alone. What is about an older spec is forgotten where the user may have mended the cause.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from flotilla_operator.api.annotations import rebalance_of
from flotilla_operator.api.model_replica_set import (
    BackoffStatus,
    CapacityStatus,
    GroupStatus,
    WaitingStatus,
)
from flotilla_operator.autoscaling.from_zero import ZeroDecision
from flotilla_operator.controllers.conditions import conditions_of
from flotilla_operator.controllers.model_replica_set.reasons import ConditionType, Reason
from flotilla_operator.controllers.model_replica_set.remembered.failures import backoff_of, refusal_of
from flotilla_operator.controllers.model_replica_set.remembered.moves import answered_rebalance, attempts_of
from flotilla_operator.controllers.model_replica_set.remembered.rollouts import rollout_of
from flotilla_operator.controllers.stored_status import stored_part, stored_parts
from flotilla_operator.objects.resources import Manifest
from flotilla_operator.objects.times import known_time, parsed_timestamp, timestamp
from flotilla_operator.replicas.group import Phase
from flotilla_operator.replicas.memory import Listed, Remembered, Startup
from flotilla_operator.replicas.provisioning import Attempts

LONGEST_ASKED = 256  # what the status holds of the annotation
DECISIONS_KEPT = 5
UNSETTLED = ("waiting", "gated", "binding", "draining")

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToldBefore:
    """Conditions, load and decisions of autoscaling, as the status shows them."""

    conditions: Sequence[Json] = ()
    load: Json = field(default_factory=dict)
    decisions: Sequence[Json] = ()


def remembered(manifest: Manifest) -> Remembered:
    """Read the state that the last reconcile kept in the status."""
    status: Json = manifest.get("status") or {}
    placement: Json = status.get("placement") or {}
    capacity = stored_part(CapacityStatus, status.get("capacity"))
    of_this_spec = _is_of_this_spec(manifest)
    return Remembered(
        of_this_spec=of_this_spec,
        invalid=of_this_spec and _is_invalid(manifest),
        wanted=int(status.get("desiredReplicas") or 0),
        waiting=int((status.get("groupCounts") or {}).get("waiting") or 0),
        listed={
            entry.name: Listed(phase=_phase(entry.phase), since=known_time(entry.since_time))
            for entry in stored_parts(GroupStatus, status.get("groups"))
        },
        more_waiting=tuple(
            parsed_timestamp(entry.since_time)
            for entry in stored_parts(WaitingStatus, status.get("moreWaiting"))
            for _ in range(entry.replicas)
        ),
        backoff=backoff_of(stored_part(BackoffStatus, status.get("backoff")), of_this_spec=of_this_spec),
        refusal=refusal_of(manifest) if of_this_spec else None,
        rollout=rollout_of(status.get("rollout")),
        rebalance=answered_rebalance(rebalance_of(manifest)[:LONGEST_ASKED], placement),
        attempts=attempts_of(placement.get("nodeProvisioning")) if of_this_spec else Attempts(),
        startup_seconds=None if capacity is None else capacity.startup_seconds,
        model=None if capacity is None else capacity.model,
        startups=() if capacity is None else tuple(_startup(start) for start in capacity.startups),
    )


def newly_refused(manifest: Manifest) -> bool:
    """Whether the API server refused pods a moment ago, for which room had been planned."""
    refusal = refusal_of(manifest) if _is_of_this_spec(manifest) else None
    return refusal is not None and refusal.lasts and not refusal.counted


def is_unsettled(manifest: Manifest) -> bool:
    """Whether the set waits for room, drains, moves or has groups that are not bound."""
    status: Json = manifest.get("status") or {}
    counts = status.get("groupCounts") or {}
    return any(counts.get(phase) for phase in UNSETTLED) or _moves(status)


def only_waits(manifest: Manifest) -> bool:
    """Whether the set waits for room, and nothing else of it is unsettled."""
    status: Json = manifest.get("status") or {}
    counts = status.get("groupCounts") or {}
    return {phase for phase in UNSETTLED if counts.get(phase)} == {"waiting"} and not _moves(status)


def _moves(status: Json) -> bool:
    reasons = {condition["type"]: condition["reason"] for condition in status.get("conditions") or ()}
    return reasons.get(ConditionType.PROGRESSING) in (Reason.EMPTYING_NODES, Reason.REBALANCING)


def told_before(manifest: Manifest) -> ToldBefore:
    """Read the conditions, load and decisions that the status shows now."""
    status: Json = manifest.get("status") or {}
    return ToldBefore(
        conditions=tuple(conditions_of(manifest)),
        load=status.get("load") or {},
        decisions=tuple((status.get("autoscaling") or {}).get("lastDecisions") or ()),
    )


def startups_status(startups: Sequence[Startup]) -> list[dict[str, Any]] | None:
    """`status.capacity.startups`."""
    return [
        {
            "group": start.group,
            "revision": start.revision,
            "readyTime": timestamp(start.ready_at),
            "seconds": start.seconds,
        }
        for start in startups
    ] or None


def scaling_status(
    before: Sequence[Json], decision: ZeroDecision | None, now: datetime
) -> dict[str, Any] | None:
    """`status.autoscaling`: who sets the number of replicas, and its last decisions, `before` among them."""
    if decision is None:
        return None
    kept = list(before)
    if decision.wanted != decision.current:
        said = {
            "time": timestamp(now),
            "from": decision.current,
            "to": decision.wanted,
            "reason": f"{decision.reason}: {decision.message}",
        }
        kept = [*kept, said][-DECISIONS_KEPT:]
    return {"owner": "Flotilla", "mode": str(decision.reason), "lastDecisions": kept}


def _is_of_this_spec(manifest: Manifest) -> bool:
    seen = (manifest.get("status") or {}).get("observedGeneration")
    return bool(seen == manifest["metadata"].get("generation"))


def _is_invalid(manifest: Manifest) -> bool:
    """Whether a person must change the set before it gets pods. An ignored prefix holds nothing back."""
    judged = {c["type"]: (c["status"], c["reason"]) for c in conditions_of(manifest)}
    status, reason = judged.get(ConditionType.SPEC_VALID, ("Unknown", ""))
    return bool(status == "False" and reason != Reason.SHARED_PREFIX_IGNORED)


def _phase(text: str) -> Phase | None:
    return Phase(text) if text in tuple(Phase) else None


def _startup(held: Any) -> Startup:
    return Startup(
        group=held.group,
        revision=held.revision,
        ready_at=parsed_timestamp(held.ready_time),
        seconds=held.seconds,
    )
