"""Which sets an event wakes beside owners and references."""

from collections.abc import Iterable

from flotilla_operator.cluster.caches import Caches, controller_uid
from flotilla_operator.controllers.model_replica_set.observe.devices import gives_back
from flotilla_operator.controllers.model_replica_set.observe.memory import Memory
from flotilla_operator.controllers.model_replica_set.remembered import is_unsettled, newly_refused
from flotilla_operator.objects.resources import (
    CONTROLLER_REVISIONS,
    MODEL_REPLICA_SETS,
    NODES,
    PODS,
    PRIORITY_CLASSES,
    RESOURCE_CLAIMS,
    RESOURCE_SLICES,
    Key,
    Manifest,
    Resource,
    key_of,
)
from flotilla_operator.workloads.group_pods import pod_is_over
from flotilla_runtime import contract


def sets_to_wake(resource: Resource, manifest: Manifest, caches: Caches, memory: Memory) -> Iterable[Key]:
    """The sets to reconcile because this object changed.

    A node that is removed or to be emptied wakes the sets with pods on it. A node or device that changes,
    and room that is given back, wake the sets that wait, drain, move or have unbound groups. A set whose
    pods were refused gives back the room that was planned for it. A node's heartbeat wakes nobody.
    """
    name = manifest["metadata"]["name"]
    gone = resource == NODES and caches.get(NODES, "", name) is None
    if resource == NODES and not gone and memory.nodes.holds(manifest):
        return
    _note_change(resource, manifest, memory)
    if gone or (resource == NODES and _is_to_be_emptied(manifest)):
        for pod in caches.listed(PODS):
            if pod["spec"].get("nodeName") == name:
                yield from _set_of(pod)
    if _gives_room(resource, manifest, caches):
        for candidate in caches.listed(MODEL_REPLICA_SETS):
            if is_unsettled(candidate):
                yield key_of(MODEL_REPLICA_SETS, candidate)


def _note_change(resource: Resource, manifest: Manifest, memory: Memory) -> None:
    """What a set asks for depends on its object, its pods and records, on nodes and on priorities."""
    if resource in (NODES, PRIORITY_CLASSES):
        memory.asks.all_changed()
    elif resource == MODEL_REPLICA_SETS:
        memory.asks.has_changed(manifest["metadata"]["uid"])
    elif resource in (PODS, CONTROLLER_REVISIONS) and (uid := controller_uid(manifest)) is not None:
        memory.asks.has_changed(uid)


def _gives_room(resource: Resource, manifest: Manifest, caches: Caches) -> bool:
    if resource == MODEL_REPLICA_SETS:
        return newly_refused(manifest)
    if resource == PODS:
        return pod_is_over(manifest)
    if resource == RESOURCE_CLAIMS:
        return gives_back(manifest, caches)
    return resource in (NODES, RESOURCE_SLICES)


def _is_to_be_emptied(node: Manifest) -> bool:
    spec = node.get("spec") or {}
    return bool(spec.get("unschedulable")) or any(
        taint["effect"] == "NoExecute" for taint in spec.get("taints") or ()
    )


def _set_of(pod: Manifest) -> Iterable[Key]:
    labels = pod["metadata"].get("labels") or {}
    if labels.get(contract.LABEL_OWNER_KIND) == MODEL_REPLICA_SETS.kind and contract.LABEL_STAGE in labels:
        name = labels[contract.LABEL_OWNER_NAME]
        yield Key(MODEL_REPLICA_SETS.kind, pod["metadata"]["namespace"], name)
