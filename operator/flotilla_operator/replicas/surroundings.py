"""The cluster around a set: nodes, what they have free, and how the operator was told to choose."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property

from flotilla_operator.placement import Domain, Node, Policy, Score, Snapshot
from flotilla_operator.placement.loads import Loads
from flotilla_operator.placement.score import Scorer


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """Surroundings that all sets share.

    `promised` names, by set UID, the groups that were just given room and of which not all pods have been
    observed yet. `gone` are nodes of which it is certain that they do not exist any more; a node may be
    missing in the snapshot for other reasons.
    """

    snapshot: Snapshot
    policy: Policy
    bind_timeout: timedelta = timedelta(seconds=30)
    promised: Mapping[str, Collection[str]] = field(default_factory=dict)
    gone: frozenset[str] = frozenset()

    @cached_property
    def _scorer(self) -> Scorer:
        return Scorer(self.snapshot.topology, Loads(self.snapshot), self.policy)

    def score(self, groups: Sequence[Sequence[str]], accelerator: str, spread_across: str | None) -> Score:
        """The score of groups, each given by the nodes of its stages."""
        known = [positions for nodes in groups if (positions := self._positions(nodes))]
        return self._scorer.of(known, accelerator, spread_across)

    def domain(self, nodes: Sequence[str]) -> Domain | None:
        """The narrowest domain that holds all of these nodes."""
        positions = self._positions(nodes)
        return self._scorer.domain(positions) if positions else None

    def node(self, name: str | None) -> Node | None:
        """The node of this name; None when it does not exist."""
        position = self.snapshot.topology.positions.get(name or "")
        return None if position is None else self.snapshot.topology.nodes[position]

    def free(self, node: str, resource: str) -> int | None:
        """Return the free amount of a node's resource after all claims; None for an unknown node."""
        position = self.snapshot.topology.positions.get(node)
        return None if position is None else self._scorer.loads.free(position, resource)

    def held(self, node: str, resource: str) -> int:
        """Return the amount of a node's resource that is held; 0 for an unknown node."""
        there, free = self.node(node), self.free(node, resource)
        return 0 if there is None or free is None else there.allocatable.get(resource, 0) - free

    def overdrawn(self, node: str) -> frozenset[str]:
        """The resources of which pods claim more than the node has; none when the node does not exist."""
        position = self.snapshot.topology.positions.get(node)
        return frozenset() if position is None else self._scorer.loads.overdrawn(position)

    def _positions(self, nodes: Sequence[str]) -> list[int]:
        positions = self.snapshot.topology.positions
        return [positions[node] for node in nodes if node in positions]

    @cached_property
    def claims_on(self) -> Mapping[str, int]:
        """How many pods hold something on each node."""
        return Counter(claim.node for claim in self.snapshot.claims if claim.of_pod)
