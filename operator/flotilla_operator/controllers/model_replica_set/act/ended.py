"""The writes for groups that have ended: their pods are deleted.

Groups that were never bound are released even while the set is paused, because half a group would hold
accelerators for as long as nobody acts. Where another pod of such a group is ready, the cache is old, and so
each of its pods is deleted only in the version that was seen.
"""

from collections.abc import Sequence

from flotilla_operator.cluster.writes import Delete
from flotilla_operator.controllers.model_replica_set.act.unserved import unserved_deletes
from flotilla_operator.controllers.model_replica_set.seen import Situation
from flotilla_operator.objects.resources import PODS
from flotilla_operator.replicas.group import Member, ReplicaGroup


def ending_deletes(groups: Sequence[ReplicaGroup], situation: Situation) -> list[Delete]:
    """The deletion of their pods."""
    return [write for group in groups for write in _deletes(group, situation)]


def _deletes(group: ReplicaGroup, situation: Situation) -> list[Delete]:
    if group.ending is not None and group.ending.never_ran:
        return unserved_deletes(group, situation.me.owner.namespace)
    return [_delete(group, member, situation) for member in group.staying]


def _delete(group: ReplicaGroup, member: Member, situation: Situation) -> Delete:
    """A graceful deletion, unless the node is gone and nobody is left to stop the pod."""
    grace, ending = group.stop_seconds, group.ending
    if ending is not None and ending.drains and group.may_have_requests:
        grace += situation.me.spec.drain.deadline_seconds
    if ending is not None and ending.by_force and member.bound_to in situation.around.gone:
        grace = 0
    return Delete(
        ref=PODS.ref(situation.me.owner.namespace, member.name), uid=member.uid, grace_period_seconds=grace
    )
