"""The conditions of a set. Each is a short chain of checks, the worst finding first.

`Ready` requires that every wanted replica serves, so its summary includes one more condition than the status
shows. Waiting for room counts as Reconciling, because nodes come and go without the user's help. A missing
secret, a name that is taken, and a set that no node can ever hold count as Stalled: a person must act.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from flotilla_operator.api.model_replica_set import ModelReplicaSetSpec
from flotilla_operator.autoscaling.from_zero import ZeroDecision, ZeroReason
from flotilla_operator.controllers.conditions import Condition, MendedBy, Truth, with_summary
from flotilla_operator.controllers.failures import MENDED_BY_A_PERSON
from flotilla_operator.controllers.ignored_fields import told_of
from flotilla_operator.controllers.model_replica_set.reasons import ConditionType, Reason
from flotilla_operator.controllers.model_replica_set.seen import Missing
from flotilla_operator.objects.times import timestamp
from flotilla_operator.placement import Refusal
from flotilla_operator.replicas.asking import Asking
from flotilla_operator.replicas.backoff import Backoff
from flotilla_operator.replicas.group import Phase, ReplicaGroup
from flotilla_operator.replicas.moves import Move
from flotilla_operator.replicas.rollout import Fault, Rollout
from flotilla_operator.replicas.trouble import FOR_A_PERSON, Trouble, TroubleReason
from flotilla_operator.replicas.turnover import Turnover

ALL_REPLICAS = "AllReplicas"
NO_NODE_EVEN_EMPTY = (
    "a replica would not fit even if nothing ran on the nodes: add larger or matching nodes, or change "
    "spec.accelerator, spec.parallelism or spec.placement"
)
REASON_OF = {
    Fault.NOT_READY: Reason.PROGRESS_DEADLINE_EXCEEDED,
    Fault.MISSES_SLO: Reason.MISSES_SLO,
    Fault.FAILED_ANSWERS: Reason.FAILED_ANSWERS,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the conditions are judged from.

    `wanted` is the number of replicas that is in force. `live` are the groups that count as replicas.
    """

    spec: ModelReplicaSetSpec
    wanted: int
    ignored: Sequence[str]
    missing: tuple[Missing, ...]
    names_taken: tuple[str, ...]
    routers_ready: int
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
    def trouble(self) -> tuple[ReplicaGroup, Trouble] | None:
        """A group with trouble, and the trouble; trouble that a person must end comes first."""
        troubled = [(group, group.trouble) for group in self.live if group.trouble is not None]
        return min(troubled, key=lambda found: found[1].rank, default=None)


def conditions(facts: Facts) -> list[Condition]:
    """All conditions, and their summary."""
    shown = [spec_valid(facts), placed(facts), router_ready(facts), available(facts), progressing(facts)]
    if facts.scaling is not None:
        shown.append(_scaling_active(facts.scaling))
    summary = with_summary([*shown, _all_replicas(facts)])
    return [condition for condition in summary if condition.type != ALL_REPLICAS]


def spec_valid(facts: Facts) -> Condition:
    """True when everything that the spec names exists and the model fits."""
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
        return _right(ConditionType.SPEC_VALID, Reason.FIELDS_IGNORED, told_of(facts.ignored))
    return _right(ConditionType.SPEC_VALID, Reason.VALID)


def placed(facts: Facts) -> Condition:
    """True when every group has its place; otherwise the message says why not."""
    if facts.backoff is not None:
        mended_by = MendedBy.PERSON if facts.backoff.reason in MENDED_BY_A_PERSON else MendedBy.TIME
        message = _backing_off(facts, facts.backoff)
        return _wrong(ConditionType.PLACED, Reason.BACKING_OFF, message, mended_by=mended_by)
    if facts.refusal is not None:
        refusal = facts.refusal
        able = refusal.fits_when_empty
        if facts.asking is not None and facts.asking.shape is not None:
            return _nodes_asked_for(facts, refusal, facts.asking)
        message = _refused(facts, refusal)
        return _wrong(
            ConditionType.PLACED,
            Reason.INSUFFICIENT_CAPACITY if able else Reason.NO_NODE_CAN_FIT,
            message if able else f"{message}; {NO_NODE_EVEN_EMPTY}",
            mended_by=MendedBy.TIME if able else MendedBy.PERSON,
        )
    if facts.waiting:
        if not facts.missing:
            message = "spec.paused is true: the operator creates no replica"
            return _wrong(ConditionType.PLACED, Reason.PAUSED, message)
        message = f"{_waiting(facts)}: the condition SpecValid says what to correct"
        return _wrong(ConditionType.PLACED, facts.missing[0].reason, message)
    unbound = [group for group in facts.live if group.phase is Phase.BINDING]
    said = [member.not_bound_because for group in unbound for member in group.members]
    if any(said) and not any(group.pinned for group in unbound):
        return _wrong(ConditionType.PLACED, TroubleReason.UNSCHEDULABLE, next(filter(None, said)))
    if facts.spec.accelerator is None:
        return _right(ConditionType.PLACED, Reason.LEFT_TO_SCHEDULER)
    return _right(ConditionType.PLACED, Reason.ALL_PLACED)


