"""What is asked by flotilla.dev/rebalance, and how far it is; kept in the set's status.

Each value of the annotation is answered once: the moves that it asks for are planned once, and nothing more
is done until the value changes. `show:` or `apply:` with anything behind it is a new value, so the same can
be asked again. A move begins in the status and is carried out by the next plan, so an operator that was
restarted goes on, and every other set's plan sees the same.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from flotilla_operator.api.annotations import rebalance_of
from flotilla_operator.cluster.writes import Manifest

LONGEST_ASKED = 256  # what the status holds of the annotation
LONGEST_MESSAGE = 1024


class Mode(StrEnum):
    """What is asked."""

    SHOW = "show"
    APPLY = "apply"


class RebalancePhase(StrEnum):
    """How far it is."""

    WAITING = "Waiting"
    SHOWN = "Shown"
    MOVING = "Moving"
    DONE = "Done"
    STOPPED = "Stopped"
    REFUSED = "Refused"


class MovePhase(StrEnum):
    """How far one move is."""

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

    @classmethod
    def of_status(cls, entry: Mapping[str, Any]) -> "Move":
        """As the last plan wrote it."""
        return cls(
            group=entry["group"],
            from_nodes=tuple(entry.get("fromNodes") or ()),
            to_nodes=tuple(entry.get("toNodes") or ()),
            step=entry.get("step", 1),
            gain=entry.get("gain", 0.0),
            accelerators_restarted=entry.get("acceleratorsRestarted", 0),
            sessions_lost=entry.get("sessionsLost"),
            phase=MovePhase(entry["phase"]),
            drains_first=entry.get("drainsFirst", False),
        )

    @property
    def status(self) -> dict[str, Any]:
        """As it stands in the status."""
        return {
            "group": self.group,
            "fromNodes": list(self.from_nodes),
            "toNodes": list(self.to_nodes),
            "step": self.step,
            "gain": round(self.gain, 4),
            "acceleratorsRestarted": self.accelerators_restarted,
            "sessionsLost": self.sessions_lost,
            "phase": str(self.phase),
            "drainsFirst": self.drains_first,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebalance:
    """What has become of one value of the annotation; with `phase` None nothing has yet."""

    asked: str = ""
    phase: RebalancePhase | None = None
    message: str = ""
    planned_time: str | None = None
    moves: tuple[Move, ...] = ()

    @classmethod
    def of(cls, manifest: Manifest) -> "Rebalance":
        """As the last plan wrote it, unless another value has been asked since."""
        asked = rebalance_of(manifest)[:LONGEST_ASKED]
        placement = (manifest.get("status") or {}).get("placement") or {}
        held = placement.get("rebalance") or {}
        if not asked or held.get("asked") != asked:
            return cls(asked=asked)
        return cls(
            asked=asked,
            phase=RebalancePhase(held["phase"]),
            message=held.get("message") or "",
            planned_time=held.get("plannedTime"),
            moves=tuple(Move.of_status(entry) for entry in placement.get("moves") or ()),
        )

    @property
    def mode(self) -> Mode | None:
        """What is asked; None where it is neither."""
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
        """The next one."""
        return next((move for move in self.moves if move.phase is MovePhase.PROPOSED), None)

    @property
    def done(self) -> int:
        """How many are."""
        return sum(move.phase is MovePhase.DONE for move in self.moves)

    @property
    def status(self) -> dict[str, Any]:
        """As it stands in the status of placement."""
        if self.phase is None:
            return {"rebalance": None, "moves": []}
        told = {
            "asked": self.asked,
            "phase": str(self.phase),
            "message": self.message[:LONGEST_MESSAGE] or None,
            "plannedTime": self.planned_time,
        }
        return {"rebalance": told, "moves": [move.status for move in self.moves]}

    def with_move(self, move: Move) -> "Rebalance":
        """The same with this move as it is now."""
        return replace(self, moves=tuple(move if m.group == move.group else m for m in self.moves))


def nodes_to_reserve(move: Move, groups: Collection[str], wanted: int) -> tuple[str, ...]:
    """The nodes of the move that is being carried out, one for each stage, as long as the group that goes
    there has no pods; other sets leave them alone. What a group keeps, it holds itself until it has gone.
    """
    if len(set(groups) - {move.group}) >= wanted:
        return ()
    kept = Counter(move.from_nodes if move.drains_first and move.group in groups else ())
    return tuple(sorted((Counter(move.to_nodes) - kept).elements()))
