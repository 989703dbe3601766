"""The nodes as placement sees them: built once per generation of nodes, shared, never changed.

What a plan takes from a node lives beside the topology, in `Loads`, addressed by the node's position; so many
plans can share one topology and none disturbs another. Racks, zones and whatever else a label says are
partitions of the nodes, found when first asked for and kept.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from flotilla_operator.placement.quantities import Amounts

HOSTNAME = "kubernetes.io/hostname"
Path = tuple[
    str, ...
]  # label keys from wide to narrow; the last one is the level, the others tell its names apart


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

    def label(self, key: str) -> str | None:
        """A label's value; every node is a host of its own, whether or not a label says so."""
        return self.labels.get(key) or (self.name if key == HOSTNAME else None)

    def domain(self, path: Path) -> str | None:
        """The name of the node's domain at the end of a path, None when the node does not say it.

        Racks of two zones may have one name, so the names of the levels above belong to it.
        """
        if self.label(path[-1]) is None:
            return None
        return "/".join(self.label(key) or "" for key in path).lstrip("/")


@dataclass(frozen=True, slots=True)
class Partition:
    """The nodes by domain: the domain of each position, None for nodes outside of all, and the reverse."""

    of: tuple[str | None, ...]
    members: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True)
class Topology:
    """Every node, by name; equal sets of nodes give equal topologies, in whatever order they came."""

    nodes: tuple[Node, ...]
    _partitions: dict[tuple[Path, ...], Partition] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @classmethod
    def of(cls, nodes: Iterable[Node]) -> "Topology":
        """The topology of these nodes."""
        return cls(nodes=tuple(sorted(nodes, key=lambda node: node.name)))

    @cached_property
    def positions(self) -> Mapping[str, int]:
        """Where each node stands in `nodes`."""
        return {node.name: position for position, node in enumerate(self.nodes)}

    def partition(self, *paths: Path) -> Partition:
        """The nodes by the domains that they have on all of these paths together; without a path, all nodes
        are one domain.
        """
        if (known := self._partitions.get(paths)) is None:
            known = self._partitions[paths] = self._parted(paths)
        return known

    def _parted(self, paths: tuple[Path, ...]) -> Partition:
        of: list[str | None] = []
        members: dict[str, list[int]] = {}
        for position, node in enumerate(self.nodes):
            names = [node.domain(path) for path in paths]
            known = [name for name in names if name is not None]
            domain = " ".join(known) if len(known) == len(names) else None
            of.append(domain)
            if domain is not None:
                members.setdefault(domain, []).append(position)
        return Partition(tuple(of), {domain: tuple(members[domain]) for domain in sorted(members)})

    def check(self) -> None:
        """Assert that names are unique and in order."""
        names = [node.name for node in self.nodes]
        assert names == sorted(set(names)), "node names must be unique and sorted"