def _nodes_asked_for(facts: Facts, refusal: Refusal, asking: Asking) -> Condition:
    """While the node autoscaler may still bring a node, time suffices; after a time-out a person must act."""
    in_vain = asking.pausing and not refusal.fits_when_empty
    return _wrong(
        ConditionType.PLACED,
        Reason(asking.reason),
        f"{_refused(facts, refusal)}; {asking.message}",
        mended_by=MendedBy.PERSON if in_vain else MendedBy.TIME,
    )


def router_ready(facts: Facts) -> Condition:
    """True when a router can take requests."""
    if facts.names_taken:
        names = ", ".join(facts.names_taken)
        return _wrong(
            ConditionType.ROUTER_READY,
            Reason.NAME_TAKEN,
            f"these names are taken by objects that this ModelReplicaSet does not own: {names}; delete those "
            "objects, or give this ModelReplicaSet another name",
            mended_by=MendedBy.PERSON,
        )
    ready, wanted = facts.routers_ready, facts.spec.router.replicas
    message, trouble = f"{ready} of {wanted} router pods are ready", facts.router_trouble
    if trouble is not None:
        message = f"{message}; {trouble.message}"
    if ready == 0:
        reason: Reason | TroubleReason = Reason.ROUTER_STARTING if trouble is None else trouble.reason
        return _wrong(ConditionType.ROUTER_READY, reason, message, mended_by=_mended_by(reason))
    return _right(ConditionType.ROUTER_READY, Reason.ROUTER_AVAILABLE, message)


def available(facts: Facts) -> Condition:
    """True when at least one replica serves, or none is wanted."""
    if facts.ready:
        return _right(
            ConditionType.AVAILABLE,
            Reason.REPLICAS_AVAILABLE,
            f"{facts.ready} of {facts.wanted} replicas are ready",
        )
    if facts.wanted == 0:
        why = "spec.replicas is 0" if facts.scaling is None else "the next request starts a replica"
        return _right(ConditionType.AVAILABLE, Reason.SCALED_TO_ZERO, why)
    return _not_ready(ConditionType.AVAILABLE, facts)


def progressing(facts: Facts) -> Condition:
    """What is in progress. It informs and does not affect Ready."""
    turnover = facts.turnover
    updated = f"{turnover.updated} of {facts.wanted} replicas run the new revision"
    if facts.spec.paused:
        held = "spec.paused is true: the operator creates and updates nothing"
        if turnover.outdated:
            return _informs(Truth.FALSE, Reason.UPDATE_PAUSED, f"{held}; {updated}")
        return _informs(Truth.FALSE, Reason.PAUSED, held)
    if facts.rollout.message:
        return replace(_informs(Truth.FALSE, *_failed_rollout(facts.rollout)), mended_by=MendedBy.PERSON)
    if facts.move is not None:
        way = f"from {', '.join(facts.move.from_nodes)} to {', '.join(facts.move.to_nodes)}"
        return _informs(Truth.TRUE, Reason.REBALANCING, f"{facts.move.group} moves {way}")
    if turnover.surge and facts.refusal is not None:
        what = "update" if turnover.outdated else "move away from cordoned or tainted nodes"
        room = (
            f"the {what} waits, because one more replica does not fit beside the existing "
            f"{len(facts.live)}: {facts.refusal.message}; free or add accelerators, or set "
            "spec.update.maxUnavailable to 1"
        )
        return _informs(Truth.FALSE, Reason.UPDATE_WAITS_FOR_ROOM, room)
    if turnover.outdated:
        return _informs(Truth.TRUE, Reason.UPDATING, f"{updated}; still to replace: {turnover.outdated}")
    if turnover.moving:
        moving = f"{_replicas(turnover.moving)} must leave nodes that are cordoned or tainted"
        return _informs(Truth.TRUE, Reason.EMPTYING_NODES, moving)
    if facts.ready == facts.wanted == len(facts.live):
        return _nothing_to_replace(facts, updated)
    return _informs(Truth.TRUE, Reason.SCALING, f"{facts.ready} of {facts.wanted} replicas are ready")


