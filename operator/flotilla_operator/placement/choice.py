"""Chooses the nodes of a group among those that have room.

It tries the kinds of domain from best to worst (scopes.py). Within one kind, and between nodes, it prefers in
this order: to break up as few completely free nodes as possible; where the owner has the fewest replicas, if
its replicas are to be spread; to leave the fewest free accelerators over.
"""

from collections.abc import Iterable, Mapping, Sequence

from flotilla_operator.placement.groups import Group
from flotilla_operator.placement.kinds import rooms_in
from flotilla_operator.placement.ledger import Ledger, Positions
from flotilla_operator.placement.scopes import scopes


def choose(ledger: Ledger, group: Group, without: int | None = None) -> Positions | None:
    """A node for each stage, but not the node `without`; None when the group does not fit."""
    allowed = spread_allows(ledger, group)
    able = (p for p in ledger.open_to(group) if p != without and (allowed is None or p in allowed))
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


def spread_allows(ledger: Ledger, group: Group) -> frozenset[int] | None:
    """The nodes where a group may go whose replicas must be spread; None means that any node is allowed.

    These are the nodes of the domains that hold the fewest of the owner's replicas.
    """
    if not group.must_spread or group.spread_across is None:
        return None
    domains = ledger.kind(group).spread_domains
    counts = ledger.replicas(group.owner, group.spread_across)
    fewest = min((counts.get(domain, 0) for domain in domains), default=0)
    return frozenset(
        position
        for domain, members in domains.items()
        if counts.get(domain, 0) == fewest
        for position in members
    )


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
    """The nodes in the best domain that has room for all stages. `rooms` lists the fullest nodes first."""
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
    """Takes the nodes in order, and fills each before the next, until every stage has a node."""
    taken: list[int] = []
    for position in positions:
        taken += [position] * min(rooms[position], stages - len(taken))
        if len(taken) == stages:
            break
    return tuple(sorted(taken))


class _Merit:
    """Ranks nodes for one group; lower is better.

    The rank compares, in this order: how many completely free nodes are broken up, how many replicas of the
    owner are already there, how many accelerators are left over, and the name.
    """

    def __init__(self, ledger: Ledger, group: Group) -> None:
        self._free = ledger.loads.free
        self._nodes = ledger.topology.nodes
        self._accelerator = group.accelerator
        self._of: Sequence[str | None] = ()
        if group.spread_across is not None:
            self._of = ledger.topology.partition(ledger.policy.path(group.spread_across)).of
            self._counts = ledger.replicas(group.owner, group.spread_across)

    def of_node(self, position: int) -> tuple[bool, int, int, int]:
        """The rank of one node."""
        free = self._free(position, self._accelerator)
        whole = free == self._nodes[position].allocatable.get(self._accelerator, 0)
        return whole, self._counts.get(self._of[position], 0) if self._of else 0, free, position

    def of_domain(self, chosen: Positions, able: Sequence[int]) -> tuple[int, int, int, Positions]:
        """The rank of the chosen nodes; `able` are all nodes of their domain with room."""
        each = [self.of_node(position) for position in set(chosen)]
        left = sum(self._free(position, self._accelerator) for position in able)
        return sum(whole for whole, *_ in each), sum(crowd for _, crowd, *_ in each), left, chosen
