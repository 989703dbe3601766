"""Which of the nodes that fit a group gets.

The kinds of domain are tried from the best to the worst (scopes.py). Among domains of one kind, and among
nodes, the one is taken that leaves whole nodes whole, then the one with fewer replicas of the owner where it
wishes to be spread, then the one with the least left over.
"""

from collections.abc import Iterable, Mapping, Sequence

from flotilla_operator.placement.groups import Group
from flotilla_operator.placement.ledger import Ledger, Positions, rooms_in
from flotilla_operator.placement.scopes import scopes


def choose(ledger: Ledger, group: Group) -> Positions | None:
    """A node for each stage, None when the group does not fit."""
    allowed = spread_allows(ledger, group)
    able = (p for p in ledger.open_to(group) if allowed is None or p in allowed)
    if group.stages == 1:
        return _single(ledger, group, able)
    rooms = {position: ledger.loads.room(position, group.requests) for position in able}
    domains = ledger.kind(group).domains.values()
    if not any(rooms_in(members, rooms) >= group.stages for members in domains):
        return None
    for scope in scopes(group, ledger.policy):
        found = _in_one_domain(ledger, group, rooms, ledger.topology.partition(*scope).of)
        if found is not None:
            return found
    return None


def spread_allows(ledger: Ledger, group: Group) -> set[int] | None:
    """Where a group that must be spread may go: the domains with the fewest of its like, of those that could
    ever take it. None is no limit.
    """
    if not group.must_spread or group.spread_across is None:
        return None
    partition = ledger.topology.partition(ledger.policy.path(group.spread_across))
    counts = ledger.spread.counts(group.owner, group.spread_across)
    empty = ledger.kind(group).empty_rooms
    able = {
        domain: counts[domain]
        for domain, members in partition.members.items()
        if any(position in empty for position in members)
    }
    fewest = min(able.values(), default=0)
    return {
        position
        for domain, count in able.items()
        if count == fewest
        for position in partition.members[domain]
    }


def _single(ledger: Ledger, group: Group, able: Iterable[int]) -> Positions | None:
    if group.spread_across is None:
        first = next(iter(able), None)
        return None if first is None else (first,)
    merit = _Merit(ledger, group)
    best = min((merit.of_node(position) for position in able), default=None)
    return None if best is None else (best[-1],)


def _in_one_domain(
    ledger: Ledger, group: Group, rooms: Mapping[int, int], of: Sequence[str | None]
) -> Positions | None:
    """Nodes inside the best domain that has room for all stages; `rooms` comes fullest first."""
    by_domain: dict[str, list[int]] = {}
    totals: dict[str, int] = {}
    for position, room in rooms.items():
        if (domain := of[position]) is not None:
            by_domain.setdefault(domain, []).append(position)
            totals[domain] = totals.get(domain, 0) + room
    merit = _Merit(ledger, group)
    able = (positions for domain, positions in by_domain.items() if totals[domain] >= group.stages)
    best = min((merit.of_domain(_fill(p, rooms, group.stages), p) for p in able), default=None)
    return None if best is None else best[-1]


def _fill(positions: Sequence[int], rooms: Mapping[int, int], stages: int) -> Positions:
    """The fullest nodes first, each to its last stage."""
    taken: list[int] = []
    for position in positions:
        taken += [position] * min(rooms[position], stages - len(taken))
        if len(taken) == stages:
            break
    return tuple(sorted(taken))


class _Merit:
    """Weighs nodes for one group, the lower the better: whole nodes broken, replicas of the owner already
    there, accelerators left over, and at last the name.
    """

    def __init__(self, ledger: Ledger, group: Group) -> None:
        self._free = ledger.loads.free
        self._nodes = ledger.topology.nodes
        self._accelerator = group.accelerator
        self._of: Sequence[str | None] = ()
        if group.spread_across is not None:
            self._of = ledger.topology.partition(ledger.policy.path(group.spread_across)).of
            self._counts = ledger.spread.counts(group.owner, group.spread_across)

    def of_node(self, position: int) -> tuple[bool, int, int, int]:
        """The merit of one node."""
        free = self._free(position, self._accelerator)
        whole = free == self._nodes[position].allocatable.get(self._accelerator, 0)
        return whole, self._counts[self._of[position]] if self._of else 0, free, position

    def of_domain(self, chosen: Positions, able: Sequence[int]) -> tuple[int, int, int, Positions]:
        """The merit of these nodes, of all that are able in their domain."""
        each = [self.of_node(position) for position in set(chosen)]
        left = sum(self._free(position, self._accelerator) for position in able)
        return sum(whole for whole, *_ in each), sum(crowd for _, crowd, *_ in each), left, chosen
