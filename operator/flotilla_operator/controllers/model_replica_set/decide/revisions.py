"""Judges the newest revision from what its groups show."""

from collections.abc import Sequence
from datetime import datetime

from flotilla_operator.controllers.model_replica_set.decide.asking import refusals_of
from flotilla_operator.controllers.model_replica_set.reasons import Reason
from flotilla_operator.controllers.model_replica_set.seen import Situation
from flotilla_operator.objects.refusals import RefusalReason
from flotilla_operator.placement import Placement, Refusal
from flotilla_operator.replicas.backoff import Backoff
from flotilla_operator.replicas.demand import Demand
from flotilla_operator.replicas.evidence import Evidence
from flotilla_operator.replicas.memory import Remembered
from flotilla_operator.replicas.rollout import Rollout, judged
from flotilla_operator.replicas.trouble import TroubleReason

WANT_OF_ROOM = frozenset(
    {
        Reason.INSUFFICIENT_CAPACITY,
        Reason.NODES_REQUESTED,
        RefusalReason.QUOTA_EXCEEDED,
    }
)
SCARCE = (
    "Insufficient ",
    "Too many pods",
)  # in the scheduler's message, for resources that become free again


def rollout_of(situation: Situation, demand: Demand, placement: Placement | None, now: datetime) -> Rollout:
    """What to remember of the revisions. While the set is paused, no time passes for them."""
    me = situation.me
    evidence = Evidence(
        revision=me.newest_revision,
        wanted=me.replicas,
        groups=demand.groups,
        update=me.spec.update,
        attainment=None if me.spec.slo is None else me.spec.slo.attainment,
        answers=situation.load.answers,
        answers_known=situation.load.of_all,
        can_go_back=me.facts.can_go_back,
        paused=me.spec.paused,
        waits_for_room=waits_for_room(me.memory, demand.backoff, refusals_of(me, placement)),
    )
    return judged(me.memory.rollout, evidence, now)


def waits_for_room(memory: Remembered, backoff: Backoff | None, refusals: Sequence[Refusal]) -> bool:
    """Whether replicas could not be created for lack of room of any kind, which is not the revision's fault.

    A replica that fits on no existing node also counts while a node autoscaler may still bring a larger one.
    It no longer counts once the autoscaler was asked without success.
    """
    reason = memory.placed_reason
    if reason == Reason.NODE_PROVISIONING_TIMED_OUT:
        return all(refusal.fits_when_empty for refusal in refusals)
    if reason == TroubleReason.UNSCHEDULABLE:
        return any(word in memory.placed_message for word in SCARCE)
    if reason == Reason.BACKING_OFF:
        return backoff is not None and backoff.reason == RefusalReason.QUOTA_EXCEEDED
    return reason in WANT_OF_ROOM
