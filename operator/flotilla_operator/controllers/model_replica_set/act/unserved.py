"""Deletes the pods of a group that has never served, and of none that has begun to serve meanwhile.

The decision rests on what the cache does not show. So each pod is deleted only in the version that was seen,
and pods that are ready only once those are deleted that are not: if one of these has changed, the group may
be whole.
"""

from flotilla_operator.cluster.writes import Delete
from flotilla_operator.objects.resources import PODS, ObjectRef
from flotilla_operator.replicas.group import ReplicaGroup
from flotilla_operator.replicas.leaving.draining import DrainStep
from flotilla_operator.replicas.stages import Step


def unserved_deletes(group: ReplicaGroup, namespace: str) -> list[Delete]:
    """The deletion of the group's pods, those that are not ready first."""
    missing = [member for member in group.staying if not member.ready]
    evidence = frozenset(PODS.ref(namespace, member.name) for member in missing)
    return [
        Delete(
            ref=PODS.ref(namespace, member.name),
            uid=member.uid,
            resource_version=member.version,
            needs=evidence if member.ready else frozenset(),
            grace_period_seconds=group.stop_seconds,
        )
        for member in (*missing, *(member for member in group.staying if member.ready))
    ]


def deletes_before_starts(step: Step, namespace: str) -> dict[str, frozenset[ObjectRef]]:
    """The pods that must be deleted before each group that starts in the place of one that never served.

    If such a deletion is refused, the old group may serve after all, and a new one would be one too many.
    """
    ended = [group for group in step.ended if group.ending is not None and group.ending.never_ran]
    idle = [one.group for one in step.departures if one.drained.step is DrainStep.DELETE]
    unserved = [*ended, *(group for group in idle if not group.may_have_requests)]
    return {
        new.name: frozenset(PODS.ref(namespace, member.name) for member in old.staying)
        for new, old in zip(step.started, unserved, strict=False)
    }
