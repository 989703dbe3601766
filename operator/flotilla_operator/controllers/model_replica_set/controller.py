"""A ModelReplicaSet's controller: what the loop calls."""

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime

from pydantic import ValidationError

from flotilla_operator.cluster.caches import Caches
from flotilla_operator.cluster.resources import (
    CONFIG_MAPS,
    CONTROLLER_REVISIONS,
    DEPLOYMENTS,
    DEVICE_CLASSES,
    MODEL_REPLICA_SETS,
    NETWORK_POLICIES,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    POD_DISRUPTION_BUDGETS,
    PODS,
    PRIORITY_CLASSES,
    RESOURCE_CLAIM_TEMPLATES,
    RESOURCE_CLAIMS,
    RESOURCE_SLICES,
    ROLE_BINDINGS,
    ROLES,
    SERVICE_ACCOUNTS,
    SERVICES,
    Key,
    Reference,
    Resource,
    key_of,
)
from flotilla_operator.cluster.writes import Manifest, Plan
from flotilla_operator.controllers.controller import World
from flotilla_operator.controllers.model_replica_set.backoff import newly_refused
from flotilla_operator.controllers.model_replica_set.devices import gives_back
from flotilla_operator.controllers.model_replica_set.life import pod_is_over
from flotilla_operator.controllers.model_replica_set.memory import Memory, parsed
from flotilla_operator.controllers.model_replica_set.observe import observe, owner_of
from flotilla_operator.controllers.model_replica_set.plan import plan
from flotilla_operator.controllers.model_replica_set.reasons import ConditionType, Reason
from flotilla_operator.controllers.model_replica_set.references import claim_references
from flotilla_operator.controllers.model_replica_set.seen import Observed
from flotilla_operator.telemetry.measurements import Target
from flotilla_operator.workloads.devices import device_ask
from flotilla_operator.workloads.engine_pod import engines
from flotilla_operator.workloads.router import router_service
from flotilla_runtime import contract

UNSETTLED = ("waiting", "gated", "binding", "draining")


class ModelReplicaSetController:
    """Keeps what is remembered between looks; everything else is in `observe` and `plan`."""

    resource: Resource = MODEL_REPLICA_SETS
    watches: Sequence[Resource] = (
        MODEL_REPLICA_SETS,
        PODS,
        NODES,
        SERVICES,
        CONFIG_MAPS,
        SERVICE_ACCOUNTS,
        ROLES,
        ROLE_BINDINGS,
        DEPLOYMENTS,
        CONTROLLER_REVISIONS,
        POD_DISRUPTION_BUDGETS,
        NETWORK_POLICIES,
        PERSISTENT_VOLUME_CLAIMS,
        PRIORITY_CLASSES,
        DEVICE_CLASSES,
        RESOURCE_SLICES,
        RESOURCE_CLAIMS,
        RESOURCE_CLAIM_TEMPLATES,
    )

    def __init__(self, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._clock = clock
        self._memory = Memory()

    def references(self, manifest: Manifest) -> Iterable[Reference]:
        """Claims, the device class and the priority class, and the services whose names may be taken."""
        try:
            spec = parsed(manifest).spec
        except ValidationError:
            return
        owner = owner_of(manifest)
        for _, claim in claim_references(spec):
            yield Reference(PERSISTENT_VOLUME_CLAIMS, owner.namespace, claim)
        if spec.placement.priority_class_name is not None:
            yield Reference(PRIORITY_CLASSES, "", spec.placement.priority_class_name)
        if (ask := device_ask(spec)) is not None:
            yield Reference(DEVICE_CLASSES, "", ask.class_name)
        for part in (engines(owner), router_service(owner)):
            yield Reference(SERVICES, owner.namespace, part.name)

    def wakes(self, resource: Resource, manifest: Manifest, caches: Caches) -> Iterable[Key]:
        """The sets on a node that is gone or is to be emptied, and, whenever a node or its devices change or
        room is given back, those that wait, drain or move, or whose groups are not bound yet. A set whose
        pods were refused gives back the room that was planned for it. A node's heartbeat wakes nobody.
        """
        name = manifest["metadata"]["name"]
        gone = resource == NODES and caches.get(NODES, "", name) is None
        if resource == NODES and not gone and self._memory.nodes.holds(manifest):
            return
        if gone or (resource == NODES and _is_to_be_emptied(manifest)):
            for pod in caches.listed(PODS):
                if pod["spec"].get("nodeName") == name:
                    yield from _set_of(pod)
        if _gives_room(resource, manifest, caches):
            for candidate in caches.listed(MODEL_REPLICA_SETS):
                if _is_unsettled(candidate):
                    yield key_of(MODEL_REPLICA_SETS, candidate)

    async def observe(self, key: Key, manifest: Manifest, world: World) -> Observed:
        """What the plan rests on."""
        return await observe(manifest, world, self._memory, self._clock())

    def plan(self, observed: Observed, now: datetime) -> Plan:
        """The set's next step."""
        done = plan(observed, now)
        self._memory.note_promises(observed.me.owner, done, now)
        return done

    def scrape_targets(self, observed: Observed) -> Sequence[Target]:
        """The agents of the set's routers."""
        return observed.targets

    def carried_out(self, manifest: Manifest) -> None:
        """Nothing is promised any more: what was refused would keep others from the room."""
        self._memory.settle_promises(manifest["metadata"]["uid"])


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


def _is_unsettled(manifest: Manifest) -> bool:
    status = manifest.get("status") or {}
    counts = status.get("groupCounts") or {}
    if any(counts.get(phase) for phase in UNSETTLED):
        return True
    reasons = {condition["type"]: condition["reason"] for condition in status.get("conditions") or ()}
    return reasons.get(ConditionType.PROGRESSING) in (Reason.EMPTYING_NODES, Reason.REBALANCING)


def _set_of(pod: Manifest) -> Iterable[Key]:
    labels = pod["metadata"].get("labels") or {}
    if labels.get(contract.LABEL_OWNER_KIND) == MODEL_REPLICA_SETS.kind and contract.LABEL_STAGE in labels:
        name = labels[contract.LABEL_OWNER_NAME]
        yield Key(MODEL_REPLICA_SETS.kind, pod["metadata"]["namespace"], name)
