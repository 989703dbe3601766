"""What waits for room, and what holds it.

A `Group` is one replica that has no pods yet; a `Claim` is what a pod holds on a node, whether it is bound
there already or pinned to it and about to be. Claims of anybody's pods count alike, so a GPU is never given
twice.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from flotilla_operator.placement.quantities import Amounts
from flotilla_operator.placement.topology import Toleration, Topology


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A replica that waits: one pod asking for `requests`, `accelerator` being the resource that is scarce.

    `left_out` names the nodes where this group's pods were pinned in vain a short while ago.
    """

    owner: str
    name: str
    accelerator: str
    requests: Amounts
    waiting_since_seconds: float
    priority: int = 0
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()
    products: frozenset[str] = frozenset()
    left_out: frozenset[str] = frozenset()

    @property
    def wanted(self) -> int:
        """How many accelerators the group needs on one node."""
        return self.requests[self.accelerator]


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What one pod holds on one node."""

    node: str
    requests: Amounts


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The cluster at one moment. Claims on nodes that are not in the topology count for nothing."""

    topology: Topology
    claims: Sequence[Claim]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How to choose: after `aging_seconds` no younger group may take the room that an older one waits for."""

    product_labels: tuple[str, ...]
    aging_seconds: float = 600.0


class Loads:
    """What is free on each node while one plan is made; private to that plan."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._free = [dict(node.allocatable) for node in snapshot.topology.nodes]
        positions = snapshot.topology.positions
        for claim in snapshot.claims:
            if (position := positions.get(claim.node)) is not None:
                self.take(position, claim.requests)

    def free(self, position: int, resource: str) -> int:
        """What is left of a resource on the node at this position; below zero when pods ask for more than
        it has.
        """
        return self._free[position].get(resource, 0)

    def take(self, position: int, requests: Amounts) -> None:
        """Give an amount away."""
        free = self._free[position]
        for resource, value in requests.items():
            free[resource] = free.get(resource, 0) - value

    def lacks(self, position: int, requests: Amounts) -> frozenset[str]:
        """The resources of which the node has too little left."""
        return frozenset(
            resource for resource, value in requests.items() if value > self.free(position, resource)
        )
