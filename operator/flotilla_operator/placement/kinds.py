"""Kinds of groups that ask for the same, with the facts that hold for a whole plan.

Which nodes refuse a kind, and what each node could hold if nothing ran, is computed once for each kind. The
owner is no part of a kind, so sets of different owners share what is known of theirs.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from flotilla_operator.placement.checks import (
    LASTING_CHECKS,
    NODE_CHECKS,
    NodeConstraints,
    first_reason,
    stages_when_empty,
)
from flotilla_operator.placement.groups import Group, Policy
from flotilla_operator.placement.outcome import RefusalReason
from flotilla_operator.placement.scopes import bounds
from flotilla_operator.placement.topology import Topology

Reasons = Sequence[RefusalReason | None]  # for each node the reason against it


@dataclass(frozen=True, slots=True)
class Needs:
    """Properties that two groups must share to be of one kind."""

    constraints: NodeConstraints
    left_out: frozenset[str]
    accelerator: str
    requests: tuple[tuple[str, int], ...]
    stages: int
    pack_within: str | None  # where it is a must
    spread_across: str | None  # where it is a must

    @classmethod
    def by(cls, group: Group) -> "Needs":
        """The needs of this group."""
        return cls(
            NodeConstraints.of(group),
            group.left_out,
            group.accelerator,
            tuple(sorted(group.requests.items())),
            group.stages,
            group.pack_within if group.must_pack else None,
            group.spread_across if group.must_spread else None,
        )


class Kind:
    """Facts that hold for every group that asks for the same. Kinds are compared by identity."""

    def __init__(self, needs: Needs, group: Group, kinds: "Kinds") -> None:
        self.needs = needs
        self._kinds = kinds
        self.domains = kinds.topology.partition(*bounds(group, kinds.policy)).members

    @cached_property
    def reasons(self) -> Reasons:
        """For each node the reason against it, before this plan has given anything away."""
        reasons = list(self._kinds.reasons(self.needs.constraints))
        for name in self.needs.left_out:
            position = self._kinds.topology.positions.get(name)
            if position is not None and reasons[position] is None:
                reasons[position] = RefusalReason.BIND_TIMED_OUT
        return tuple(reasons)

    @cached_property
    def empty_rooms(self) -> Mapping[int, int]:
        """How many stages each node could take if nothing ran on it and it were ready and not cordoned."""
        return self._kinds.empty_rooms(self.needs)

    @cached_property
    def fits_when_empty(self) -> bool:
        """Whether such a group would fit if nothing ran, and all nodes were ready and not cordoned."""
        return any(
            rooms_in(members, self.empty_rooms) >= self.needs.stages for members in self.domains.values()
        )

    @cached_property
    def spread_domains(self) -> Mapping[str, tuple[int, ...]]:
        """The nodes of each domain over which replicas must be spread; none where spreading is no must.

        Only domains count in which a node could take a stage if nothing ran there.
        """
        if self.needs.spread_across is None:
            return {}
        partition = self._kinds.topology.partition(self._kinds.policy.path(self.needs.spread_across))
        return {
            domain: members
            for domain, members in partition.members.items()
            if any(position in self.empty_rooms for position in members)
        }


class Kinds:
    """The kinds of one plan's groups."""

    def __init__(self, topology: Topology, policy: Policy) -> None:
        self.topology = topology
        self.policy = policy
        self._kinds: dict[Needs, Kind] = {}
        self._kind_of: dict[tuple[str, str], Kind] = {}
        self._of_constraints: dict[NodeConstraints, Reasons] = {}
        self._empty: dict[tuple[NodeConstraints, tuple[tuple[str, int], ...]], Mapping[int, int]] = {}

    def of(self, group: Group) -> Kind:
        """The kind of a group."""
        key = (group.owner, group.name)
        if (known := self._kind_of.get(key)) is None:
            needs = Needs.by(group)
            if (known := self._kinds.get(needs)) is None:
                known = self._kinds[needs] = Kind(needs, group, self)
            self._kind_of[key] = known
        return known

    def reasons(self, constraints: NodeConstraints) -> Reasons:
        """For each node the reason against these constraints, whichever group asks."""
        if (known := self._of_constraints.get(constraints)) is None:
            known = self._of_constraints[constraints] = tuple(
                first_reason(NODE_CHECKS, node, constraints, self.policy) for node in self.topology.nodes
            )
        return known

    def empty_rooms(self, needs: Needs) -> Mapping[int, int]:
        """How many stages each node could take when empty. Nodes that a group leaves out are included."""
        key = (needs.constraints, needs.requests)
        if (known := self._empty.get(key)) is None:
            requests = dict(needs.requests)
            known = self._empty[key] = {
                position: rooms
                for position, node in enumerate(self.topology.nodes)
                if (rooms := stages_when_empty(node, requests))
                and first_reason(LASTING_CHECKS, node, needs.constraints, self.policy) is None
            }
        return known


def rooms_in(members: Iterable[int], rooms: Mapping[int, int]) -> int:
    """How many stages the nodes of a domain could take together."""
    return sum(rooms[position] for position in members if position in rooms)
