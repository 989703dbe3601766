"""How good it is where groups lie: a number with the parts it is made of.

Each part is a share between 0 and 1 where 1 is best, and None where there is nothing to say: `packing` of
groups of one stage, `spread` without a wish for it. They weigh in the order of placement's objectives.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from flotilla_operator.placement.groups import Policy, Snapshot
from flotilla_operator.placement.loads import Loads
from flotilla_operator.placement.topology import Topology

PACKING_WEIGHT, FRAGMENTATION_WEIGHT, SPREAD_WEIGHT = 4, 2, 1


@dataclass(frozen=True, slots=True)
class Domain:
    """A topology domain: the label that makes it, and its name below the wider levels."""

    level: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """`packing`: how close together the stages of groups lie, 1.0 on one node or one fast interconnect.
    `fragmentation`: of the accelerators on the nodes in use, the share in use; at 1.0 all that is free lies
    on untouched nodes, where the largest group can have it. `spread`: how evenly replicas lie over domains.
    """

    packing: float | None = None
    fragmentation: float | None = None
    spread: float | None = None

    @property
    def value(self) -> float | None:
        """The parts that are known, weighed; None when nothing is placed."""
        weighed = [
            (self.packing, PACKING_WEIGHT),
            (self.fragmentation, FRAGMENTATION_WEIGHT),
            (self.spread, SPREAD_WEIGHT),
        ]
        known = [(part, weight) for part, weight in weighed if part is not None]
        if not known:
            return None
        return round(sum(part * weight for part, weight in known) / sum(weight for _, weight in known), 2)


@dataclass(frozen=True, slots=True)
class Scorer:
    """Scores positions against what is left on the nodes."""

    topology: Topology
    loads: Loads
    policy: Policy

    def of(
        self, groups: Sequence[Sequence[int]], accelerator: str, spread_across: str | None = None
    ) -> Score:
        """The score of groups of one owner."""
        return Score(
            packing=self._packing(groups),
            fragmentation=self._fragmentation(groups, accelerator),
            spread=None if spread_across is None else self._spread(groups, spread_across),
        )

    def domain(self, positions: Sequence[int]) -> Domain | None:
        """The narrowest domain that holds all of these nodes; a fast interconnect is narrower than any level
        but the node.
        """
        host, *wider = self.policy.levels
        fast = [(self.policy.interconnect_label,)] if self.policy.interconnect_label else []
        for path in (host, *fast, *wider):
            of = self.topology.partition(path).of
            name = of[positions[0]]
            if name is not None and all(of[position] == name for position in positions):
                return Domain(path[-1], name)
        return None

    def _packing(self, groups: Sequence[Sequence[int]]) -> float | None:
        shares = [self._closeness(positions) for positions in groups if len(positions) > 1]
        return sum(shares) / len(shares) if shares else None

    def _closeness(self, positions: Sequence[int]) -> float:
        domain = self.domain(positions)
        if domain is None:
            return 0.0
        if domain.level == self.policy.interconnect_label:
            return 1.0
        levels = self.policy.topology_levels
        return (levels.index(domain.level) + 1) / len(levels)

    def _fragmentation(self, groups: Sequence[Sequence[int]], accelerator: str) -> float | None:
        used = allocatable = 0
        for position in {position for positions in groups for position in positions}:
            there = self.topology.nodes[position].allocatable.get(accelerator, 0)
            allocatable += there
            used += there - min(max(self.loads.free(position, accelerator), 0), there)
        return used / allocatable if allocatable else None

    def _spread(self, groups: Sequence[Sequence[int]], label: str) -> float | None:
        partition = self.topology.partition(self.policy.path(label))
        counts = Counter(
            domain
            for positions in groups
            for domain in {partition.of[position] for position in positions}
            if domain is not None
        )
        replicas, domains = sum(counts.values()), len(partition.members)
        if not replicas:
            return None
        even = -(-replicas // domains)
        return 1 - sum(max(count - even, 0) for count in counts.values()) / replicas


def score(
    snapshot: Snapshot,
    policy: Policy,
    accelerator: str,
    groups: Sequence[Sequence[str]],
    spread_across: str | None = None,
) -> Score:
    """The score of the replicas of one owner, each given by the nodes of its stages."""
    positions = snapshot.topology.positions
    known = [[positions[node] for node in nodes if node in positions] for nodes in groups]
    scorer = Scorer(snapshot.topology, Loads(snapshot), policy)
    return scorer.of([nodes for nodes in known if nodes], accelerator, spread_across)
