"""Memory of the controller between reconciles. A restart loses all of it, which is harmless.

Reading thousands of pods again in every reconcile would be most of the operator's work. So what a pod claims
and what a spec says is kept as long as the object does not change. A failed pin is remembered for a few
minutes, so the same mistake is not made twice. A node promised to a pod that is being created stays reserved
until the pod is observed, because other sets are reconciled meanwhile and must not promise the
same accelerators.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar

from flotilla_operator.api.model_replica_set import ModelReplicaSetSpec
from flotilla_operator.cluster.caches import Caches
from flotilla_operator.cluster.writes import Create, Write
from flotilla_operator.controllers.model_replica_set.observe.devices import KnownDevices, with_devices_of
from flotilla_operator.controllers.model_replica_set.observe.known_asks import KnownAsks
from flotilla_operator.controllers.model_replica_set.observe.parsed_sets import ParsedSet, parsed_or_none
from flotilla_operator.controllers.model_replica_set.observe.watched_time import WatchedTime
from flotilla_operator.objects.owners import Owner
from flotilla_operator.objects.resources import MODEL_REPLICA_SETS, PODS, Manifest
from flotilla_operator.placement import Claim, Node, Topology
from flotilla_operator.placement.devices import Inventory, with_devices
from flotilla_operator.placement.manifests import claim_of, node_of, pinned_node
from flotilla_operator.replicas.facts import FailedPin, Form
from flotilla_operator.replicas.group import Member, ReplicaGroup, groups_of
from flotilla_operator.workloads.forms import Marks, form_of
from flotilla_operator.workloads.group_pods import group_name, member_of
from flotilla_operator.workloads.images import Images
from flotilla_operator.workloads.placeholder import is_placeholder

Value = TypeVar("Value")
PROMISED_FOR = timedelta(minutes=2)  # as long as a reconcile may take; an older promise was lost


def lasting_claim(pod: Manifest) -> Claim | None:
    """Return the claim of a pod. A placeholder claims nothing against replicas, because they preempt it."""
    return None if is_placeholder(pod) else claim_of(pod)


class PerVersion(Generic[Value]):
    """A function of a manifest, computed once for each version of an object."""

    def __init__(self, function: Callable[[Manifest], Value]) -> None:
        self._function = function
        self._held: dict[str, tuple[str, Value]] = {}

    def holds(self, manifest: Manifest) -> bool:
        """Whether the object's new version has the same value as its last one."""
        held = self._held.get(manifest["metadata"]["uid"])
        return held is not None and held[1] == self._function(manifest)

    def of(self, manifests: Iterable[Manifest]) -> Iterator[Value]:
        """The values of these objects. Objects that are not among them are forgotten."""
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
    """Room on a node that is promised to a pod that is being created."""

    namespace: str
    group_name: str
    pod_name: str
    claim: Claim
    at: datetime


