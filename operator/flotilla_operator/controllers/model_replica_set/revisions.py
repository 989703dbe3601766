"""What a plan makes of revisions: the judgement of the newest one, the records that must be kept, and what
replicas of others still serve.
"""

from collections.abc import Sequence
from datetime import datetime

from flotilla_operator.cluster.caches import Caches
from flotilla_operator.cluster.ownership import RefusalReason
from flotilla_operator.cluster.writes import Manifest, Write
from flotilla_operator.controllers.model_replica_set.backoff import Backoff, placed_message, placed_reason
from flotilla_operator.controllers.model_replica_set.demand import Demand
from flotilla_operator.controllers.model_replica_set.evidence import Evidence
from flotilla_operator.controllers.model_replica_set.placeholders import refusals_of
from flotilla_operator.controllers.model_replica_set.reasons import Reason
from flotilla_operator.controllers.model_replica_set.records import Making, record_writes, recorded_spec
from flotilla_operator.controllers.model_replica_set.rollout import Rollout, judged
from flotilla_operator.controllers.model_replica_set.seen import Observed, SetSeen
from flotilla_operator.placement import Placement, Refusal
from flotilla_operator.workloads.served import Served, served_by
from flotilla_runtime import contract

WANT_OF_ROOM = frozenset(
    {
        Reason.INSUFFICIENT_CAPACITY,
        Reason.NODES_REQUESTED,
        RefusalReason.QUOTA_EXCEEDED,
    }
)
SCARCE = ("Insufficient ", "Too many pods")  # the scheduler's words for what will be free again


def rollout_of(observed: Observed, demand: Demand, placement: Placement | None, now: datetime) -> Rollout:
    """What is to be remembered of the revisions; while the set is held, no time passes for them."""
    me = observed.me
    before = Rollout.of_status(me.manifest.get("status") or {})
    evidence = Evidence(
        revision=me.spec_revision,
        wanted=me.spec.replicas,
        groups=demand.groups,
        update=me.spec.update,
        attainment=None if me.spec.slo is None else me.spec.slo.attainment,
        answers=observed.load.answers,
        answers_known=observed.load.of_all,
        can_go_back=me.can_go_back,
        paused=me.spec.paused,
        waits_for_room=waits_for_room(me.manifest, demand.backoff, refusals_of(me, placement)),
    )
    return judged(before, evidence, now)


def waits_for_room(manifest: Manifest, backoff: Backoff | None, refusals: Sequence[Refusal]) -> bool:
    """Whether replicas could not be made for want of room, of whatever kind: nothing that the revision can
    be blamed for. What fits no node that there is waits while a node autoscaler may bring a bigger one, and
    no longer when it was asked in vain.
    """
    reason = placed_reason(manifest)
    if reason == Reason.NODE_PROVISIONING_TIMED_OUT:
        return all(refusal.fits_when_empty for refusal in refusals)
    if reason == Reason.UNSCHEDULABLE:
        return any(word in placed_message(manifest) for word in SCARCE)
    if reason == Reason.BACKING_OFF:
        return backoff is not None and backoff.reason == RefusalReason.QUOTA_EXCEEDED
    return reason in WANT_OF_ROOM


def record_revisions(observed: Observed, demand: Demand, rollout: Rollout) -> list[Write]:
    """Put the running revision on record, and drop what neither a group nor a way back needs."""
    me = observed.me
    needed = {rollout.good, rollout.failed, rollout.revision, *(group.revision for group in demand.groups)}
    return record_writes(
        me.owner,
        Making(
            revision=demand.revision,
            number=me.manifest["metadata"].get("generation", 1),
            spec=me.spec,
            refresh=me.refresh,
            key_made_anew=me.key_made_anew,
        ),
        held=observed.records,
        needed=frozenset(needed),
    )


def served_beside(me: SetSeen, caches: Caches) -> tuple[Served, ...]:
    """What the replicas of other revisions than the running one serve, as far as these are on record."""
    held = {pod["metadata"]["labels"].get(contract.LABEL_REVISION, "") for pod in me.pods}
    specs = (
        recorded_spec(me.spec, me.manifest, revision, caches) for revision in sorted(held - {me.revision})
    )
    return tuple(dict.fromkeys(served_by(spec) for spec in specs if spec is not None))
