"""Request of `flotilla.dev/rebalance` and its progress, as kept in the set's status.

Each value of the annotation is answered once: its moves are planned once, and nothing more is done until the
value changes. `show:` or `apply:` followed by any text is a new value, so the same can be asked again. A move
is first written to the status and carried out by the next reconcile. So a restarted operator goes on with it,
and the plans of other sets see it too.
"""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum


class Mode(StrEnum):
    """Mode that the annotation asks for."""

    SHOW = "show"
    APPLY = "apply"


class RebalancePhase(StrEnum):
    """How far the answer to the annotation has come."""

    WAITING = "Waiting"
    SHOWN = "Shown"
    MOVING = "Moving"
    DONE = "Done"
    STOPPED = "Stopped"
    REFUSED = "Refused"


class MovePhase(StrEnum):
    """How far one move has come."""

    PROPOSED = "Proposed"
    MOVING = "Moving"
    DONE = "Done"


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One group to other nodes."""

    group: str
    from_nodes: tuple[str, ...]
    to_nodes: tuple[str, ...]
    step: int = 1
    gain: float = 0.0
    accelerators_restarted: int = 0
    sessions_lost: int | None = None
    phase: MovePhase = MovePhase.PROPOSED
    drains_first: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebalance:
    """The answer to one value of the annotation. `phase` is None until there is one."""

    asked: str = ""
    phase: RebalancePhase | None = None
    message: str = ""
    planned_at: datetime | None = None
    moves: tuple[Move, ...] = ()

    @property
    def mode(self) -> Mode | None:
        """Mode that is asked for; None when the value is not valid."""
        word = self.asked.partition(":")[0]
        return Mode(word) if word in tuple(Mode) else None

    @property
    def answered(self) -> bool:
        """Whether nothing more is to be done for this value."""
        return self.phase not in (None, RebalancePhase.WAITING, RebalancePhase.MOVING)

    @property
    def current(self) -> Move | None:
        """The move that is being carried out."""
        if self.phase is not RebalancePhase.MOVING:
            return None
        return next((move for move in self.moves if move.phase is MovePhase.MOVING), None)

    @property
    def following(self) -> Move | None:
        """The next move."""
        return next((move for move in self.moves if move.phase is MovePhase.PROPOSED), None)

    @property
    def done(self) -> int:
        """How many moves are done."""
        return sum(move.phase is MovePhase.DONE for move in self.moves)

    def with_move(self, move: Move) -> "Rebalance":
        """The same with this move in place of its earlier state."""
        return replace(self, moves=tuple(move if m.group == move.group else m for m in self.moves))


def nodes_to_reserve(move: Move, groups: Collection[str], wanted: int) -> tuple[str, ...]:
    """The nodes of the current move that other sets must leave free, one for each stage.

    They are reserved as long as the group that goes there has no pods. Where the move keeps a node, the old
    group holds the room itself until it is gone.
    """
    if len(set(groups) - {move.group}) >= wanted:
        return ()
    kept = Counter(move.from_nodes if move.drains_first and move.group in groups else ())
    return tuple(sorted((Counter(move.to_nodes) - kept).elements()))
