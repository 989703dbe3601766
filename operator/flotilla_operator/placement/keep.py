"""Which nodes are kept for a group that has waited too long: enough for the whole of it, those that lack the
least, inside the domain that lacks the least.
"""

from flotilla_operator.placement.groups import Group
from flotilla_operator.placement.ledger import Ledger, rooms_in


def keep_nodes(ledger: Ledger, group: Group) -> bool:
    """Keep nodes for the group; False when no domain has enough of them that nobody older waits for."""
    kind = ledger.kind(group)
    able = {
        position: rooms
        for position, rooms in kind.empty_rooms.items()
        if kind.reasons[position] is None and position not in ledger.kept_for
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
    ledger.kept_for.update(dict.fromkeys(best[1], group))
    return True


def _least_lacking(
    ledger: Ledger, group: Group, positions: list[int], able: dict[int, int]
) -> tuple[int, list[int]]:
    """How many accelerators must come free, and the nodes."""
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
