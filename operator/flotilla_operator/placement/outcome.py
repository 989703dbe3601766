"""What placement says: bindings, refusals counted by reason, and the score. Values that explain
themselves.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from flotilla_operator.placement.groups import Group, Loads, Snapshot


class RefusalReason(StrEnum):
    """Why a node cannot take a group; a node is counted under the first that holds, in this order."""

    NODE_NOT_READY = "NodeNotReady"
    CORDONED = "Cordoned"
    SELECTOR_MISMATCH = "SelectorMismatch"
    TAINT_NOT_TOLERATED = "TaintNotTolerated"
    PRODUCT_MISMATCH = "ProductMismatch"
    BIND_TIMED_OUT = "BindTimedOut"
    INSUFFICIENT_GPUS = "InsufficientGPUs"
    INSUFFICIENT_RESOURCES = "InsufficientResources"
    KEPT_FOR_OLDER_GROUP = "KeptForOlderGroup"


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """A group and the node of each of its stages, in order."""

    group: Group
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A group that does not fit now: nodes counted per reason, and whether it would fit if nothing ran at
    all.
    """

    group: Group
    nodes_total: int
    counts: Mapping[RefusalReason, int]
    fits_when_empty: bool

    @property
    def message(self) -> str:
        """One sentence, the commonest reason first."""
        if not self.nodes_total:
            return "0/0 nodes fit: the cluster has no nodes"
        return f"0/{self.nodes_total} nodes fit: " + ", ".join(
            f"{nodes} {reason}" for reason, nodes in self.by_count
        )

    @property
    def by_count(self) -> list[tuple[RefusalReason, int]]:
        """The counts, largest first, equal ones by name."""
        return sorted(self.counts.items(), key=lambda entry: (-entry[1], entry[0]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """How whole the nodes are left: of the accelerators on the nodes that hold replicas, the share in use.

    1.0 says that every node that is used is used up, so all that is free lies on untouched nodes, where the
    largest group can have it.
    """

    used: int
    allocatable: int

    @property
    def value(self) -> float | None:
        """The share, None when no node holds a replica."""
        return round(min(self.used / self.allocatable, 1.0), 2) if self.allocatable else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """The outcome for every waiting group: each is either bound whole or refused."""

    bindings: tuple[Binding, ...]
    refusals: tuple[Refusal, ...]

    def binding_of(self, owner: str, name: str) -> Binding | None:
        """Where a group goes."""
        return next((b for b in self.bindings if (b.group.owner, b.group.name) == (owner, name)), None)

    def refusal_of(self, owner: str, name: str) -> Refusal | None:
        """Why a group does not fit."""
        return next((r for r in self.refusals if (r.group.owner, r.group.name) == (owner, name)), None)

    def check(self, snapshot: Snapshot, waiting: Sequence[Group]) -> None:
        """Assert what must hold of any placement, whatever the policy."""
        outcomes: list[Binding | Refusal] = [*self.bindings, *self.refusals]
        decided = sorted((outcome.group.owner, outcome.group.name) for outcome in outcomes)
        assert decided == sorted((group.owner, group.name) for group in waiting), "a group is lost or doubled"
        loads = Loads(snapshot)
        for binding in self.bindings:
            for node in binding.nodes:
                position = snapshot.topology.positions[node]
                assert not loads.lacks(position, binding.group.requests), f"{node} is given away twice"
                loads.take(position, binding.group.requests)
        for refusal in self.refusals:
            assert sum(refusal.counts.values()) == refusal.nodes_total, (
                "a node is counted twice or not at all"
            )


def score(snapshot: Snapshot, accelerator: str, nodes: frozenset[str]) -> Score:
    """The score of the replicas that stand on these nodes."""
    loads = Loads(snapshot)
    positions = [snapshot.topology.positions[node] for node in nodes if node in snapshot.topology.positions]
    allocatable = sum(snapshot.topology.nodes[p].allocatable.get(accelerator, 0) for p in positions)
    free = sum(max(loads.free(position, accelerator), 0) for position in positions)
    return Score(used=allocatable - free, allocatable=allocatable)