@dataclass(slots=True)
class Memory:
    """Memory between reconciles; all of it can be lost."""

    nodes: PerVersion[Node] = field(default_factory=lambda: PerVersion(node_of))
    topology: Topology = field(default_factory=lambda: Topology.of(()))
    claims: PerVersion[Claim | None] = field(default_factory=lambda: PerVersion(lasting_claim))
    devices: KnownDevices = field(default_factory=KnownDevices)
    asks: KnownAsks = field(default_factory=KnownAsks)
    sets: PerVersion[ParsedSet | None] = field(default_factory=lambda: PerVersion(parsed_or_none))
    keys_asked: dict[str, str] = field(default_factory=dict)
    keys_made_anew: dict[str, str] = field(default_factory=dict)
    failed_pins: dict[str, tuple[FailedPin, ...]] = field(default_factory=dict)
    promises: dict[str, tuple[Promise, ...]] = field(default_factory=dict)
    members: dict[str, dict[str, tuple[str, Member]]] = field(default_factory=dict)
    forms: dict[tuple[str, bool], tuple[tuple[Any, ...], Form]] = field(default_factory=dict)
    watched: WatchedTime = field(default_factory=WatchedTime)

    def groups_of(self, uid: str, pods: Iterable[Manifest]) -> tuple[ReplicaGroup, ...]:
        """The groups that a set's pods form. A pod is read once for each of its versions."""
        held, fresh = self.members.get(uid, {}), {}
        for pod in pods:
            metadata = pod["metadata"]
            version = metadata.get("resourceVersion", "")
            known = held.get(metadata["uid"])
            same = known is not None and version and known[0] == version
            fresh[metadata["uid"]] = known if known is not None and same else (version, member_of(pod))
        self.members[uid] = fresh
        return groups_of(member for _, member in fresh.values())

    def form_of(
        self, owner: Owner, spec: ModelReplicaSetSpec, marks: Marks, images: Images, revision: str = ""
    ) -> Form:
        """The form of the newest spec, or of the good one under its `revision`, computed once a spec."""
        held = self.forms.get((owner.uid, bool(revision)))
        asked = (spec, marks, images, revision)
        if held is not None and held[0] == asked:
            return held[1]
        found = form_of(owner, spec, marks, images, revision)
        self.forms[owner.uid, bool(revision)] = (asked, found)
        return found

    def good_specs(self) -> list[ModelReplicaSetSpec]:
        """The last good specs of sets, which may be in force instead of the newest."""
        return [form.spec for (_, is_good), (_, form) in self.forms.items() if is_good]

    def topology_of(self, nodes: Iterable[Manifest], inventories: Sequence[Inventory] = ()) -> Topology:
        """The nodes with their devices: the same value while none changes, so that plans can reuse it."""
        seen = Topology.of(with_devices(self.nodes.of(nodes), inventories))
        if seen != self.topology:
            self.topology = seen
        return self.topology

    def forget_the_gone(self, caches: Caches) -> None:
        """Drop what is remembered of sets that no longer exist."""
        if not self.failed_pins and len(self.keys_made_anew) <= len(caches.store(MODEL_REPLICA_SETS)):
            return
        alive = {manifest["metadata"]["uid"] for manifest in caches.listed(MODEL_REPLICA_SETS)}
        self.keys_asked = {uid: asked for uid, asked in self.keys_asked.items() if uid in alive}
        self.keys_made_anew = {uid: made for uid, made in self.keys_made_anew.items() if uid in alive}
        self.failed_pins = {uid: pins for uid, pins in self.failed_pins.items() if uid in alive}
        self.members = {uid: members for uid, members in self.members.items() if uid in alive}
        self.forms = {key: form for key, form in self.forms.items() if key[0] in alive}
        self.watched.keep_only(alive)

    def note_failed_pins(self, uid: str, pins: tuple[FailedPin, ...]) -> None:
        """Remember these pins of a set, and no others."""
        if self.failed_pins.pop(uid, ()) != pins:
            self.asks.has_changed(uid)
        if pins:
            self.failed_pins[uid] = pins

    def note_promises(self, owner: Owner, writes: Sequence[Write], now: datetime) -> None:
        """Reserve the room of the pods that these writes create until they are observed."""
        promised = tuple(
            Promise(
                namespace=owner.namespace,
                group_name=group_name(write.manifest),
                pod_name=write.manifest["metadata"]["name"],
                claim=claim,
                at=now,
            )
            for write in writes
            if isinstance(write, Create)
            and write.manifest["kind"] == PODS.kind
            and pinned_node(write.manifest["spec"]) is not None
            and (claim := with_devices_of(write.manifest)) is not None
        )
        if promised:
            self.promises[owner.uid] = promised
            self.asks.has_changed(owner.uid)

    def settle_promises(self, uid: str) -> None:
        """Forget the promises of this set: its pods are observed by now, or were refused."""
        if self.promises.pop(uid, None):
            self.asks.has_changed(uid)

    def open_promises(
        self, planned_uid: str, caches: Caches, now: datetime
    ) -> Mapping[str, tuple[Promise, ...]]:
        """The promises to other sets whose pods are not observed yet. Planning a set settles its own."""
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
            else:
                self.asks.has_changed(uid)
        self.promises = held
        return held
