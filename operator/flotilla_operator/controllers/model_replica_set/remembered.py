"""What a set remembers, read from its status and written to it: the one place that knows both forms.

A part of the status that is not valid, such as one that an older release wrote in another form, is forgotten
alone. What is about an older spec is forgotten where the user may have mended the cause.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from flotilla_operator.api.annotations import rebalance_of
from flotilla_operator.api.model_replica_set import (
    AnswersStatus,
    BackoffStatus,
    CapacityStatus,
    GroupStatus,
    NodeProvisioningStatus,
    PlacementMove,
    RebalanceStatus,
    RefusedPodsStatus,
    RolloutStatus,
    WaitingStatus,
)
from flotilla_operator.api.parts import MESSAGE_LIMIT
from flotilla_operator.autoscaling.from_zero import ZeroDecision
from flotilla_operator.controllers.conditions import conditions_of
from flotilla_operator.controllers.model_replica_set.reasons import ConditionType, Reason
from flotilla_operator.objects.refused_writes import WriteReason
from flotilla_operator.objects.resources import Manifest
from flotilla_operator.objects.times import parsed_timestamp, timestamp
from flotilla_operator.replicas.answers import NO_ANSWERS, Answers
from flotilla_operator.replicas.backoff import Backoff, RefusedPods
from flotilla_operator.replicas.group import Phase
from flotilla_operator.replicas.memory import Listed, Remembered, Startup
from flotilla_operator.replicas.moves import Move, MovePhase, Rebalance, RebalancePhase
from flotilla_operator.replicas.provisioning import Attempts
from flotilla_operator.replicas.rollout import Fault, Rollout

GROUP_NAME = re.compile(r"[a-z0-9][-a-z0-9]*")  # a refusal begins with the plural and the name of an object
LONGEST_ASKED = 256  # what the status holds of the annotation
DECISIONS_KEPT = 5
UNSETTLED = ("waiting", "gated", "binding", "draining")

Part = TypeVar("Part", bound=BaseModel)
Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToldBefore:
    """What the status shows of conditions, load and decisions of autoscaling, as it was written."""

    conditions: Sequence[Json] = ()
    load: Json = field(default_factory=dict)
    decisions: Sequence[Json] = ()


def remembered(manifest: Manifest) -> Remembered:
    """What the last reconcile remembered in the status."""
    status: Json = manifest.get("status") or {}
    placement: Json = status.get("placement") or {}
    capacity = _part(CapacityStatus, status.get("capacity"))
    of_this_spec = _is_of_this_spec(manifest)
    return Remembered(
        of_this_spec=of_this_spec,
        invalid=of_this_spec and _is_invalid(manifest),
        wanted=int(status.get("desiredReplicas") or 0),
        waiting=int((status.get("groupCounts") or {}).get("waiting") or 0),
        listed={
            entry.name: Listed(phase=_phase(entry.phase), since=_time(entry.since_time))
            for entry in _parts(GroupStatus, status.get("groups"))
        },
        more_waiting=tuple(
            parsed_timestamp(entry.since_time)
            for entry in _parts(WaitingStatus, status.get("moreWaiting"))
            for _ in range(entry.replicas)
        ),
        backoff=_backoff(_part(BackoffStatus, status.get("backoff")), of_this_spec=of_this_spec),
        refusal=_refusal(manifest) if of_this_spec else None,
        rollout=rollout_of(status.get("rollout")),
        rebalance=_rebalance(rebalance_of(manifest)[:LONGEST_ASKED], placement),
        attempts=_attempts(placement.get("nodeProvisioning")) if of_this_spec else Attempts(),
        startup_seconds=None if capacity is None else capacity.startup_seconds,
        model=None if capacity is None else capacity.model,
        startups=() if capacity is None else tuple(_startup(start) for start in capacity.startups),
    )


def newly_refused(manifest: Manifest) -> bool:
    """Whether the API server refused pods a moment ago, for which room had been planned."""
    refusal = _refusal(manifest) if _is_of_this_spec(manifest) else None
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
    """What the status shows now."""
    status: Json = manifest.get("status") or {}
    return ToldBefore(
        conditions=tuple(conditions_of(manifest)),
        load=status.get("load") or {},
        decisions=tuple((status.get("autoscaling") or {}).get("lastDecisions") or ()),
    )


def rollout_of(held: Json | None) -> Rollout:
    """The rollout as the status has it."""
    found = _part(RolloutStatus, held)
    if found is None:
        return Rollout()
    return Rollout(
        revision=found.revision,
        good=found.good_revision or "",
        failed=found.failed_revision or "",
        fault=Fault(found.fault) if found.fault in tuple(Fault) else None,
        message=found.message or "",
        ready=found.ready_replicas,
        most_ready=found.most_ready_replicas,
        outdated=found.outdated_replicas,
        progress_at=_time(found.progress_time),
        trial_since=_time(found.trial_time),
        stopped_at=_time(found.clock_stopped_time),
        answers=_answers(found.answers),
        before_trial=_answers(found.answers_before_trial),
        old_answers=_answers(found.old_answers),
    )


def rollout_status(rollout: Rollout) -> dict[str, Any]:
    """`status.rollout`."""
    return {
        "revision": rollout.revision,
        "goodRevision": rollout.good or None,
        "failedRevision": rollout.failed or None,
        "fault": None if rollout.fault is None else str(rollout.fault),
        "message": rollout.message or None,
        "readyReplicas": rollout.ready,
        "mostReadyReplicas": rollout.most_ready,
        "outdatedReplicas": rollout.outdated,
        "progressTime": _text(rollout.progress_at),
        "trialTime": _text(rollout.trial_since),
        "clockStoppedTime": _text(rollout.stopped_at),
        "answers": _answers_status(rollout.answers),
        "answersBeforeTrial": _answers_status(rollout.before_trial),
        "oldAnswers": _answers_status(rollout.old_answers),
    }


def backoff_status(backoff: Backoff | None) -> dict[str, Any] | None:
    """`status.backoff`. The message begins with the name of the group that failed, if one did."""
    if backoff is None:
        return None
    return {
        "failures": backoff.failures,
        "failedTime": timestamp(backoff.failed_at),
        "untilTime": timestamp(backoff.until),
        "reason": backoff.reason or None,
        "message": backoff.message,
    }


def refused_pods_status(refused: RefusedPods | None) -> dict[str, Any] | None:
    """`status.refusedPods`."""
    if refused is None:
        return None
    message = refused.message[:MESSAGE_LIMIT] or None
    return {"reason": str(refused.reason), "message": message, "counted": refused.counted}


def rebalance_status(rebalance: Rebalance) -> dict[str, Any]:
    """The fields of `status.placement` about rebalancing."""
    if rebalance.phase is None:
        return {"rebalance": None, "moves": []}
    told = {
        "asked": rebalance.asked,
        "phase": str(rebalance.phase),
        "message": rebalance.message[:MESSAGE_LIMIT] or None,
        "plannedTime": _text(rebalance.planned_at),
    }
    return {"rebalance": told, "moves": [_move_status(move) for move in rebalance.moves]}


def attempts_status(attempts: Attempts, *, placeholders: int, bound: int) -> dict[str, Any] | None:
    """`status.placement.nodeProvisioning`; None while nothing is or was asked for in vain."""
    if not placeholders and not attempts.timeouts:
        return None
    return {
        "placeholders": placeholders,
        "bound": bound,
        "timeouts": attempts.timeouts,
        "lastTimeout": attempts.last_timeout or None,
        "retryTime": _text(attempts.retry_at),
    }


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


def _part(model: type[Part], held: Json | None) -> Part | None:
    """A part of the status; None when there is none, or it is not valid."""
    if not held:
        return None
    try:
        return model.model_validate(held)
    except ValidationError:
        return None


def _parts(model: type[Part], held: Sequence[Json] | None) -> list[Part]:
    found = (_part(model, one) for one in held or ())
    return [part for part in found if part is not None]


def _phase(text: str) -> Phase | None:
    return Phase(text) if text in tuple(Phase) else None


def _time(text: str | None) -> datetime | None:
    return parsed_timestamp(text) if text else None


def _text(time: datetime | None) -> str | None:
    return None if time is None else timestamp(time)


def _answers(held: AnswersStatus | None) -> Answers:
    return NO_ANSWERS if held is None else Answers(count=held.count, failed=held.failed, kept=held.kept)


def _answers_status(answers: Answers) -> dict[str, int] | None:
    if not answers.count:
        return None
    return {"count": answers.count, "failed": answers.failed, "kept": answers.kept}


def _backoff(held: BackoffStatus | None, *, of_this_spec: bool) -> Backoff | None:
    """A changed spec may be allowed what was refused before, so it is tried at once."""
    if held is None:
        return None
    message, reason = held.message or "", held.reason or ""
    group, separator, why = message.partition(": ")
    named = bool(separator) and GROUP_NAME.fullmatch(group) is not None
    found = Backoff(
        failures=held.failures,
        failed_at=parsed_timestamp(held.failed_time),
        why=why if named else message,
        reason=reason,
        group=group if named else "",
    )
    return None if found.refused and not of_this_spec else found


def _refusal(manifest: Manifest) -> RefusedPods | None:
    status: Json = manifest.get("status") or {}
    held = _part(RefusedPodsStatus, status.get("refusedPods")) or _refusal_of_older_releases(manifest)
    if held is None or held.reason not in tuple(WriteReason):
        return None
    return RefusedPods(reason=WriteReason(held.reason), message=held.message or "", counted=held.counted)


def _refusal_of_older_releases(manifest: Manifest) -> RefusedPodsStatus | None:
    """They kept a refusal in the condition Placed, and one that was counted in the backoff."""
    placed = next((c for c in conditions_of(manifest) if c["type"] == ConditionType.PLACED), {})
    backoff = _part(BackoffStatus, (manifest.get("status") or {}).get("backoff"))
    if placed.get("reason") == Reason.BACKING_OFF and backoff is not None:
        return RefusedPodsStatus(reason=backoff.reason or "", message=backoff.message, counted=True)
    reason, message = str(placed.get("reason") or ""), placed.get("message")
    return RefusedPodsStatus(reason=reason, message=message) if reason else None


def _rebalance(asked: str, placement: Json) -> Rebalance:
    """The answer to the annotation, unless it has another value since."""
    held = _part(RebalanceStatus, placement.get("rebalance"))
    if not asked or held is None or held.asked != asked or held.phase not in tuple(RebalancePhase):
        return Rebalance(asked=asked)
    return Rebalance(
        asked=asked,
        phase=RebalancePhase(held.phase),
        message=held.message or "",
        planned_at=_time(held.planned_time),
        moves=tuple(
            _move(entry)
            for entry in _parts(PlacementMove, placement.get("moves"))
            if entry.phase in tuple(MovePhase)
        ),
    )


def _move(held: PlacementMove) -> Move:
    return Move(
        group=held.group,
        from_nodes=held.from_nodes,
        to_nodes=held.to_nodes,
        step=held.step,
        gain=held.gain,
        accelerators_restarted=held.accelerators_restarted,
        sessions_lost=held.sessions_lost,
        phase=MovePhase(held.phase),
        drains_first=held.drains_first,
    )


def _move_status(move: Move) -> dict[str, Any]:
    return {
        "group": move.group,
        "fromNodes": list(move.from_nodes),
        "toNodes": list(move.to_nodes),
        "step": move.step,
        "gain": round(move.gain, 4),
        "acceleratorsRestarted": move.accelerators_restarted,
        "sessionsLost": move.sessions_lost,
        "phase": str(move.phase),
        "drainsFirst": move.drains_first,
    }


def _attempts(held: Json | None) -> Attempts:
    found = _part(NodeProvisioningStatus, held)
    if found is None:
        return Attempts()
    return Attempts(
        timeouts=found.timeouts,
        last_timeout=found.last_timeout or "",
        retry_at=_time(found.retry_time),
    )


def _startup(held: Any) -> Startup:
    return Startup(
        group=held.group,
        revision=held.revision,
        ready_at=parsed_timestamp(held.ready_time),
        seconds=held.seconds,
    )
