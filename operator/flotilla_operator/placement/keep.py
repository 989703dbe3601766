"""Reserves nodes for a group that has waited longer than the aging time.

It takes the domain that lacks the fewest accelerators, and in it the nodes that lack the fewest, enough for
every stage of the group.
"""

from flotilla_operator.placement.groups import Group
from flotilla_operator.placement.kinds import rooms_in
from flotilla_operator.placement.ledger import Ledger


def keep_nodes(ledger: Ledger, group: Group) -> bool:
    """Reserve nodes for the group; False when no domain has enough nodes that are not reserved yet."""
    kind = ledger.kind(group)
    able = {
        position: rooms
        for position, rooms in kind.empty_rooms.items()
        if kind.reasons[position] is None and not ledger.is_kept(position)
    }
    best: tuple[int, list[int]] | None = None
    for members in kind.domains.values():
        positions = [position for position in members if position in able]
        if rooms_in(positions, able) < group.stages:
            continue
        found = _least_lacking(ledger, group, positions, able)
        if best is None or found < best:
            best = found
    if best is None:
        return False
    ledger.keep(group, best[1])
    return True


def _least_lacking(
    ledger: Ledger, group: Group, positions: list[int], able: dict[int, int]
) -> tuple[int, list[int]]:
    """How many accelerators must still become free, and on which nodes."""
    free = {position: ledger.loads.free(position, group.accelerator) for position in positions}
    missing, lacking, kept = group.stages, 0, []
    for position in sorted(positions, key=lambda p: (-free[p], p)):
        stages = min(able[position], missing)
        lacking += max(stages * group.wanted - free[position], 0)
        kept.append(position)
        missing -= stages
        if not missing:
            break
    return lacking, kept
