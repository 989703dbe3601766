"""Deletes the pods of a group that has never served, and of none that has begun to serve meanwhile.

The decision rests on what the cache does not show. So each pod is deleted only in the version that was seen,
and pods that are ready only once those are deleted that are not: if one of these has changed, the group may
be whole.
"""

from flotilla_operator.cluster.writes import Delete
from flotilla_operator.objects.resources import PODS
from flotilla_operator.replicas.group import ReplicaGroup


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
