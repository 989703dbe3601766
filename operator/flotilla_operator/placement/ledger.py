"""What one plan has given away and keeps so far, and what it has found out about nodes.

The checks of a shape hold for the whole plan, so they are asked once; and since a plan only gives away, a
group that does not fit once will not fit later, nor will its like.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class Asked:
    """What makes two groups alike to placement."""

    shape: Shape
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
            group.accelerator,
            tuple(sorted(group.requests.items())),
            group.stages,
            group.pack_within if group.must_pack else None,
            (group.owner, group.spread_across) if group.must_spread and group.spread_across else None,
        )


class Ledger:
    """The state of one plan."""

    def __init__(self, snapshot: Snapshot, policy: Policy) -> None:
        self.topology: Topology = snapshot.topology
        self.policy = policy
        self.loads = Loads(snapshot)
        self.spread = Spread(snapshot, policy)
        self.kept_for: dict[int, Group] = {}
        self._reasons: dict[Shape, list[RefusalReason | None]] = {}
        self._empty: dict[Asked, dict[int, int]] = {}

    def reasons(self, shape: Shape) -> list[RefusalReason | None]:
        """What is against each node as such."""
        if (known := self._reasons.get(shape)) is None:
            known = self._reasons[shape] = [
                first_reason(NODE_CHECKS, node, shape, self.policy) for node in self.topology.nodes
            ]
        return known

    def open_to(self, group: Group) -> Iterable[int]:
        """The nodes that could take a stage now, the fullest first."""
        reasons, loads, kept = self.reasons(Shape.of(group)), self.loads, self.kept_for
        for position in loads.fullest_first(group.accelerator, group.wanted):
            if reasons[position] is None and loads.holds(position, group.requests):
                keeper = kept.get(position)
                if keeper is None or keeper is group:
                    yield position

    def empty_rooms(self, group: Group) -> dict[int, int]:
        """How many stages each node could take if nothing ran at all and nothing passing were wrong."""
        asked = Asked.by(group)
        if (known := self._empty.get(asked)) is None:
            known = self._empty[asked] = {
                position: rooms
                for position, node in enumerate(self.topology.nodes)
                if (rooms := stages_when_empty(node, group.requests))
                and first_reason(LASTING_CHECKS, node, asked.shape, self.policy) is None
            }
        return known

    def fits_when_empty(self, group: Group) -> bool:
        """Whether the group could ever be placed here."""
        return any(
            self.rooms_in(members, self.empty_rooms(group)) >= group.stages
            for members in self.topology.partition(*bounds(group, self.policy)).members.values()
        )

    @staticmethod
    def rooms_in(members: Iterable[int], rooms: dict[int, int]) -> int:
        """How many stages a domain could take."""
        return sum(rooms.get(position, 0) for position in members)

    def take(self, group: Group, positions: Sequence[int]) -> None:
        """Give a node to each stage."""
        for position in positions:
            self.loads.take(position, group.requests)
        self.spread.add(group.owner, positions)

    def give_back(self, group: Group, positions: Sequence[int]) -> None:
        """Undo what was given."""
        for position in positions:
            self.loads.take(position, group.requests, -1)
        self.spread.remove(group.owner, positions)
