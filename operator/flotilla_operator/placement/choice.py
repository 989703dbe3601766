"""Which of the nodes that fit a group gets.

The kinds of domain are tried from the best to the worst (scopes.py). Among domains of one kind, and among
nodes, the one is taken that leaves whole nodes whole, then the one with fewer replicas of the owner where it
wishes to be spread, then the one with the least left over.
"""

from collections.abc import Iterable, Mapping, Sequence

from flotilla_operator.placement.groups import Group
from flotilla_operator.placement.ledger import Ledger
from flotilla_operator.placement.scopes import bounds, scopes

Merit = tuple[int, int, int, str]


def choose(ledger: Ledger, group: Group) -> tuple[int, ...] | None:
    """A node for each stage, None when the group does not fit."""
    allowed = spread_allows(ledger, group)
    able = (p for p in ledger.open_to(group) if allowed is None or p in allowed)
    if group.stages == 1:
        return _single(ledger, group, able)
    rooms = {position: ledger.loads.room(position, group.requests) for position in able}
    must = ledger.topology.partition(*bounds(group, ledger.policy))
    if not any(ledger.rooms_in(members, rooms) >= group.stages for members in must.members.values()):
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
    empty = ledger.empty_rooms(group)
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


def _single(ledger: Ledger, group: Group, able: Iterable[int]) -> tuple[int, ...] | None:
    if group.spread_across is None:
        first = next(iter(able), None)
        return None if first is None else (first,)
    crowd = _Crowd(ledger, group)
    best = min(((crowd.merit((position,)), position) for position in able), default=None)
    return None if best is None else (best[1],)


def _in_one_domain(
    ledger: Ledger, group: Group, rooms: Mapping[int, int], of: Sequence[str | None]
) -> tuple[int, ...] | None:
    """Nodes inside the best domain that has room for all stages; `rooms` comes fullest first."""
    by_domain: dict[str, list[int]] = {}
    totals: dict[str, int] = {}
    for position, room in rooms.items():
        if (domain := of[position]) is not None:
            by_domain.setdefault(domain, []).append(position)
            totals[domain] = totals.get(domain, 0) + room
    crowd = _Crowd(ledger, group)
    best: tuple[Merit, tuple[int, ...]] | None = None
    for domain, total in totals.items():
        if total < group.stages:
            continue
        nodes = _fill(by_domain[domain], rooms, group.stages)
        left = sum(ledger.loads.free(position, group.accelerator) for position in by_domain[domain])
        merit = crowd.merit(nodes, left)
        if best is None or (merit, nodes) < best:
            best = (merit, nodes)
    return None if best is None else best[1]


def _fill(positions: Sequence[int], rooms: Mapping[int, int], stages: int) -> tuple[int, ...]:
    """The fullest nodes first, each to its last stage."""
    taken: list[int] = []
    for position in positions:
        taken += [position] * min(rooms[position], stages - len(taken))
        if len(taken) == stages:
            break
    return tuple(sorted(taken))


class _Crowd:
    """Weighs nodes for one group."""

    def __init__(self, ledger: Ledger, group: Group) -> None:
        self._ledger = ledger
        self._accelerator = group.accelerator
        self._of: Sequence[str | None] = ()
        if group.spread_across is not None:
            self._of = ledger.topology.partition(ledger.policy.path(group.spread_across)).of
            self._counts = ledger.spread.counts(group.owner, group.spread_across)

    def merit(self, positions: Sequence[int], left: int | None = None) -> Merit:
        """The lower the better: whole nodes broken, replicas already there, what is left over, the name."""
        loads, nodes = self._ledger.loads, self._ledger.topology.nodes
        free = [(loads.free(p, self._accelerator), p) for p in set(positions)]
        broken = sum(amount == nodes[p].allocatable.get(self._accelerator, 0) for amount, p in free)
        crowd = sum(self._counts[self._of[p]] for p in set(positions)) if self._of else 0
        return (
            broken,
            crowd,
            sum(amount for amount, _ in free) if left is None else left,
            nodes[positions[0]].name,
        )
