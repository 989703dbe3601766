"""The conditions of a set: each a short chain from what is wrong to what is right.

`Ready` needs every wanted replica to serve, so it is summed up with one more condition than is shown. Waiting
for room is Reconciling: nodes come and go without anybody's help. A missing secret, a name that is taken and
a set that no node can ever hold are Stalled: a person must act.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from flotilla_operator.api.model_replica_set import ModelReplicaSetSpec
from flotilla_operator.autoscaling.from_zero import ZeroDecision, ZeroReason
from flotilla_operator.cluster.writes import Manifest
from flotilla_operator.controllers.conditions import Condition, MendedBy, Truth, timestamp, with_summary
from flotilla_operator.controllers.failures import MENDED_BY_A_PERSON
from flotilla_operator.controllers.model_replica_set.backoff import Backoff
from flotilla_operator.controllers.model_replica_set.life import Phase, ReplicaGroup
from flotilla_operator.controllers.model_replica_set.moves import Move
from flotilla_operator.controllers.model_replica_set.placeholders import Asking
from flotilla_operator.controllers.model_replica_set.reasons import ConditionType, Reason
from flotilla_operator.controllers.model_replica_set.rollout import Fault, Rollout
from flotilla_operator.controllers.model_replica_set.seen import Missing
from flotilla_operator.controllers.model_replica_set.trouble import FOR_A_PERSON, Trouble
from flotilla_operator.controllers.model_replica_set.turnover import Turnover
from flotilla_operator.placement import Refusal

ALL_REPLICAS = "AllReplicas"
REASON_OF = {
    Fault.NOT_READY: Reason.PROGRESS_DEADLINE_EXCEEDED,
    Fault.MISSES_SLO: Reason.MISSES_SLO,
    Fault.FAILED_ANSWERS: Reason.FAILED_ANSWERS,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the conditions are judged from; `live` are the groups that count."""

    spec: ModelReplicaSetSpec
    ignored: Sequence[str]
    missing: tuple[Missing, ...]
    names_taken: tuple[str, ...]
    router: Manifest | None
    router_trouble: Trouble | None
    live: tuple[ReplicaGroup, ...]
    waiting: int
    refusal: Refusal | None
    turnover: Turnover
    backoff: Backoff | None
    rollout: Rollout
    asking: Asking | None = None
    move: Move | None = None
    scaling: ZeroDecision | None = None
    ignored_prefix: str | None = None

    @property
    def ready(self) -> int:
        """How many groups serve."""
        return sum(group.phase is Phase.READY for group in self.live)

    @property
    def wanted(self) -> int:
        """How many should."""
        return self.spec.replicas

    @property
    def trouble(self) -> tuple[ReplicaGroup, Trouble] | None:
        """A group that does not get on, and why; what a person must mend before what time mends."""
        troubled = [(group, group.trouble) for group in self.live if group.trouble is not None]
        return min(troubled, key=lambda found: found[1].rank, default=None)


def conditions(facts: Facts) -> list[Condition]:
    """All conditions, with the summary."""
    shown = [spec_valid(facts), placed(facts), router_ready(facts), available(facts), progressing(facts)]
    if facts.scaling is not None:
        shown.append(_scaling_active(facts.scaling))
    summary = with_summary([*shown, _all_replicas(facts)])
    return [condition for condition in summary if condition.type != ALL_REPLICAS]


def spec_valid(facts: Facts) -> Condition:
    """Everything the spec names is there."""
    if facts.missing:
        return _wrong(
            ConditionType.SPEC_VALID,
            facts.missing[0].reason,
            "; ".join(missing.message for missing in facts.missing),
            mended_by=MendedBy.PERSON,
        )
    if facts.ignored_prefix is not None:
        return _informs(
            Truth.FALSE, Reason.SHARED_PREFIX_IGNORED, facts.ignored_prefix, ConditionType.SPEC_VALID
        )
    if facts.ignored:
        names = ", ".join(facts.ignored)
        return _right(
            ConditionType.SPEC_VALID,
            Reason.FIELDS_IGNORED,
            f"this release of the operator does not know {names}; upgrade the operator, or remove them",
        )
    return _right(ConditionType.SPEC_VALID, Reason.VALID)


