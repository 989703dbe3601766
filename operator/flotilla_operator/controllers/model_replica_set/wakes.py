"""Sets that an event wakes beside owners and references."""

from collections.abc import Collection, Iterable, Mapping

from flotilla_operator.cluster.caches import Caches, controller_uid
from flotilla_operator.controllers.model_replica_set.decide.decide import Decision
from flotilla_operator.controllers.model_replica_set.observe.devices import gives_back
from flotilla_operator.controllers.model_replica_set.observe.memory import Memory
from flotilla_operator.controllers.model_replica_set.remembered.remembered import (
    is_unsettled,
    newly_refused,
    only_waits,
)
from flotilla_operator.controllers.model_replica_set.seen import Observed
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
from flotilla_operator.replicas.rounds import Asked, foreseen
from flotilla_operator.workloads.group_pods import pod_is_over
from flotilla_runtime import contract

ROUND_MAKERS = 3  # one is enough, unless its own reconcile fails
FIGURES_SECONDS = 10.0


def sets_to_wake(resource: Resource, manifest: Manifest, caches: Caches, memory: Memory) -> Iterable[Key]:
    """The sets to reconcile because this object changed.

    A node that is removed or to be emptied wakes the sets with pods on it. A node or device that changes,
    and room that is given back, wake the sets that drain, move or have unbound groups, and a few of those
    that only wait: the round that they make wakes the others. A set that is gone, or whose pods were refused,
    gives back the room that was planned for it. A node's heartbeat wakes nobody.
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
        first = memory.asks.first_in_line(ROUND_MAKERS)
        for candidate in caches.listed(MODEL_REPLICA_SETS):
            if is_unsettled(candidate) and not _is_woken_by_a_round(candidate, first, memory):
                yield key_of(MODEL_REPLICA_SETS, candidate)


def woken_by_round(observed: Observed, decision: Decision | None, memory: Memory) -> Mapping[Key, float]:
    """The sets for which a placement round says something else, and how soon they are reconciled.

    Those that got room are at once. The others can only tell why they wait, as often as figures are written.
    A set that no longer asks for what it waited for makes no round; a few of those that wait do.
    """
    made = None if decision is None else decision.step.room.made
    if decision is None or made is None:
        if not _withdraws(observed, Asked() if decision is None else decision.step.room.asked):
            return {}
        first = memory.asks.first_in_line(ROUND_MAKERS)
        return {_key_of(memory.asks.kept[uid].name): 0.0 for uid in first if uid != observed.facts.owner.uid}
    concerned = made.concerned(observed.last_round, but=decision.situation.me.full_name)
    return {_key_of(name): 0.0 if got_room else FIGURES_SECONDS for name, got_room in concerned.items()}


def _withdraws(observed: Observed, asked: Asked) -> bool:
    """Whether the set asks for less than before, and not because its groups got room."""
    own, last = observed.asks.own, observed.last_round
    if own is None or len(asked.groups) >= len(own.groups):
        return False
    return not foreseen(own, asked, last, f"{observed.facts.owner.namespace}/{observed.facts.owner.name}")


def _is_woken_by_a_round(manifest: Manifest, first: Collection[str], memory: Memory) -> bool:
    """Whether it is known what the set asks for, it does nothing but wait, and others make the next round."""
    uid = manifest["metadata"]["uid"]
    known = uid in memory.asks.kept and uid not in memory.failed_pins
    return known and uid not in first and only_waits(manifest)


def _key_of(full_name: str) -> Key:
    namespace, name = full_name.split("/", 1)
    return Key(MODEL_REPLICA_SETS.kind, namespace, name)


def _note_change(resource: Resource, manifest: Manifest, memory: Memory) -> None:
    """Note a change that alters the asks of sets: of a set, its pods or records, a node or a priority."""
    if resource in (NODES, PRIORITY_CLASSES):
        memory.asks.all_changed()
    elif resource == MODEL_REPLICA_SETS:
        memory.asks.has_changed(manifest["metadata"]["uid"])
    elif resource in (PODS, CONTROLLER_REVISIONS) and (uid := controller_uid(manifest)) is not None:
        memory.asks.has_changed(uid)


def _gives_room(resource: Resource, manifest: Manifest, caches: Caches) -> bool:
    if resource == MODEL_REPLICA_SETS:
        return newly_refused(manifest) or _is_gone(resource, manifest, caches)
    if resource == PODS:
        return pod_is_over(manifest) or _is_gone(resource, manifest, caches)
    if resource == RESOURCE_CLAIMS:
        return gives_back(manifest, caches)
    return resource in (NODES, RESOURCE_SLICES)


def _is_gone(resource: Resource, manifest: Manifest, caches: Caches) -> bool:
    """Whether the object was removed. A new list may be the first to show that, without a last change."""
    metadata = manifest["metadata"]
    live = caches.get(resource, metadata["namespace"], metadata["name"])
    return live is None or bool(live["metadata"]["uid"] != metadata["uid"])


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
