"""Makes room for a group that fits nowhere by moving groups that this same plan has placed.

Nothing has been written yet, so a move costs nothing. No group loses its place: each moved group is placed
elsewhere, or the attempt is undone. Only groups of one stage that are not to be spread are moved, because for
them one node is as good as another. The number of attempts in a plan is fixed, so a crowded cluster does not
cost more time.
"""

from collections.abc import Iterator
from itertools import islice

from flotilla_operator.placement.choice import choose
from flotilla_operator.placement.groups import Group
from flotilla_operator.placement.ledger import Ledger, Positions

TARGETS = 12  # nodes to try for one group
ATTEMPTS = 100  # nodes to try in one plan
DEPTH = 1  # how often a group that must move may make other groups move


class Repair:
    """Makes room until the plan's attempts are used up."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._attempts = ATTEMPTS

    def make_room(self, group: Group, depth: int = DEPTH) -> Positions | None:
        """Move other groups and return the nodes of this group; None, with nothing changed, if that fails."""
        if self._ledger.loads.total(group.accelerator) < group.accelerators:
            return None
        for targets in self._targets(group):
            if self._attempts <= 0:
                return None
            self._attempts -= 1
            mark = self._ledger.mark()
            positions = self._try(group, targets, depth)
            if positions is not None:
                return positions
            self._ledger.undo_to(mark)
        return None

    def _targets(self, group: Group) -> Iterator[list[int]]:
        """For each domain several orders of its nodes, with one of the most promising nodes first in each."""
        ledger = self._ledger
        kind = ledger.kind(group)
        free = ledger.loads.free
        for members in kind.domains.values():
            able = [
                position
                for position in members
                if kind.reasons[position] is None
                and position in kind.empty_rooms
                and not ledger.kept_from(group, position)
            ]
            able.sort(key=lambda p: (-(free(p, group.accelerator) % group.wanted), p))
            for first in islice((p for p in able if self._movable(p, group)), TARGETS):
                yield [first, *(position for position in able if position != first)]

    def _movable(self, position: int, group: Group) -> list[Group]:
        """The groups that could leave this node, the smallest first."""
        there = [
            other
            for other in self._ledger.bound_at(position)
            if other is not group
            and other.stages == 1
            and other.spread_across is None
            and other.accelerator == group.accelerator
        ]
        return sorted(there, key=lambda other: (other.wanted, other.owner, other.name))

    def _try(self, group: Group, targets: list[int], depth: int) -> Positions | None:
        ledger = self._ledger
        moved: list[Group] = []
        positions = None
        for position in targets[: group.stages]:
            moved += self._empty(position, group)
            if (positions := choose(ledger, group)) is not None:
                break
        if positions is None:
            return None
        ledger.take(group, positions)
        for other in sorted(moved, key=lambda other: (-other.wanted, other.owner, other.name)):
            elsewhere = choose(ledger, other)
            if elsewhere is not None:
                ledger.take(other, elsewhere)
            elif depth == 0 or self.make_room(other, depth - 1) is None:
                return None
        return ledger.positions_of(group)

    def _empty(self, position: int, group: Group) -> list[Group]:
        """Take groups off a node until it has room for one more stage.

        Each time it takes the smallest group that makes enough room alone, or else the largest.
        """
        loads, moved = self._ledger.loads, []
        needed = loads.room(position, group.requests) + 1
        movable = self._movable(position, group)
        while movable and loads.room(position, group.requests) < needed:
            lack = group.wanted * needed - loads.free(position, group.accelerator)
            leaving = next((other for other in movable if other.wanted >= lack), movable[-1])
            movable.remove(leaving)
            self._ledger.give_back(leaving)
            moved.append(leaving)
        return moved
