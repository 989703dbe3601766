"""What one plan has given away and keeps so far, and what it has found out about nodes.

Groups that ask alike are of one kind: what is against each node, and what it could hold if nothing ran, is
found out once for a kind and holds for the whole plan. What is done can be undone, down to a mark.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from flotilla_operator.placement.checks import (
    LASTING_CHECKS,
    NODE_CHECKS,
    Shape,
    first_reason,
    stages_when_empty,
)
from flotilla_operator.placement.groups import Group, Policy, Snapshot
from flotilla_operator.placement.loads import Loads
from flotilla_operator.placement.outcome import RefusalReason
from flotilla_operator.placement.scopes import bounds
from flotilla_operator.placement.spread import Spread
from flotilla_operator.placement.topology import Topology

Positions = tuple[int, ...]  # the node of each stage
Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Asked:
    """What makes two groups alike to placement."""

    shape: Shape
    left_out: frozenset[str]
    accelerator: str
    requests: tuple[tuple[str, int], ...]
    stages: int
    pack_within: str | None
    spread_over: tuple[str, str] | None  # owner and label, where spreading is a must

    @classmethod
    def by(cls, group: Group) -> "Asked":
        """What this group asks."""
        return cls(
            Shape.of(group),
            group.left_out,
            group.accelerator,
            tuple(sorted(group.requests.items())),
            group.stages,
            group.pack_within if group.must_pack else None,
            (group.owner, group.spread_across) if group.must_spread and group.spread_across else None,
        )


class Kind:
    """What holds of every group that asks alike; two kinds are equal when they are the same object."""

    def __init__(self, asked: Asked, group: Group, ledger: "Ledger") -> None:
        self._asked = asked
        self._ledger = ledger
        self.domains = ledger.topology.partition(*bounds(group, ledger.policy)).members

    @cached_property
    def reasons(self) -> list[RefusalReason | None]:
        """What is against each node before anything is given away."""
        reasons = list(self._ledger.reasons(self._asked.shape))
        for name in self._asked.left_out:
            position = self._ledger.topology.positions.get(name)
            if position is not None and reasons[position] is None:
                reasons[position] = RefusalReason.BIND_TIMED_OUT
        return reasons

    @cached_property
    def empty_rooms(self) -> Mapping[int, int]:
        """How many stages each node could take if nothing ran at all and nothing passing were wrong."""
        return self._ledger.empty_rooms(self._asked)

    @cached_property
    def fits_when_empty(self) -> bool:
        """Whether such a group could ever be placed here."""
        return any(
            rooms_in(members, self.empty_rooms) >= self._asked.stages for members in self.domains.values()
        )


class Ledger:
    """The state of one plan."""

    def __init__(self, snapshot: Snapshot, policy: Policy) -> None:
        self.topology: Topology = snapshot.topology
        self.policy = policy
        self.loads = Loads(snapshot)
        self.spread = Spread(snapshot, policy)
        self.kept_for: dict[int, Group] = {}
        self.bound: dict[Key, tuple[Group, Positions]] = {}
        self._bound_at: dict[int, dict[Key, Group]] = {}
        self._done: list[tuple[Group, Positions, bool]] = []
        self._of_shape: dict[Shape, list[RefusalReason | None]] = {}
        self._empty: dict[tuple[Shape, tuple[tuple[str, int], ...]], Mapping[int, int]] = {}
        self._kinds: dict[Asked, Kind] = {}
        self._kind_of: dict[Key, Kind] = {}

    def kind(self, group: Group) -> Kind:
        """The kind of a group."""
        key = (group.owner, group.name)
        if (known := self._kind_of.get(key)) is None:
            asked = Asked.by(group)
            if (known := self._kinds.get(asked)) is None:
                known = self._kinds[asked] = Kind(asked, group, self)
            self._kind_of[key] = known
        return known

    def reasons(self, shape: Shape) -> list[RefusalReason | None]:
        """What is against each node as such, whoever asks."""
        if (known := self._of_shape.get(shape)) is None:
            known = self._of_shape[shape] = [
                first_reason(NODE_CHECKS, node, shape, self.policy) for node in self.topology.nodes
            ]
        return known

    def empty_rooms(self, asked: Asked) -> Mapping[int, int]:
        """What nodes could take when empty, whichever of them are left out."""
        key = (asked.shape, asked.requests)
        if (known := self._empty.get(key)) is None:
            requests = dict(asked.requests)
            known = self._empty[key] = {
                position: rooms
                for position, node in enumerate(self.topology.nodes)
                if (rooms := stages_when_empty(node, requests))
                and first_reason(LASTING_CHECKS, node, asked.shape, self.policy) is None
            }
        return known

    def open_to(self, group: Group) -> Iterator[int]:
        """The nodes that could take a stage now, the fullest first."""
        reasons, loads, kept = self.kind(group).reasons, self.loads, self.kept_for
        for position in loads.fullest_first(group.accelerator, group.wanted):
            if (
                reasons[position] is None
                and kept.get(position, group) is group
                and loads.holds(position, group.requests)
            ):
                yield position

    def bound_at(self, position: int) -> Iterable[Group]:
        """The groups that this plan has put on a node."""
        return self._bound_at.get(position, {}).values()

    def take(self, group: Group, positions: Positions) -> None:
        """Give a node to each stage."""
        self._done.append((group, positions, True))
        self._take(group, positions)

    def give_back(self, group: Group) -> None:
        """Take a group off its nodes."""
        positions = self.bound[group.owner, group.name][1]
        self._done.append((group, positions, False))
        self._give_back(group, positions)

    def mark(self) -> int:
        """How far things have got."""
        return len(self._done)

    def undo_to(self, mark: int) -> None:
        """Undo all that was done since the mark."""
        while len(self._done) > mark:
            group, positions, taken = self._done.pop()
            if taken:
                self._give_back(group, positions)
            else:
                self._take(group, positions)

    def _take(self, group: Group, positions: Positions) -> None:
        key = (group.owner, group.name)
        self.bound[key] = (group, positions)
        for position in positions:
            self.loads.take(position, group.requests)
            self._bound_at.setdefault(position, {})[key] = group
        self.spread.add(group.owner, positions)

    def _give_back(self, group: Group, positions: Positions) -> None:
        key = (group.owner, group.name)
        del self.bound[key]
        for position in positions:
            self.loads.take(position, group.requests, -1)
            self._bound_at[position].pop(key, None)
        self.spread.remove(group.owner, positions)


def rooms_in(members: Iterable[int], rooms: Mapping[int, int]) -> int:
    """How many stages a domain could take."""
    return sum(rooms[position] for position in members if position in rooms)
