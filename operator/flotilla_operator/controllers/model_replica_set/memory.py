"""What one controller keeps between looks; all of it can be lost, and a restart loses it.

Reading thousands of pods anew on every look would be most of the operator's work, so what a pod claims and
what a spec says is kept for as long as the object does not change. A pin that failed is remembered for a few
minutes, so the same mistake is not made twice. And a node promised to a pod that is being created is held
until the pod is seen: other sets are planned in that moment, and none of them may promise the same
accelerators again.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Generic, TypeVar

from pydantic import ValidationError

from flotilla_operator.api.model_replica_set import ModelReplicaSet, ModelReplicaSetSpec
from flotilla_operator.cluster.caches import Caches
from flotilla_operator.cluster.resources import MODEL_REPLICA_SETS, PODS
from flotilla_operator.cluster.writes import Create, Manifest, Plan
from flotilla_operator.controllers.model_replica_set.demand import LEFT_OUT_FOR, failed_pins
from flotilla_operator.controllers.model_replica_set.devices import KnownDevices, with_devices_of
from flotilla_operator.controllers.model_replica_set.life import group_name
from flotilla_operator.controllers.model_replica_set.scaling import as_decided_last
from flotilla_operator.controllers.model_replica_set.seen import FailedPin, SetSeen, Surroundings
from flotilla_operator.placement import Claim, Node, Topology
from flotilla_operator.placement.devices import Inventory, with_devices
from flotilla_operator.placement.manifests import claim_of, node_of, pinned_node
from flotilla_operator.workloads.labels import Owner
from flotilla_operator.workloads.placeholder import is_placeholder

Value = TypeVar("Value")
PROMISED_FOR = timedelta(minutes=2)  # as long as a reconcile may take; what is older was lost


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedSet:
    """A set's manifest with its spec."""

    manifest: Manifest
    spec: ModelReplicaSetSpec


def parsed(manifest: Manifest) -> ParsedSet:
    """The set; the loop turns what pydantic finds wrong into a condition."""
    return ParsedSet(manifest=manifest, spec=ModelReplicaSet.model_validate(manifest).spec)


def parsed_or_none(manifest: Manifest) -> ParsedSet | None:
    """A rival's spec; one that is broken asks for nothing."""
    try:
        seen = parsed(manifest)
        return replace(seen, spec=as_decided_last(manifest, seen.spec))
    except ValidationError:
        return None


def lasting_claim(pod: Manifest) -> Claim | None:
    """What a pod holds against replicas; a placeholder holds nothing, since replicas preempt it."""
    return None if is_placeholder(pod) else claim_of(pod)


