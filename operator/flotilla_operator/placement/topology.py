"""The nodes as placement sees them: built once per generation of nodes, shared, never changed.

What a plan takes from a node lives beside the topology, in `Loads`, addressed by the node's position; so many
plans can share one topology and none disturbs another. Levels above the node (rack, zone) belong here too.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from flotilla_operator.placement.quantities import Amounts


@dataclass(frozen=True, slots=True, kw_only=True)
class Taint:
    """A node's taint; placement looks at those that keep pods away."""

    key: str
    value: str = ""
    effect: str = "NoSchedule"

    @property
    def keeps_away(self) -> bool:
        """Whether it refuses pods, rather than preferring others."""
        return self.effect in ("NoSchedule", "NoExecute")


@dataclass(frozen=True, slots=True, kw_only=True)
class Toleration:
    """A pod's toleration, with core/v1's meaning: no key tolerates every taint, no effect every effect."""

    key: str = ""
    operator: str = "Equal"
    value: str = ""
    effect: str = ""

    def tolerates(self, taint: Taint) -> bool:
        """Whether a pod with this toleration may stand on a node with that taint."""
        if self.effect and self.effect != taint.effect:
            return False
        if self.key and self.key != taint.key:
            return False
        return self.operator == "Exists" or (bool(self.key) and self.value == taint.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One node: what it offers to pods, and who may come."""

    name: str
    allocatable: Amounts
    labels: Mapping[str, str]
    taints: tuple[Taint, ...] = ()
    cordoned: bool = False
    ready: bool = True


@dataclass(frozen=True, kw_only=True)
class Topology:
    """Every node, by name; equal sets of nodes give equal topologies, in whatever order they came."""

    nodes: tuple[Node, ...]

    @classmethod
    def of(cls, nodes: Iterable[Node]) -> "Topology":
        """The topology of these nodes."""
        return cls(nodes=tuple(sorted(nodes, key=lambda node: node.name)))

    @cached_property
    def positions(self) -> Mapping[str, int]:
        """Where each node stands in `nodes`."""
        return {node.name: position for position, node in enumerate(self.nodes)}

    def check(self) -> None:
        """Assert that names are unique and in order."""
        names = [node.name for node in self.nodes]
        assert names == sorted(set(names)), "node names must be unique and sorted"
