"""Memory of moves in `status.placement`: those of a rebalancing, and nodes asked for in vain."""

from collections.abc import Mapping
from typing import Any

from flotilla_operator.api.model_replica_set import (
    NodeProvisioningStatus,
    PlacementMove,
    RebalanceStatus,
)
from flotilla_operator.api.parts import MESSAGE_LIMIT
from flotilla_operator.controllers.stored_status import stored_part, stored_parts
from flotilla_operator.objects.times import known_time, known_timestamp
from flotilla_operator.replicas.moves import Move, MovePhase, Rebalance, RebalancePhase
from flotilla_operator.replicas.provisioning import Attempts

Json = Mapping[str, Any]


def answered_rebalance(asked: str, placement: Json) -> Rebalance:
    """The answer to the annotation, unless it has another value since."""
    held = stored_part(RebalanceStatus, placement.get("rebalance"))
    if not asked or held is None or held.asked != asked or held.phase not in tuple(RebalancePhase):
        return Rebalance(asked=asked)
    return Rebalance(
        asked=asked,
        phase=RebalancePhase(held.phase),
        message=held.message or "",
        planned_at=known_time(held.planned_time),
        moves=tuple(
            _move(entry)
            for entry in stored_parts(PlacementMove, placement.get("moves"))
            if entry.phase in tuple(MovePhase)
        ),
    )


def rebalance_status(rebalance: Rebalance) -> dict[str, Any]:
    """The fields of `status.placement` about rebalancing."""
    if rebalance.phase is None:
        return {"rebalance": None, "moves": []}
    told = {
        "asked": rebalance.asked,
        "phase": str(rebalance.phase),
        "message": rebalance.message[:MESSAGE_LIMIT] or None,
        "plannedTime": known_timestamp(rebalance.planned_at),
    }
    return {"rebalance": told, "moves": [_move_status(move) for move in rebalance.moves]}


def _move(held: PlacementMove) -> Move:
    return Move(
        group=held.group,
        from_nodes=held.from_nodes,
        to_nodes=held.to_nodes,
        step=held.step,
        gain=held.gain,
        accelerators_restarted=held.accelerators_restarted,
        sessions_lost=held.sessions_lost,
        phase=MovePhase(held.phase),
        drains_first=held.drains_first,
    )


def _move_status(move: Move) -> dict[str, Any]:
    return {
        "group": move.group,
        "fromNodes": list(move.from_nodes),
        "toNodes": list(move.to_nodes),
        "step": move.step,
        "gain": round(move.gain, 4),
        "acceleratorsRestarted": move.accelerators_restarted,
        "sessionsLost": move.sessions_lost,
        "phase": str(move.phase),
        "drainsFirst": move.drains_first,
    }


def attempts_of(held: Json | None) -> Attempts:
    """The times at which nodes were asked for in vain."""
    found = stored_part(NodeProvisioningStatus, held)
    if found is None:
        return Attempts()
    return Attempts(
        timeouts=found.timeouts,
        last_timeout=found.last_timeout or "",
        retry_at=known_time(found.retry_time),
    )


def attempts_status(attempts: Attempts, *, placeholders: int, bound: int) -> dict[str, Any] | None:
    """`status.placement.nodeProvisioning`; None while nothing is or was asked for in vain."""
    if not placeholders and not attempts.timeouts:
        return None
    return {
        "placeholders": placeholders,
        "bound": bound,
        "timeouts": attempts.timeouts,
        "lastTimeout": attempts.last_timeout or None,
        "retryTime": known_timestamp(attempts.retry_at),
    }
