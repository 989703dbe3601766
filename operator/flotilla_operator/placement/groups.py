"""The input of placement: groups that wait for room, and claims that hold it.

A `Group` is a replica that has no pods yet. A `Claim` is what a pod holds on a node, whether the pod is bound
to it, pinned to it, or only planned. Claims of all pods count alike, so no accelerator is given away twice. A
`Standing` says where a replica runs, for sets that spread their replicas.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from flotilla_operator.objects.quantities import Amounts
from flotilla_operator.placement.topology import HOSTNAME, Path, Toleration, Topology

ZONE = "topology.kubernetes.io/zone"
RACK = "topology.kubernetes.io/rack"


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A replica that waits: `stages` pods, each of which asks for `requests` on one node.

    `accelerator` is the name of the scarce resource. With `products_of_devices` that resource counts devices
    of certain products, so a node that offers none of it has other products. Two stages may share a node that
    has room for both. `pack_within` names a label whose value all stages should share. `spread_across` names
    a label over whose values the owner's replicas should be spread. `required` turns both wishes into
    requirements. `left_out` are nodes to which pods of this group were pinned a short while ago without being
    bound.
    """

    owner: str
    name: str
    accelerator: str
    requests: Amounts
    waiting_since_seconds: float
    stages: int = 1
    priority: int = 0
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()
    products: frozenset[str] = frozenset()
    products_of_devices: bool = False
    left_out: frozenset[str] = frozenset()
    pack_within: str | None = None
    spread_across: str | None = None
    required: bool = False

    @property
    def wanted(self) -> int:
        """How many accelerators each stage needs."""
        return self.requests[self.accelerator]

    @property
    def accelerators(self) -> int:
        return self.wanted * self.stages

    @property
    def must_pack(self) -> bool:
        """Whether the group waits rather than have its stages in several domains."""
        return self.required and self.pack_within is not None and self.stages > 1

    @property
    def must_spread(self) -> bool:
        """Whether the group waits rather than go to a domain that has more replicas than others."""
        return self.required and self.spread_across is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Amounts that one pod holds on one node. With `of_pod` false: devices, counted apart from their pod."""

    node: str
    requests: Amounts
    of_pod: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A replica that has its nodes, one for each stage."""

    owner: str
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The cluster at one moment. Claims on nodes that are not in the topology are ignored.

    What a standing replica holds is part of `claims`; `standing` only says where it is.
    """

    topology: Topology
    claims: Sequence[Claim]
    standing: Sequence[Standing] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How to choose.

    Once a group has waited `aging_seconds`, no younger group may take the room that it waits for.
    `topology_levels` are node labels from wide to narrow. `interconnect_label` names the label of the domain
    inside which nodes have a fast interconnect.
    """

    product_labels: tuple[str, ...]
    aging_seconds: float = 600.0
    topology_levels: tuple[str, ...] = (ZONE, RACK, HOSTNAME)
    interconnect_label: str | None = None

    def path(self, label: str) -> Path:
        """The levels from the widest to this label. Only the label itself when it is no level, or when it is
        the hostname, which is unique anyway.
        """
        if label not in self.topology_levels or label == HOSTNAME:
            return (label,)
        return self.topology_levels[: self.topology_levels.index(label) + 1]

    @property
    def levels(self) -> list[Path]:
        """The path to each level, narrowest first."""
        return [self.path(label) for label in reversed(self.topology_levels)]
