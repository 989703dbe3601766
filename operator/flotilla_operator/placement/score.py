"""Scores where groups are placed: one number and the parts that it is made of.

Each part is between 0 and 1, where 1 is best, and None where it does not apply: `packing` for groups of one
stage, `spread` for sets that do not ask for it. The weights follow the order of placement's objectives.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from flotilla_operator.placement.groups import Policy, Snapshot
from flotilla_operator.placement.loads import Free, Loads
from flotilla_operator.placement.topology import Topology

Positions = Sequence[int]  # the node of each stage
PACKING_WEIGHT, FRAGMENTATION_WEIGHT, SPREAD_WEIGHT = 4, 2, 1


@dataclass(frozen=True, slots=True)
class Domain:
    """A topology domain: the label that defines it, and its name below the wider levels."""

    level: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """How good a placement is, in three parts.

    `packing` is how close together the stages of a group are: 1 on one node or one fast interconnect.
    `fragmentation` is the share of accelerators in use on the nodes that hold replicas: at 1 all free
    accelerators are on empty nodes, where the largest group can use them. `spread` is how evenly replicas are
    distributed over domains.
    """

    packing: float | None = None
    fragmentation: float | None = None
    spread: float | None = None

    @property
    def value(self) -> float | None:
        """The score as shown in the status, with two decimals."""
        return None if self.exact is None else round(self.exact, 2)

    @property
    def parts(self) -> dict[str, float]:
        """The known parts by name, as shown in the status."""
        named = {"packing": self.packing, "fragmentation": self.fragmentation, "spread": self.spread}
        return {name: round(part, 2) for name, part in named.items() if part is not None}

    @property
    def exact(self) -> float | None:
        """The weighted mean of the known parts; None when nothing is placed."""
        weighed = [
            (self.packing, PACKING_WEIGHT),
            (self.fragmentation, FRAGMENTATION_WEIGHT),
            (self.spread, SPREAD_WEIGHT),
        ]
        known = [(part, weight) for part, weight in weighed if part is not None]
        if not known:
            return None
        return sum(part * weight for part, weight in known) / sum(weight for _, weight in known)


@dataclass(frozen=True, slots=True)
class Like:
    """The groups of one owner: the nodes of each, and what they have in common."""

    groups: Sequence[Positions]
    accelerator: str
    spread_across: str | None = None


@dataclass(frozen=True, slots=True)
class Scorer:
    """Scores positions, given what is free on the nodes."""

    topology: Topology
    loads: Free
    policy: Policy

    def of(self, groups: Sequence[Positions], accelerator: str, spread_across: str | None = None) -> Score:
        """The score of groups of one owner."""
        return self.of_many([Like(groups, accelerator, spread_across)])

    def of_many(self, owners: Sequence[Like]) -> Score:
        """The score of the groups of several owners; each owner counts by its number of replicas."""
        used = allocatable = 0
        spreads: list[tuple[float, int]] = []
        for accelerator in dict.fromkeys(like.accelerator for like in owners):
            more = self._in_use(
                [like.groups for like in owners if like.accelerator == accelerator], accelerator
            )
            used, allocatable = used + more[0], allocatable + more[1]
        for like in owners:
            if like.spread_across is not None:
                spreads += self._spread(like.groups, like.spread_across)
        replicas = sum(count for _, count in spreads)
        return Score(
            packing=self._packing([positions for like in owners for positions in like.groups]),
            fragmentation=used / allocatable if allocatable else None,
            spread=sum(share * count for share, count in spreads) / replicas if replicas else None,
        )

    def domain(self, positions: Positions) -> Domain | None:
        """The narrowest domain that holds all of these nodes.

        A fast interconnect counts as narrower than every level but the node.
        """
        host, *wider = self.policy.levels
        fast = [(self.policy.interconnect_label,)] if self.policy.interconnect_label else []
        for path in (host, *fast, *wider):
            of = self.topology.partition(path).of
            name = of[positions[0]]
            if name is not None and all(of[position] == name for position in positions):
                return Domain(path[-1], name)
        return None

    def _packing(self, groups: Sequence[Positions]) -> float | None:
        shares = [self._closeness(positions) for positions in groups if len(positions) > 1]
        return sum(shares) / len(shares) if shares else None

    def _closeness(self, positions: Positions) -> float:
        domain = self.domain(positions)
        if domain is None:
            return 0.0
        if domain.level == self.policy.interconnect_label:
            return 1.0
        levels = self.policy.topology_levels
        return (levels.index(domain.level) + 1) / len(levels)

    def _in_use(self, groups: Iterable[Sequence[Positions]], accelerator: str) -> tuple[int, int]:
        """How many accelerators the nodes of these groups have in use, and how many they have in total."""
        used = allocatable = 0
        for position in {position for ours in groups for positions in ours for position in positions}:
            there = self.topology.nodes[position].allocatable.get(accelerator, 0)
            allocatable += there
            used += there - min(max(self.loads.free(position, accelerator), 0), there)
        return used, allocatable

    def _spread(self, groups: Sequence[Positions], label: str) -> list[tuple[float, int]]:
        """How evenly the replicas are distributed, and their number; nothing when none is in a domain."""
        partition = self.topology.partition(self.policy.path(label))
        counts = Counter(
            domain
            for positions in groups
            for domain in {partition.of[position] for position in positions}
            if domain is not None
        )
        replicas = sum(counts.values())
        if not replicas:
            return []
        even = -(-replicas // len(partition.members))
        return [(1 - sum(max(count - even, 0) for count in counts.values()) / replicas, replicas)]


def score(
    snapshot: Snapshot,
    policy: Policy,
    accelerator: str,
    groups: Sequence[Sequence[str]],
    spread_across: str | None = None,
) -> Score:
    """The score of one owner's replicas, each given by the nodes of its stages."""
    positions = snapshot.topology.positions
    known = [[positions[node] for node in nodes if node in positions] for nodes in groups]
    scorer = Scorer(snapshot.topology, Loads(snapshot), policy)
    return scorer.of([nodes for nodes in known if nodes], accelerator, spread_across)
