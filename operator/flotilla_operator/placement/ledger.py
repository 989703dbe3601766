"""The state of one plan: what it has given away and reserved so far.

Only these methods change it, and between any two of them `check` holds. Every step (`take`, `give_back`,
`keep`) can be undone, back to a mark. Which node a group should get is decided elsewhere; the ledger refuses
only what would break it.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial

from flotilla_operator.placement.groups import Group, Policy, Snapshot
from flotilla_operator.placement.kinds import Kind, Kinds
from flotilla_operator.placement.loads import Free, Loads
from flotilla_operator.placement.spread import Spread, standing_in
from flotilla_operator.placement.topology import Topology

Positions = tuple[int, ...]  # the node of each stage
Key = tuple[str, str]  # owner and name of a group


class Ledger:
    """The state of one plan."""

    def __init__(self, snapshot: Snapshot, policy: Policy) -> None:
        self.topology: Topology = snapshot.topology
        self.policy = policy
        self._snapshot = snapshot
        self._kinds = Kinds(snapshot.topology, policy)
        self._loads = Loads(snapshot)
        self._spread = Spread(snapshot, policy)
        self._bound: dict[Key, tuple[Group, Positions]] = {}
        self._bound_at: dict[int, dict[Key, Group]] = {}
        self._kept_for: dict[int, Group] = {}
        self._adopted: list[tuple[Group, Positions]] = []
        self._undo: list[Callable[[], None]] = []

    @property
    def loads(self) -> Free:
        """Free amounts on each node now."""
        return self._loads

    def kind(self, group: Group) -> Kind:
        """The kind of a group."""
        return self._kinds.of(group)

    def replicas(self, owner: str, label: str) -> Mapping[str | None, int]:
        """How many replicas the owner has in each domain of the label; domains without one may be absent."""
        return self._spread.counts(owner, label)

    def open_to(self, group: Group) -> Iterator[int]:
        """The nodes that could take a stage now, the fullest first."""
        reasons, loads, kept = self.kind(group).reasons, self._loads, self._kept_for
        for position in loads.fullest_first(group.accelerator, group.wanted):
            if (
                reasons[position] is None
                and kept.get(position, group) is group
                and loads.holds(position, group.requests)
            ):
                yield position

    def bound(self) -> list[tuple[Group, Positions]]:
        """Every group that has nodes, with them."""
        return list(self._bound.values())

    def positions_of(self, group: Group) -> Positions:
        """The nodes of a group that has nodes."""
        return self._bound[_key(group)][1]

    def bound_at(self, position: int) -> Iterable[Group]:
        """The groups that this plan has put on a node."""
        return self._bound_at.get(position, {}).values()

    def is_kept(self, position: int) -> bool:
        """Whether the node is reserved for a group."""
        return position in self._kept_for

    def kept_from(self, group: Group, position: int) -> bool:
        """Whether the node is reserved for another group than this one."""
        return self._kept_for.get(position, group) is not group

    def keepers(self) -> set[Key]:
        """The groups for which nodes are reserved."""
        return {_key(group) for group in self._kept_for.values()}

    def adopt(self, group: Group, positions: Positions) -> None:
        """Count a running group as bound by this plan, so that it can be moved; this is no step.

        What it holds is part of the snapshot's claims, and it is not one of those that stand.
        """
        assert _key(group) not in self._bound, f"{group.name} has nodes already"
        self._adopted.append((group, positions))
        for position in positions:
            self._loads.take(position, group.requests, -1)
        self._take(group, positions)

    def take(self, group: Group, positions: Positions) -> None:
        """Give a node to each stage of a group. The nodes must have room, and be reserved for no other."""
        assert _key(group) not in self._bound, f"{group.name} has nodes already"
        assert len(positions) == group.stages, f"{group.name} is placed in part"
        for position, stages in Counter(positions).items():
            assert self._loads.room(position, group.requests) >= stages, f"node {position} is given twice"
            assert not self.kept_from(group, position), f"node {position} is reserved for another group"
        self._take(group, positions)
        self._undo.append(partial(self._give_back, group, positions))

    def give_back(self, group: Group) -> None:
        """Take a group off its nodes."""
        positions = self.positions_of(group)
        self._give_back(group, positions)
        self._undo.append(partial(self._take, group, positions))

    def keep(self, group: Group, positions: Iterable[int]) -> None:
        """Reserve nodes for a group, which are reserved for none yet."""
        kept = tuple(positions)
        assert not any(self.is_kept(position) for position in kept), "a node is reserved twice"
        self._kept_for.update(dict.fromkeys(kept, group))
        self._undo.append(partial(self._release, kept))

    def mark(self) -> int:
        """A point of the plan to which `undo_to` can return."""
        return len(self._undo)

    def undo_to(self, mark: int) -> None:
        """Undo every step after the mark."""
        while len(self._undo) > mark:
            self._undo.pop()()

    def check(self) -> None:
        """Assert what must hold between any two steps."""
        self._check_loads()
        bound = self.bound()
        self._spread.check(
            [*standing_in(self._snapshot), *((group.owner, positions) for group, positions in bound)]
        )
        there = {(position, _key(group)) for group, positions in bound for position in positions}
        listed = {(position, key) for position, groups in self._bound_at.items() for key in groups}
        assert listed == there, "the groups of a node are not those that are bound to it"
        for key, (group, positions) in self._bound.items():
            assert key == _key(group), f"{group.name} is listed under another name"
            assert len(positions) == group.stages, f"{group.name} is placed in part"
            assert all(self._bound_at[position][key] is group for position in positions), "two groups in one"
        for position, group in self._kept_for.items():
            kind = self.kind(group)
            assert position in kind.empty_rooms, f"node {position} is reserved and could never be used"
            assert kind.reasons[position] is None, f"node {position} is reserved and must not be used"

    def _check_loads(self) -> None:
        """Assert that what is taken is what claims and bound groups hold, and that none is given twice."""
        at_start = [Counter(node.allocatable) for node in self.topology.nodes]
        for claim in self._snapshot.claims:
            if (known := self.topology.positions.get(claim.node)) is not None:
                at_start[known].subtract(claim.requests)
        now = [Counter(free) for free in at_start]
        for group, positions in self._adopted:
            for position in positions:
                now[position].update(group.requests)
        for group, positions in self.bound():
            for position in positions:
                now[position].subtract(group.requests)
        self._loads.check(now)
        for position, free in enumerate(now):
            for resource, left in free.items():
                least = min(0, at_start[position][resource])
                assert left >= least, f"{resource} of node {position} is given twice"

    def _take(self, group: Group, positions: Positions) -> None:
        key = _key(group)
        self._bound[key] = (group, positions)
        for position in positions:
            self._loads.take(position, group.requests)
            self._bound_at.setdefault(position, {})[key] = group
        self._spread.add(group.owner, positions)

    def _give_back(self, group: Group, positions: Positions) -> None:
        key = _key(group)
        del self._bound[key]
        for position in positions:
            self._loads.take(position, group.requests, -1)
            self._bound_at[position].pop(key, None)
        self._spread.remove(group.owner, positions)

    def _release(self, positions: Iterable[int]) -> None:
        for position in positions:
            del self._kept_for[position]


def _key(group: Group) -> Key:
    return group.owner, group.name
