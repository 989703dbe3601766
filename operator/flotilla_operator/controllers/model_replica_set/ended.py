"""The writes and events of groups that have ended: their pods go, and it is told why.

Those that were never bound are released even while the set is held: half a group of them would hold
accelerators for nothing as long as nobody looks.
"""

from collections.abc import Sequence

from flotilla_operator.cluster.resources import PODS
from flotilla_operator.cluster.writes import Delete, Event
from flotilla_operator.controllers.model_replica_set.life import Member, ReplicaGroup
from flotilla_operator.controllers.model_replica_set.news import news_of
from flotilla_operator.controllers.model_replica_set.seen import Observed


def ended_groups(groups: Sequence[ReplicaGroup]) -> list[ReplicaGroup]:
    """The groups that cannot go on and have pods that nobody has deleted yet."""
    return [group for group in groups if group.ending is not None and group.staying]


def released_groups(groups: Sequence[ReplicaGroup]) -> list[ReplicaGroup]:
    """Those of them that are given up before all of their pods were bound."""
    return [group for group in ended_groups(groups) if group.ending and group.ending.never_ran]


def ending_deletes(groups: Sequence[ReplicaGroup], observed: Observed) -> list[Delete]:
    """The end of their pods."""
    return [_delete(group, member, observed) for group in groups for member in group.staying]


def ending_events(groups: Sequence[ReplicaGroup]) -> list[Event]:
    """Why they go."""
    return [
        news_of(group.name, ending.reason, f": {ending.message}", is_bad=True)
        for group in groups
        if (ending := group.ending) is not None
    ]


def _delete(group: ReplicaGroup, member: Member, observed: Observed) -> Delete:
    """Graceful, unless nobody is left to be graceful."""
    grace, ending = group.stop_seconds, group.ending
    if ending is not None and ending.drains and group.may_have_requests:
        grace += observed.me.spec.drain.deadline_seconds
    if ending is not None and ending.by_force and observed.around.node(member.bound_to) is None:
        grace = 0
    return Delete(
        ref=PODS.ref(observed.me.owner.namespace, member.pod_name),
        uid=member.uid,
        grace_period_seconds=grace,
    )
