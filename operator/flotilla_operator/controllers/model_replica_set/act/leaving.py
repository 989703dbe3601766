"""The writes for groups that leave or return: what `turnover` wants and `draining` allows."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from flotilla_operator.cluster.writes import Delete, JsonPatch, Write
from flotilla_operator.controllers.model_replica_set.act.unserved import unserved_deletes
from flotilla_operator.controllers.model_replica_set.seen import Situation
from flotilla_operator.objects.resources import PODS, ObjectRef
from flotilla_operator.replicas.group import ReplicaGroup
from flotilla_operator.replicas.leaving.departures import Departure
from flotilla_operator.replicas.leaving.draining import DrainStep, epoch_of
from flotilla_operator.replicas.leaving.turnover import Turnover
from flotilla_runtime import contract

ANNOTATION_PATH = f"/metadata/annotations/{contract.ANNOTATION_DRAIN_EPOCH.replace('/', '~1')}"


def departure_writes(
    turnover: Turnover, departures: Sequence[Departure], situation: Situation, now: datetime
) -> list[Write]:
    """Call off the drains of groups that return, begin others, and delete the pods of groups proved idle."""
    writes: list[Write] = [
        _annotated(group, situation, [{"op": "remove", "path": ANNOTATION_PATH}])
        for group in turnover.returning
    ]
    for one in departures:
        if one.drained.step is DrainStep.BEGIN:
            epoch = str(epoch_of(now))
            begin = [{"op": "add", "path": ANNOTATION_PATH, "value": epoch}]
            writes.append(_annotated(one.group, situation, begin))
        elif one.drained.step is DrainStep.DELETE:
            writes += _deletes(one.group, situation)
    return writes


def departures_rest_on(
    turnover: Turnover, departures: Sequence[Departure], situation: Situation
) -> dict[str, frozenset[ObjectRef]]:
    """The pods whose writes the event about each group depends on."""
    namespace = situation.me.owner.namespace
    leaders = [
        *turnover.returning,
        *(one.group for one in departures if one.drained.step is DrainStep.BEGIN),
    ]
    rests_on = {group.name: frozenset({PODS.ref(namespace, group.leader.name)}) for group in leaders}
    for one in departures:
        if one.drained.step is DrainStep.DELETE:
            rests_on[one.group.name] = frozenset(write.ref for write in _deletes(one.group, situation))
    return rests_on


def _deletes(group: ReplicaGroup, situation: Situation) -> list[Delete]:
    namespace = situation.me.owner.namespace
    if not group.may_have_requests:
        return unserved_deletes(group, namespace)
    return [
        Delete(ref=PODS.ref(namespace, member.name), uid=member.uid, grace_period_seconds=group.stop_seconds)
        for member in group.staying
    ]


def _annotated(
    group: ReplicaGroup, situation: Situation, operations: Sequence[Mapping[str, str]]
) -> JsonPatch:
    """Patch the annotation of the leader's pod.

    The patch names the pod's UID instead of its version, because the kubelet writes the status all the time.
    Only the leader's pod is patched, because routers know a group by its leader; so the drain begins or ends
    in one write.
    """
    ref = PODS.ref(situation.me.owner.namespace, group.leader.name)
    return JsonPatch(ref=ref, uid=group.leader.uid, operations=operations)
