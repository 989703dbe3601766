"""How many engine pods evictions must leave healthy: all but one of the pods of the groups that count.

What counts has its room, or is about to get pods: a group that waits for room may wait for weeks, and with it
counted every eviction would be refused for as long. A group that leaves counts until its pods are gone, and a
new one from the plan that makes it, so the number stays while one takes the other's place; no second group
can be evicted until the first one has been replaced or is gone for want of room. While nodes are asked for,
or failed groups back off, what waits is coming; what the API server refuses is not, but a quota that is
used up may still hold the very pods that are being replaced. Groups that drain are healthy and come on top,
so they never make up for those that serve.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

from flotilla_operator.cluster.ownership import RefusalReason
from flotilla_operator.controllers.model_replica_set.backoff import LIMIT_FORBIDDEN, is_refused
from flotilla_operator.controllers.model_replica_set.demand import Demand
from flotilla_operator.controllers.model_replica_set.life import ReplicaGroup
from flotilla_operator.controllers.model_replica_set.placeholders import Asking, refusals_of
from flotilla_operator.controllers.model_replica_set.seen import Observed
from flotilla_operator.placement import Placement
from flotilla_operator.workloads.engine_pod import STOP_SECONDS, stages_of

TRIED_AGAIN_WITHIN = 2 * LIMIT_FORBIDDEN  # and the answer has been seen


def pods_to_keep(
    observed: Observed, demand: Demand, placement: Placement | None, asking: Asking | None, now: datetime
) -> int:
    """The budget's `minAvailable`; one pod fewer than the groups have, for its group goes with it."""
    draining = [removal.group for removal in demand.turnover.removals]
    names = {group.name for group in draining}
    others = [group for group in demand.groups if group.name not in names]
    coming = [stages_of(observed.me.spec)] * _coming(observed, demand, placement, asking, now)
    wanted = [*_stages_of_those_with_room(others), *coming][: observed.me.spec.replicas]
    return max(0, sum(wanted) + sum(group.stages for group in draining if group.ready) - 1)


def _stages_of_those_with_room(groups: Sequence[ReplicaGroup]) -> list[int]:
    """Those that serve first: a group that is to replace one of them counts when it has done so."""
    return [group.stages for group in sorted(groups, key=lambda group: not group.ready) if _has_room(group)]


def _has_room(group: ReplicaGroup) -> bool:
    """Whether its nodes are known, or the scheduler has not said yet that there are none."""
    return group.pinned or not any(member.not_bound_because for member in group.members)


def _coming(
    observed: Observed, demand: Demand, placement: Placement | None, asking: Asking | None, now: datetime
) -> int:
    """How many of the groups that have no pods will have them before long."""
    me, waiting = observed.me, len(demand.waiting)
    if observed.missing:
        return 0
    if is_refused(me.manifest):
        return _replacing_what_a_quota_holds(observed, demand, now)
    backs_off = demand.backoff is not None and demand.backoff.holds(now)
    asked_for = asking is not None and asking.shape is not None and not asking.pausing
    return waiting if backs_off or asked_for else waiting - len(refusals_of(me, placement))


def _replacing_what_a_quota_holds(observed: Observed, demand: Demand, now: datetime) -> int:
    """How many of the refused groups may get the room of pods that end: they wait no longer than those may
    take for it, and no other group has been made since.
    """
    if demand.backoff is None or demand.backoff.reason != RefusalReason.QUOTA_EXCEEDED:
        return 0
    ends_within = timedelta(seconds=observed.me.spec.drain.deadline_seconds + STOP_SECONDS)
    times = (waiting.since for waiting in demand.waiting)
    lately = [since for since in times if now - since < ends_within + TRIED_AGAIN_WITHIN]
    made = sum(group.lives and group.created_at >= min(lately, default=now) for group in demand.groups)
    return max(0, len(lately) - made)
