"""The nodes as placement sees them: built once for each generation of nodes, then shared and never changed.

What a plan takes from a node is kept apart, in `Loads`, under the node's position, so many plans can share
one topology without disturbing each other. Zones, racks and domains of other labels are partitions of the
nodes; each is computed when first asked for, and kept.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from flotilla_operator.objects.quantities import Amounts

HOSTNAME = "kubernetes.io/hostname"
Path = tuple[
    str, ...
]  # label keys from wide to narrow; the last one is the level, the others make its names unique


@dataclass(frozen=True, slots=True, kw_only=True)
class Taint:
    """A node's taint."""

    key: str
    value: str = ""
    effect: str = "NoSchedule"

    def __str__(self) -> str:
        """As kubectl writes it."""
        return f"{self.key}={self.value}:{self.effect}" if self.value else f"{self.key}:{self.effect}"

    @property
    def keeps_away(self) -> bool:
        """Whether pods without a toleration are kept off the node, which PreferNoSchedule does not do."""
        return self.effect in ("NoSchedule", "NoExecute")


@dataclass(frozen=True, slots=True, kw_only=True)
class Toleration:
    """A pod's toleration. As in core/v1, no key means every taint, and no effect means every effect."""

    key: str = ""
    operator: str = "Equal"
    value: str = ""
    effect: str = ""

    def tolerates(self, taint: Taint) -> bool:
        """Whether a pod with this toleration may run on a node with that taint."""
        if self.effect and self.effect != taint.effect:
            return False
        if self.key and self.key != taint.key:
            return False
        return self.operator == "Exists" or (bool(self.key) and self.value == taint.value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One node: what it offers to pods, and which pods it accepts."""

    name: str
    allocatable: Amounts
    labels: Mapping[str, str]
    taints: tuple[Taint, ...] = ()
    cordoned: bool = False
    ready: bool = True

    def label(self, key: str) -> str | None:
        """A label's value. Every node has a hostname, whether or not a label says so."""
        return self.labels.get(key) or (self.name if key == HOSTNAME else None)

    def domain(self, path: Path) -> str | None:
        """The name of the node's domain at the end of a path; None when the node lacks that label.

        Racks in two zones may have the same name, so the name includes those of the wider levels.
        """
        if self.label(path[-1]) is None:
            return None
        return "/".join(self.label(key) or "" for key in path).lstrip("/")


@dataclass(frozen=True, slots=True)
class Partition:
    """The nodes by domain: `of` is the domain of each position, `members` the positions of each domain."""

    of: tuple[str | None, ...]
    members: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, kw_only=True)
class Topology:
    """Every node, sorted by name. Equal sets of nodes give equal topologies, in whatever order they came."""

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
        """The position of each node in `nodes`."""
        return {node.name: position for position, node in enumerate(self.nodes)}

    def partition(self, *paths: Path) -> Partition:
        """The nodes by the domain that they have on all of these paths; without a path, all in one domain."""
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
        """Assert that node names are unique and sorted."""
        names = [node.name for node in self.nodes]
        assert names == sorted(set(names)), "node names must be unique and sorted"
