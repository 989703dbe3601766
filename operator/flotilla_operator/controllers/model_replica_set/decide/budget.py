"""How many engine pods evictions must leave healthy: all but one of the pods of the groups that count.

A group counts if it has room or is about to get its pods. A group that waits for room does not, since it may
wait for weeks, and every eviction would be refused meanwhile. A group that leaves counts until its pods are
gone, and its replacement from the reconcile that creates it, so the number stays the same while one replaces
the other. No second group can be evicted until the first one has been replaced, or is gone without room for
another. Groups that wait for requested nodes, or in a backoff, are expected soon and count. Refused groups do
not, except while a full quota may still hold the pods that are being replaced. Draining groups are healthy
and are added on top, so they never make up for groups that serve.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

from flotilla_operator.controllers.model_replica_set.decide.asking import Asking, refusals_of
from flotilla_operator.controllers.model_replica_set.seen import Situation
from flotilla_operator.objects.refusals import RefusalReason
from flotilla_operator.placement import Placement
from flotilla_operator.replicas.backoff import LIMIT_FORBIDDEN
from flotilla_operator.replicas.demand import Demand
from flotilla_operator.replicas.group import STOP_SECONDS, ReplicaGroup
from flotilla_operator.workloads.engine_pod import stages_of

TRIED_AGAIN_WITHIN = 2 * LIMIT_FORBIDDEN  # with time to observe the answer


def pods_to_keep(
    situation: Situation, demand: Demand, placement: Placement | None, asking: Asking | None, now: datetime
) -> int:
    """The budget's `minAvailable`: one pod less than the groups have, because evicting it ends its group."""
    draining = [removal.group for removal in demand.turnover.removals]
    names = {group.name for group in draining}
    others = [group for group in demand.groups if group.name not in names]
    coming = [stages_of(situation.me.spec)] * _coming(situation, demand, placement, asking, now)
    wanted = [*_stages_of_those_with_room(others), *coming][: situation.me.replicas]
    return max(0, sum(wanted) + sum(group.stages for group in draining if group.ready) - 1)


def _stages_of_those_with_room(groups: Sequence[ReplicaGroup]) -> list[int]:
    """Groups that serve come first: a replacement counts only once it has taken the place of another."""
    return [group.stages for group in sorted(groups, key=lambda group: not group.ready) if _has_room(group)]


def _has_room(group: ReplicaGroup) -> bool:
    """Whether its nodes are known, or the scheduler has not yet said that no node fits."""
    return group.pinned or not any(member.not_bound_because for member in group.members)


def _coming(
    situation: Situation, demand: Demand, placement: Placement | None, asking: Asking | None, now: datetime
) -> int:
    """How many of the groups without pods will get them soon."""
    me, waiting = situation.me, len(demand.waiting)
    if situation.missing:
        return 0
    if me.memory.refused:
        return _replacing_what_a_quota_holds(situation, demand, now)
    backs_off = demand.backoff is not None and demand.backoff.holds(now)
    asked_for = asking is not None and asking.shape is not None and not asking.pausing
    return waiting if backs_off or asked_for else waiting - len(refusals_of(me, placement))


def _replacing_what_a_quota_holds(situation: Situation, demand: Demand, now: datetime) -> int:
    """How many of the refused groups may get the quota of pods that are terminating.

    They must not have waited longer than such pods may take, and no other group may have been created since.
    """
    if demand.backoff is None or demand.backoff.reason != RefusalReason.QUOTA_EXCEEDED:
        return 0
    ends_within = timedelta(seconds=situation.me.spec.drain.deadline_seconds + STOP_SECONDS)
    times = (waiting.since for waiting in demand.waiting)
    lately = [since for since in times if now - since < ends_within + TRIED_AGAIN_WITHIN]
    made = sum(group.lives and group.created_at >= min(lately, default=now) for group in demand.groups)
    return max(0, len(lately) - made)