class Remembered(Generic[Value]):
    """A function of manifests, evaluated once for each version of an object."""

    def __init__(self, function: Callable[[Manifest], Value]) -> None:
        self._function = function
        self._held: dict[str, tuple[str, Value]] = {}

    def holds(self, manifest: Manifest) -> bool:
        """Whether the object, whatever its version, has the value that it had last."""
        held = self._held.get(manifest["metadata"]["uid"])
        return held is not None and held[1] == self._function(manifest)

    def of(self, manifests: Iterable[Manifest]) -> Iterator[Value]:
        """The values of all these objects; what is not among them is forgotten."""
        fresh: dict[str, tuple[str, Value]] = {}
        for manifest in manifests:
            metadata = manifest["metadata"]
            version = metadata.get("resourceVersion", "")
            held = self._held.get(metadata["uid"])
            entry = held if held and held[0] == version and version else (version, self._function(manifest))
            fresh[metadata["uid"]] = entry
        self._held = fresh
        return (value for _, value in fresh.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """A node's room for a pod that is being created."""

    namespace: str
    group_name: str
    pod_name: str
    claim: Claim
    at: datetime


@dataclass(slots=True)
class Memory:
    """What one controller keeps between looks; all of it can be lost."""

    nodes: Remembered[Node] = field(default_factory=lambda: Remembered(node_of))
    topology: Topology = field(default_factory=lambda: Topology.of(()))
    claims: Remembered[Claim | None] = field(default_factory=lambda: Remembered(lasting_claim))
    devices: KnownDevices = field(default_factory=KnownDevices)
    sets: Remembered["ParsedSet | None"] = field(default_factory=lambda: Remembered(parsed_or_none))
    keys_asked: dict[str, str] = field(default_factory=dict)
    keys_made_anew: dict[str, str] = field(default_factory=dict)
    failed_pins: dict[str, tuple[FailedPin, ...]] = field(default_factory=dict)
    promises: dict[str, tuple[Promise, ...]] = field(default_factory=dict)
    seen: dict[str, SetSeen] = field(default_factory=dict)

    def seen_before(self, found: SetSeen) -> SetSeen:
        """A set: one value as long as nothing of it changes, so its groups and its revision are read once."""
        held = self.seen.get(found.owner.uid)
        if held is not None and held == found:
            return held
        self.seen[found.owner.uid] = found
        return found

    def topology_of(self, nodes: Iterable[Manifest], inventories: Sequence[Inventory] = ()) -> Topology:
        """The nodes with their devices: one value as long as none of them changes, so what plans find out
        about it stays.
        """
        seen = Topology.of(with_devices(self.nodes.of(nodes), inventories))
        if seen != self.topology:
            self.topology = seen
        return self.topology

    def forget_the_gone(self, caches: Caches) -> None:
        """Drop what is remembered of sets that are no more."""
        if not self.failed_pins and len(self.keys_made_anew) <= len(caches.store(MODEL_REPLICA_SETS)):
            return
        alive = {manifest["metadata"]["uid"] for manifest in caches.listed(MODEL_REPLICA_SETS)}
        self.keys_asked = {uid: asked for uid, asked in self.keys_asked.items() if uid in alive}
        self.keys_made_anew = {uid: made for uid, made in self.keys_made_anew.items() if uid in alive}
        self.failed_pins = {uid: pins for uid, pins in self.failed_pins.items() if uid in alive}
        self.seen = {uid: seen for uid, seen in self.seen.items() if uid in alive}

    def note_failed_pins(self, seen: SetSeen, around: Surroundings, now: datetime) -> tuple[FailedPin, ...]:
        """Remember the pins of this set that fail now, forget those of long ago."""
        fresh = failed_pins(seen, around, now)
        renewed = {pin.node for pin in fresh}
        kept = tuple(
            pin
            for pin in self.failed_pins.get(seen.owner.uid, ())
            if now - pin.at < LEFT_OUT_FOR and pin.node not in renewed
        )
        self.failed_pins[seen.owner.uid] = (*kept, *fresh)
        if not self.failed_pins[seen.owner.uid]:
            del self.failed_pins[seen.owner.uid]
        return (*kept, *fresh)

    def note_promises(self, owner: Owner, plan: Plan, now: datetime) -> None:
        """Hold the room of the pods that this plan creates, until they are seen."""
        promised = tuple(
            Promise(
                namespace=owner.namespace,
                group_name=group_name(write.manifest),
                pod_name=write.manifest["metadata"]["name"],
                claim=claim,
                at=now,
            )
            for write in plan.writes
            if isinstance(write, Create)
            and write.manifest["kind"] == PODS.kind
            and pinned_node(write.manifest["spec"]) is not None
            and (claim := with_devices_of(write.manifest)) is not None
        )
        if promised:
            self.promises[owner.uid] = promised

    def settle_promises(self, uid: str) -> None:
        """What was promised in this set's plan is made or refused: its pods are seen, or never will be."""
        self.promises.pop(uid, None)

    def open_promises(
        self, planned_uid: str, caches: Caches, now: datetime
    ) -> Mapping[str, tuple[Promise, ...]]:
        """What is promised to other sets and not seen yet; the planned set's own are settled by planning
        it.
        """
        self.promises.pop(planned_uid, None)
        held: dict[str, tuple[Promise, ...]] = {}
        for uid, promises in self.promises.items():
            still = tuple(
                promise
                for promise in promises
                if now - promise.at < PROMISED_FOR
                and caches.get(PODS, promise.namespace, promise.pod_name) is None
            )
            if still:
                held[uid] = still
        self.promises = held
        return held