def placed(facts: Facts) -> Condition:
    """Every group has its place, or a sentence says why not."""
    if facts.backoff is not None:
        mended_by = MendedBy.PERSON if facts.backoff.reason in MENDED_BY_A_PERSON else MendedBy.TIME
        message = _backing_off(facts, facts.backoff)
        return _wrong(ConditionType.PLACED, Reason.BACKING_OFF, message, mended_by=mended_by)
    if facts.refusal is not None:
        refusal = facts.refusal
        able = refusal.fits_when_empty
        if facts.asking is not None and facts.asking.shape is not None:
            return _nodes_asked_for(facts, refusal, facts.asking)
        return _wrong(
            ConditionType.PLACED,
            Reason.INSUFFICIENT_CAPACITY if able else Reason.NO_NODE_CAN_FIT,
            _refused(facts, refusal),
            mended_by=MendedBy.TIME if able else MendedBy.PERSON,
        )
    if facts.waiting:
        message = f"{facts.waiting} replicas wait for what is missing" if facts.missing else "paused"
        return _wrong(
            ConditionType.PLACED, facts.missing[0].reason if facts.missing else Reason.PAUSED, message
        )
    unbound = [group for group in facts.live if group.phase is Phase.BINDING]
    said = [member.not_bound_because for group in unbound for member in group.members]
    if any(said) and not any(group.pinned for group in unbound):
        return _wrong(ConditionType.PLACED, Reason.UNSCHEDULABLE, next(filter(None, said)))
    if facts.spec.accelerator is None:
        return _right(ConditionType.PLACED, Reason.LEFT_TO_SCHEDULER)
    return _right(ConditionType.PLACED, Reason.ALL_PLACED)


def _nodes_asked_for(facts: Facts, refusal: Refusal, asking: Asking) -> Condition:
    """A node that is to come is no matter for a person, until it has not come."""
    in_vain = asking.pausing and not refusal.fits_when_empty
    return _wrong(
        ConditionType.PLACED,
        asking.reason,
        f"{_refused(facts, refusal)}; {asking.message}",
        mended_by=MendedBy.PERSON if in_vain else MendedBy.TIME,
    )


def router_ready(facts: Facts) -> Condition:
    """Somebody can call."""
    if facts.names_taken:
        names = ", ".join(facts.names_taken)
        return _wrong(
            ConditionType.ROUTER_READY,
            Reason.NAME_TAKEN,
            f"{names} exists and belongs to somebody else; delete it, or give this set another name",
            mended_by=MendedBy.PERSON,
        )
    status = (facts.router or {}).get("status") or {}
    ready, wanted = status.get("readyReplicas") or 0, facts.spec.router.replicas
    message, trouble = f"{ready} of {wanted} router pods are ready", facts.router_trouble
    if trouble is not None:
        message = f"{message}; {trouble.message}"
    if ready == 0:
        reason = Reason.ROUTER_STARTING if trouble is None else trouble.reason
        return _wrong(ConditionType.ROUTER_READY, reason, message, mended_by=_mended_by(reason))
    return _right(ConditionType.ROUTER_READY, Reason.ROUTER_AVAILABLE, message)


def available(facts: Facts) -> Condition:
    """At least one replica serves, or none is wanted."""
    if facts.ready:
        return _right(
            ConditionType.AVAILABLE,
            Reason.REPLICAS_AVAILABLE,
            f"{facts.ready} of {facts.wanted} replicas are ready",
        )
    if facts.wanted == 0:
        why = "spec.replicas is 0" if facts.scaling is None else "the next request wakes a replica"
        return _right(ConditionType.AVAILABLE, Reason.SCALED_TO_ZERO, why)
    return _not_ready(ConditionType.AVAILABLE, facts)


def progressing(facts: Facts) -> Condition:
    """What is under way; it informs and holds nothing back."""
    turnover = facts.turnover
    updated = f"{turnover.updated} of {facts.wanted} replicas are of the new revision"
    if facts.spec.paused:
        held = "spec.paused is true: nothing is changed"
        if turnover.outdated:
            return _informs(Truth.FALSE, Reason.UPDATE_PAUSED, f"{held}; {updated}")
        return _informs(Truth.FALSE, Reason.PAUSED, held)
    if facts.rollout.message:
        return replace(_informs(Truth.FALSE, *_failed_rollout(facts.rollout)), mended_by=MendedBy.PERSON)
    if facts.move is not None:
        way = f"from {', '.join(facts.move.from_nodes)} to {', '.join(facts.move.to_nodes)}"
        return _informs(Truth.TRUE, Reason.REBALANCING, f"{facts.move.group} moves {way}")
    if turnover.surge and facts.refusal is not None:
        what = "update" if turnover.outdated else "move away from nodes that leave"
        room = (
            f"the {what} waits for room for one more replica beside the {len(facts.live)} running: "
            f"{facts.refusal.message}; make room, or set spec.update.maxUnavailable to 1"
        )
        return _informs(Truth.FALSE, Reason.UPDATE_WAITS_FOR_ROOM, room)
    if turnover.outdated:
        return _informs(Truth.TRUE, Reason.UPDATING, f"{updated}, {turnover.outdated} are of an older one")
    if turnover.moving:
        moving = f"{turnover.moving} replicas move away from nodes that are cordoned or tainted"
        return _informs(Truth.TRUE, Reason.EMPTYING_NODES, moving)
    if facts.ready == facts.wanted == len(facts.live):
        return _nothing_to_replace(facts, updated)
    return _informs(Truth.TRUE, Reason.SCALING, f"{facts.ready} of {facts.wanted} replicas are ready")


