"""What waits for room, and what holds it.

A `Group` is one replica that has no pods yet; a `Claim` is what a pod holds on a node, whether it is bound
there already, pinned to it and about to be, or only planned. Claims of anybody's pods count alike, so a GPU
is never given twice. `Standing` says where a set's replicas are, for those that wish to be spread.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from flotilla_operator.placement.quantities import Amounts
from flotilla_operator.placement.topology import HOSTNAME, Path, Toleration, Topology

ZONE = "topology.kubernetes.io/zone"
RACK = "topology.kubernetes.io/rack"


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A replica that waits: `stages` pods, each asking for `requests` on one node.

    `accelerator` is the resource that is scarce; with `products_of_devices` it counts devices of certain
    products, so a node without any has others. Two stages may share a node that has room for both.
    `pack_within` names the label whose value all stages should have in common, `spread_across` the one over
    whose values the owner's replicas should be spread; `required` makes both a must. `left_out` names the
    nodes where this group's pods were pinned in vain a short while ago.
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
        """How many accelerators each stage needs on its node."""
        return self.requests[self.accelerator]

    @property
    def accelerators(self) -> int:
        """How many accelerators the whole group needs."""
        return self.wanted * self.stages

    @property
    def must_pack(self) -> bool:
        """Whether the group rather waits than lies in several domains; one pod lies in one anyway."""
        return self.required and self.pack_within is not None and self.stages > 1

    @property
    def must_spread(self) -> bool:
        """Whether the group rather waits than crowds a domain."""
        return self.required and self.spread_across is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What one pod holds on one node, or a claim of devices beside it."""

    node: str
    requests: Amounts
    of_pod: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """A group that has its nodes, one for each stage."""

    owner: str
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The cluster at one moment. What is on nodes that are not in the topology counts for nothing.

    What a standing group holds is among the claims; `standing` says only where it is.
    """

    topology: Topology
    claims: Sequence[Claim]
    standing: Sequence[Standing] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How to choose: after `aging_seconds` no younger group may take the room that an older one waits for.

    `topology_levels` are node labels from wide to narrow; `interconnect_label` names the domain inside which
    nodes have a fast interconnect, where nodes say it.
    """

    product_labels: tuple[str, ...]
    aging_seconds: float = 600.0
    topology_levels: tuple[str, ...] = (ZONE, RACK, HOSTNAME)
    interconnect_label: str | None = None

    def path(self, label: str) -> Path:
        """The levels from the widest to this label; a label that is no level stands alone, and so does the
        node, whose name nobody shares.
        """
        if label not in self.topology_levels or label == HOSTNAME:
            return (label,)
        return self.topology_levels[: self.topology_levels.index(label) + 1]

    @property
    def levels(self) -> list[Path]:
        """The path to each level, the narrowest first."""
        return [self.path(label) for label in reversed(self.topology_levels)]
