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

from flotilla_operator.objects.refused_writes import WriteReason
from flotilla_operator.replicas.asking import Asking
from flotilla_operator.replicas.backoff import LIMIT_MAY_END
from flotilla_operator.replicas.group import STOP_SECONDS, ReplicaGroup
from flotilla_operator.replicas.outlook import Outlook

TRIED_AGAIN_WITHIN = 2 * LIMIT_MAY_END  # with time to observe the answer


def pods_to_keep(outlook: Outlook, asking: Asking | None, now: datetime) -> int:
    """The budget's `minAvailable`: one pod less than the groups have, because evicting it ends its group."""
    me, demand = outlook.me, outlook.demand
    draining = [removal.group for removal in demand.turnover.removals]
    names = {group.name for group in draining}
    others = [group for group in demand.groups if group.name not in names]
    coming = [me.stages] * _coming(outlook, asking, now)
    wanted = [*_stages_of_those_with_room(others), *coming][: me.replicas]
    return max(0, sum(wanted) + sum(group.stages for group in draining if group.ready) - 1)


def _stages_of_those_with_room(groups: Sequence[ReplicaGroup]) -> list[int]:
    """Groups that serve come first: a replacement counts only once it has taken the place of another."""
    return [group.stages for group in sorted(groups, key=lambda group: not group.ready) if _has_room(group)]


def _has_room(group: ReplicaGroup) -> bool:
    """Whether its nodes are known, or the scheduler has not yet said that no node fits."""
    return group.pinned or not any(member.not_bound_because for member in group.members)


def _coming(outlook: Outlook, asking: Asking | None, now: datetime) -> int:
    """How many of the groups without pods will get them soon."""
    waiting, backoff = len(outlook.demand.waiting), outlook.demand.backoff
    if outlook.lacks:
        return 0
    if outlook.me.memory.refused:
        return _replacing_what_a_quota_holds(outlook, now)
    backs_off = backoff is not None and backoff.holds(now)
    asked_for = asking is not None and asking.shape is not None and not asking.pausing
    return waiting if backs_off or asked_for else waiting - len(outlook.refusals)


def _replacing_what_a_quota_holds(outlook: Outlook, now: datetime) -> int:
    """How many of the refused groups may get the quota of pods that are terminating.

    They must not have waited longer than such pods may take, and no other group may have been created since.
    """
    demand = outlook.demand
    if demand.backoff is None or demand.backoff.reason != WriteReason.QUOTA_EXCEEDED:
        return 0
    ends_within = timedelta(seconds=outlook.me.spec.drain.deadline_seconds + STOP_SECONDS)
    times = (waiting.since for waiting in demand.waiting)
    lately = [since for since in times if now - since < ends_within + TRIED_AGAIN_WITHIN]
    made = sum(group.lives and group.created_at >= min(lately, default=now) for group in demand.groups)
    return max(0, len(lately) - made)