def _nothing_to_replace(facts: Facts, updated: str) -> Condition:
    """All that is wanted serves; what is left is the end of old pods, and a trial."""
    rollout = facts.rollout
    if (until := rollout.trial_until(facts.spec.update)) is not None:
        return _informs(Truth.TRUE, Reason.ON_TRIAL, rollout.trial_message(until))
    if rollout.outdated:
        ending = f"{updated}; older ones whose pods still end: {rollout.outdated}"
        return _informs(Truth.TRUE, Reason.UPDATING, ending)
    return _informs(Truth.FALSE, Reason.SETTLED, "")


def _scaling_active(scaling: ZeroDecision) -> Condition:
    """Who decides the number; without autoscaling there is nothing to say."""
    known = scaling.reason is not ZeroReason.NO_FIGURES
    return Condition(
        type=ConditionType.SCALING_ACTIVE,
        status=Truth.of(known),
        reason=Reason.REPLICAS_IGNORED if known else Reason.NO_FIGURES,
        message=f"spec.autoscaling decides the number of replicas and spec.replicas is ignored: "
        f"{scaling.wanted} wanted, {scaling.reason}",
        counts=False,
    )


def _failed_rollout(rollout: Rollout) -> tuple[Reason, str]:
    why = f"revision {rollout.revision} has failed: {rollout.message}"
    if not rollout.failed:
        return REASON_OF[rollout.fault or Fault.NOT_READY], f"{why}; correct the spec"
    fix = "change the spec to try again, or set spec.update.rollback to false to keep it"
    return Reason.ROLLED_BACK, f"{why}; revision {rollout.good} goes on running; {fix}"


def _all_replicas(facts: Facts) -> Condition:
    if facts.rollout.failed:
        reason, message = _failed_rollout(facts.rollout)
        return _wrong(ALL_REPLICAS, reason, message, mended_by=MendedBy.PERSON)
    if facts.ready >= facts.wanted and not facts.turnover.outdated:
        return _right(ALL_REPLICAS, Reason.REPLICAS_AVAILABLE)
    if facts.ready >= facts.wanted:
        return _wrong(ALL_REPLICAS, Reason.UPDATING, f"{facts.turnover.outdated} replicas are outdated")
    return _not_ready(ALL_REPLICAS, facts)


def _not_ready(condition_type: str, facts: Facts) -> Condition:
    reason, message = _why_not_ready(facts)
    return _wrong(condition_type, reason, message, mended_by=_mended_by(reason))


def _mended_by(reason: Reason) -> MendedBy:
    return MendedBy.PERSON if reason in FOR_A_PERSON else MendedBy.TIME


def _why_not_ready(facts: Facts) -> tuple[Reason, str]:
    how_many = f"{facts.ready} of {facts.wanted} replicas are ready"
    if facts.trouble is None:
        return Reason.NO_REPLICA_READY if not facts.ready else Reason.SCALING, how_many
    group, trouble = facts.trouble
    return trouble.reason, f"{how_many}; {group.name}: {trouble.message}"


def _backing_off(facts: Facts, backoff: Backoff) -> str:
    waiting = f"{facts.waiting} replicas wait" if facts.waiting > 1 else "1 replica waits"
    until = timestamp(backoff.until)
    return f"{waiting} until {until} after {backoff.failures} failures in a row; {backoff.message}"


def _refused(facts: Facts, refusal: Refusal) -> str:
    group = refusal.group
    waiting = f"{facts.waiting} replicas wait" if facts.waiting > 1 else "1 replica waits"
    return f"{waiting} for {group.wanted} {group.accelerator} on one node: {refusal.message}"


def _right(condition_type: str, reason: Reason, message: str = "") -> Condition:
    return Condition(type=condition_type, status=Truth.TRUE, reason=reason, message=message)


def _wrong(
    condition_type: str, reason: Reason, message: str, *, mended_by: MendedBy = MendedBy.TIME
) -> Condition:
    return Condition(
        type=condition_type, status=Truth.FALSE, reason=reason, message=message, mended_by=mended_by
    )


def _informs(
    status: Truth, reason: Reason, message: str, condition_type: str = ConditionType.PROGRESSING
) -> Condition:
    return Condition(type=condition_type, status=status, reason=reason, message=message, counts=False)
