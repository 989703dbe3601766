"""Room for a group that fits nowhere, made by moving others that this plan has placed.

Nothing has been written yet, so a move costs nothing, and nobody loses: whoever moves is placed elsewhere or
the attempt is undone. Only groups of one stage without a wish for spread move, since for them one node is as
good as another. The work is bounded, so a crowded cluster costs no more than a fixed number of attempts.
"""

from collections.abc import Iterator
from itertools import islice

from flotilla_operator.placement.choice import choose
from flotilla_operator.placement.groups import Group
from flotilla_operator.placement.ledger import Ledger, Positions

TARGETS = 12  # nodes on which room is tried to be made for one group
ATTEMPTS = 100  # targets tried in one plan
DEPTH = 1  # who must move may make others move, so often


class Repair:
    """Makes room, as long as the plan's attempts last."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._attempts = ATTEMPTS

    def make_room(self, group: Group, depth: int = DEPTH) -> Positions | None:
        """The nodes for the group, others having moved; None, and nothing changed, when that does not
        help.
        """
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
        """The nodes of each domain, every one of the likeliest first for once."""
        ledger = self._ledger
        kind = ledger.kind(group)
        free = ledger.loads.free
        for members in kind.domains.values():
            able = [
                position
                for position in members
                if kind.reasons[position] is None
                and position in kind.empty_rooms
                and ledger.kept_for.get(position, group) is group
            ]
            able.sort(key=lambda p: (-(free(p, group.accelerator) % group.wanted), p))
            for first in islice((p for p in able if self._movable(p, group)), TARGETS):
                yield [first, *(position for position in able if position != first)]

    def _movable(self, position: int, group: Group) -> list[Group]:
        """Who could leave this node, the smallest first."""
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
        return ledger.bound[group.owner, group.name][1]

    def _empty(self, position: int, group: Group) -> list[Group]:
        """Take groups off a node until it has room for a stage more: the smallest that does alone, or the
        largest in turn.
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