def _nothing_to_replace(facts: Facts, updated: str) -> Condition:
    """Every wanted replica serves. What may be left is a trial, and old pods that are terminating."""
    rollout = facts.rollout
    if (until := rollout.trial_until(facts.spec.update)) is not None:
        return _informs(Truth.TRUE, Reason.ON_TRIAL, rollout.trial_message(until))
    if rollout.outdated:
        ending = f"{updated}; older replicas whose pods are still terminating: {rollout.outdated}"
        return _informs(Truth.TRUE, Reason.UPDATING, ending)
    return _informs(Truth.FALSE, Reason.SETTLED, "")


def _scaling_active(scaling: ZeroDecision) -> Condition:
    """Whether autoscaling knows enough to decide. Only sets with autoscaling have this condition."""
    known = scaling.reason is not ZeroReason.NO_FIGURES
    if known:
        decided = f"spec.autoscaling sets the number of replicas to {scaling.wanted} ({scaling.reason})"
    else:
        decided = (
            "not every router reports its requests, so spec.autoscaling keeps the number of replicas at "
            f"{scaling.wanted}"
        )
    return Condition(
        type=ConditionType.SCALING_ACTIVE,
        status=Truth.of(known),
        reason=Reason.REPLICAS_IGNORED if known else Reason.NO_FIGURES,
        message=f"{decided}; spec.replicas is ignored",
        counts=False,
    )


def _failed_rollout(rollout: Rollout) -> tuple[Reason, str]:
    why = f"revision {rollout.revision} has failed: {rollout.message}"
    if not rollout.failed:
        return REASON_OF[rollout.fault or Fault.NOT_READY], f"{why}; correct the spec"
    fix = "change the spec to try again, or set spec.update.rollback to false to run the failed revision"
    return Reason.ROLLED_BACK, f"{why}; the set runs revision {rollout.good} instead; {fix}"


def _all_replicas(facts: Facts) -> Condition:
    if facts.rollout.failed:
        reason, message = _failed_rollout(facts.rollout)
        return _wrong(ALL_REPLICAS, reason, message, mended_by=MendedBy.PERSON)
    if facts.ready >= facts.wanted and not facts.turnover.outdated:
        return _right(ALL_REPLICAS, Reason.REPLICAS_AVAILABLE)
    if facts.ready >= facts.wanted:
        message = f"outdated replicas still to replace: {facts.turnover.outdated}"
        return _wrong(ALL_REPLICAS, Reason.UPDATING, message)
    return _not_ready(ALL_REPLICAS, facts)


def _not_ready(condition_type: str, facts: Facts) -> Condition:
    reason, message = _why_not_ready(facts)
    return _wrong(condition_type, reason, message, mended_by=_mended_by(reason))


def _mended_by(reason: Reason | TroubleReason) -> MendedBy:
    return MendedBy.PERSON if reason in FOR_A_PERSON else MendedBy.TIME


def _why_not_ready(facts: Facts) -> tuple[Reason | TroubleReason, str]:
    how_many = f"{facts.ready} of {facts.wanted} replicas are ready"
    if facts.trouble is None:
        return Reason.NO_REPLICA_READY if not facts.ready else Reason.SCALING, how_many
    group, trouble = facts.trouble
    return trouble.reason, f"{how_many}; {group.name}: {trouble.message}"


def _backing_off(facts: Facts, backoff: Backoff) -> str:
    until, failures = timestamp(backoff.until), backoff.failures
    after = f"after {failures} failures in a row; last failure: {backoff.message}"
    return f"{_waiting(facts)} until {until} {after}"


def _refused(facts: Facts, refusal: Refusal) -> str:
    group = refusal.group
    asked = f"{group.wanted} {group.accelerator} on one node"
    if group.stages > 1:
        asked = f"{group.stages} stages with {group.wanted} {group.accelerator} each"
    return f"{_waiting(facts)} for {asked}: {refusal.message}"


def _waiting(facts: Facts) -> str:
    return f"{_replicas(facts.waiting)} {'waits' if facts.waiting == 1 else 'wait'}"


def _replicas(count: int) -> str:
    return "1 replica" if count == 1 else f"{count} replicas"


def _right(condition_type: str, reason: Reason, message: str = "") -> Condition:
    return Condition(type=condition_type, status=Truth.TRUE, reason=reason, message=message)


def _wrong(
    condition_type: str, reason: Reason | TroubleReason, message: str, *, mended_by: MendedBy = MendedBy.TIME
) -> Condition:
    return Condition(
        type=condition_type, status=Truth.FALSE, reason=reason, message=message, mended_by=mended_by
    )


def _informs(
    status: Truth, reason: Reason, message: str, condition_type: str = ConditionType.PROGRESSING
) -> Condition:
    return Condition(type=condition_type, status=status, reason=reason, message=message, counts=False)
