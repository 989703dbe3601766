"""What was observed of one set, and of the cluster it lives in: the values that `plan` judges."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property

from flotilla_operator.api.annotations import refresh_of
from flotilla_operator.api.model_replica_set import ModelReplicaSetSpec
from flotilla_operator.autoscaling.from_zero import ZeroDecision
from flotilla_operator.capacity import ModelShape
from flotilla_operator.cluster.writes import Manifest
from flotilla_operator.controllers.model_replica_set.draining import RouterSeen
from flotilla_operator.controllers.model_replica_set.engine_key import EngineKey
from flotilla_operator.controllers.model_replica_set.evidence import Answers
from flotilla_operator.controllers.model_replica_set.life import Pod, ReplicaGroup, group_of, pods_by_group
from flotilla_operator.controllers.model_replica_set.reasons import Reason
from flotilla_operator.controllers.model_replica_set.records import Record, RolledBack, marked_revision
from flotilla_operator.controllers.model_replica_set.trouble import Trouble
from flotilla_operator.placement import Domain, Node, Policy, Score, Snapshot
from flotilla_operator.placement.devices import DeviceClass
from flotilla_operator.placement.loads import Loads
from flotilla_operator.placement.score import Scorer
from flotilla_operator.telemetry.measurements import Target
from flotilla_operator.workloads.engine_pod import stages_of
from flotilla_operator.workloads.images import Images
from flotilla_operator.workloads.labels import Owner
from flotilla_operator.workloads.served import Served


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedPin:
    """A node on which a group of a set was pinned in vain, and what it had free then."""

    node: str
    free: int
    at: datetime


@dataclass(frozen=True, kw_only=True)
class SetSeen:
    """One set and its pods; what placement must know of the other sets, too.

    `key_made_anew` is the time of the engines' key, where it is not their first one; `can_go_back` says
    whether the last good revision is on record and another one than the newest.
    """

    manifest: Manifest
    owner: Owner
    spec: ModelReplicaSetSpec
    pods: Sequence[Pod]
    priority: int = 0
    failed_pins: tuple[FailedPin, ...] = ()
    key_made_anew: str = ""
    rolled_back: RolledBack | None = None
    can_go_back: bool = True

    @cached_property
    def groups(self) -> tuple[ReplicaGroup, ...]:
        """Its groups as the pods show them, not yet judged."""
        return tuple(group_of(pods) for pods in pods_by_group(self.pods).values())

    @property
    def several_stages(self) -> bool:
        """Whether a group of several pods is wanted or still there."""
        return stages_of(self.spec) > 1 or any(group.stages > 1 for group in self.groups)

    @cached_property
    def spec_revision(self) -> str:
        """The revision that the user's spec asks for."""
        if self.rolled_back is not None:
            return self.rolled_back.failed
        return marked_revision(self.spec, self.refresh, self.key_made_anew)

    @property
    def refresh(self) -> str:
        """The refresh that its pods are made with."""
        return refresh_of(self.manifest) if self.rolled_back is None else self.rolled_back.refresh

    @property
    def revision(self) -> str:
        """The revision to run."""
        return self.spec_revision if self.rolled_back is None else self.rolled_back.good


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """Something that the spec names and the namespace lacks."""

    field: str
    reason: Reason
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizing:
    """What is known of the memory of one replica; None where it is not known. `ignored_prefix` says why the
    prefix that callers share is not counted with, where it is not.
    """

    shape: ModelShape | None = None
    kv_bytes_per_token: int | None = None
    accelerator_gib: float | None = None
    sequence_tokens: int | None = None
    sequences: float | None = None
    sequences_sharing_prefix: float | None = None
    ignored_prefix: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterLoad:
    """What the routers report together; None where a figure is not known."""

    waiting: int | None = None
    running: int | None = None
    by_group: Mapping[str, int] = field(default_factory=dict)
    sessions: Mapping[str, int] = field(default_factory=dict)
    idle_seconds: float | None = None
    answers: Mapping[str, Answers] = field(default_factory=dict)
    arrivals_per_second: float | None = None
    kept_per_second: float | None = None
    kv_usage: float | None = None

    @property
    def of_all(self) -> bool:
        """Whether every router has answered, which idleness is only known of then."""
        return self.idle_seconds is not None


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What is the same for every set. `promised` counts, by a set's UID, its groups that have got room in
    this moment and whose pods are not seen yet.
    """

    snapshot: Snapshot
    policy: Policy
    images: Images
    placeholder_priority_class: str = "flotilla-placeholder"
    bind_timeout: timedelta = timedelta(seconds=30)
    promised: Mapping[str, int] = field(default_factory=dict)

    @cached_property
    def _scorer(self) -> Scorer:
        return Scorer(self.snapshot.topology, Loads(self.snapshot), self.policy)

    def score(self, groups: Sequence[Sequence[str]], accelerator: str, spread_across: str | None) -> Score:
        """How good it is where these groups lie, each given by the nodes of its stages."""
        known = [positions for nodes in groups if (positions := self._positions(nodes))]
        return self._scorer.of(known, accelerator, spread_across)

    def domain(self, nodes: Sequence[str]) -> Domain | None:
        """The narrowest domain that holds all of these nodes."""
        positions = self._positions(nodes)
        return self._scorer.domain(positions) if positions else None

    def node(self, name: str | None) -> Node | None:
        """The node of this name, while it exists."""
        position = self.snapshot.topology.positions.get(name or "")
        return None if position is None else self.snapshot.topology.nodes[position]

    def free(self, node: str, resource: str) -> int | None:
        """What a node has free of a resource, all claims taken off; None when the node is gone."""
        position = self.snapshot.topology.positions.get(node)
        return None if position is None else self._scorer.loads.free(position, resource)

    def held(self, node: str, resource: str) -> int:
        """What pods and claims hold of a node's resource; nothing of a node that is gone."""
        there, free = self.node(node), self.free(node, resource)
        return 0 if there is None or free is None else there.allocatable.get(resource, 0) - free

    def overdrawn(self, node: str) -> frozenset[str]:
        """The resources of which pods claim more than a node has; none of a node that is gone."""
        position = self.snapshot.topology.positions.get(node)
        return frozenset() if position is None else self._scorer.loads.overdrawn(position)

    def _positions(self, nodes: Sequence[str]) -> list[int]:
        positions = self.snapshot.topology.positions
        return [positions[node] for node in nodes if node in positions]

    @cached_property
    def claims_on(self) -> Mapping[str, int]:
        """How many pods hold something of each node."""
        return Counter(claim.node for claim in self.snapshot.claims if claim.of_pod)


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """Everything a plan rests on. `existing` holds the objects that stand where ours should, by kind and
    name; `served_beside` what replicas of other revisions serve.
    """

    me: SetSeen
    rivals: Sequence[SetSeen]
    around: Surroundings
    existing: Mapping[tuple[str, str], Manifest]
    missing: tuple[Missing, ...] = ()
    load: RouterLoad = RouterLoad()
    targets: tuple[Target, ...] = ()
    scaling: ZeroDecision | None = None
    engine_key: EngineKey = field(default_factory=EngineKey)
    placeholders: Sequence[Pod] = ()
    routers: tuple[RouterSeen, ...] = ()
    router_trouble: Trouble | None = None
    device_class: DeviceClass | None = None
    claim_templates: Sequence[Manifest] = ()
    hold_devices: frozenset[str] = frozenset()
    sizing: Sizing = field(default_factory=Sizing)
    records: Mapping[str, Record] = field(default_factory=dict)
    served_beside: tuple[Served, ...] = ()
