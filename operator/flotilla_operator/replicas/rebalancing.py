"""Shows the moves that would raise the placement score, and carries them out one drained group at a time.

A move begins only while the set is settled. Where there is room, the replacement is created first, on the
nodes of the move, and the group drains when the replacement is ready. Otherwise the group drains first, if
another group serves. When the replacement finds no room there any more, or an update begins, the rebalancing
stops and says so. What has already begun then ends as turnover would end it, and nothing else is moved.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from flotilla_operator.placement import Claim, Settled, Snapshot, place, rebalance
from flotilla_operator.replicas.demand import group_asked, only_on, standing_groups
from flotilla_operator.replicas.group import ReplicaGroup
from flotilla_operator.replicas.moves import Mode, Move, MovePhase, Rebalance, RebalancePhase
from flotilla_operator.replicas.outlook import Outlook

MOVES_SHOWN = 64
LOOK_AGAIN_MOVING_SECONDS = 1.0
WAITS = "waiting until every replica is ready and no update or scaling is in progress"
ASK_ANEW = "change the value of the annotation flotilla.dev/rebalance to try again"
NEITHER = (
    "the annotation flotilla.dev/rebalance must be show or apply; to ask the same again, add a colon and any "
    "new text, as in show:2"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebalancing:
    """State after this step, the state before it, and the time of the next look.

    `before` is None where nothing is asked for.
    """

    after: Rebalance
    before: Rebalance | None = None
    look_again_seconds: float = float("inf")


def rebalancing(outlook: Outlook, holding_devices: Collection[str], now: datetime) -> Rebalancing:
    """The next step of what `flotilla.dev/rebalance` asks for.

    `holding_devices` names the group of the current move while its devices are not given back.
    """
    before = outlook.me.memory.rebalance
    if not before.asked or before.answered:
        return Rebalancing(after=before)
    after = _next(before, outlook, holding_devices, now)
    return Rebalancing(
        after=after,
        before=before,
        look_again_seconds=LOOK_AGAIN_MOVING_SECONDS if after.current != before.current else float("inf"),
    )


def _next(before: Rebalance, outlook: Outlook, holding_devices: Collection[str], now: datetime) -> Rebalance:
    accelerator = outlook.me.spec.accelerator
    if before.mode is None:
        return replace(before, phase=RebalancePhase.REFUSED, message=NEITHER)
    if accelerator is None:
        message = "the scheduler places these replicas; set spec.accelerator to let the operator place them"
        return replace(before, phase=RebalancePhase.REFUSED, message=message)
    if before.phase is RebalancePhase.MOVING:
        return _moving(before, outlook, holding_devices, now)
    if not outlook.is_settled:
        return replace(before, phase=RebalancePhase.WAITING, message=WAITS)
    planned = _planned(before, outlook, now)
    if before.mode is Mode.SHOW:
        return replace(planned, phase=RebalancePhase.SHOWN)
    return _begun(planned, outlook, now)


def _planned(before: Rebalance, outlook: Outlook, now: datetime) -> Rebalance:
    """Plan the moves that would raise the score."""
    me, demand, around = outlook.me, outlook.demand, outlook.around
    asked = group_asked(me, demand, around, now)
    if asked is None:
        return before
    settled = [
        Settled(group=replace(asked, name=group.name), nodes=group.nodes, sessions=group.sessions)
        for group in demand.groups
    ]
    snapshot = replace(around.snapshot, standing=standing_groups(me, demand))
    found = rebalance(snapshot, settled, around.policy)
    moves = [
        Move(
            group=move.group.name,
            from_nodes=move.from_nodes,
            to_nodes=move.to_nodes,
            step=move.step,
            gain=move.gain,
            accelerators_restarted=move.accelerators_restarted,
            sessions_lost=move.sessions_lost,
        )
        for move in found.moves
    ]
    shown = _each_group_once(moves)
    scores = f"from {found.before.value} to {found.after.value}"
    message = f"{_counted(len(shown))} would raise the placement score {scores}"
    if not shown:
        message = "no move would raise the placement score"
    return replace(before, moves=shown, message=message, planned_at=now)


def _each_group_once(moves: Sequence[Move]) -> tuple[Move, ...]:
    """Whole steps, up to the first that moves a group again or does not fit in the status."""
    kept: list[Move] = []
    for step in dict.fromkeys(move.step for move in moves):
        of_step = [move for move in moves if move.step == step]
        names = {move.group for move in kept}
        if any(move.group in names for move in of_step) or len(kept) + len(of_step) > MOVES_SHOWN:
            break
        kept += of_step
    return tuple(kept)


def _moving(
    before: Rebalance, outlook: Outlook, holding_devices: Collection[str], now: datetime
) -> Rebalance:
    """The next step while a move is being carried out."""
    if (move := before.current) is None:
        return _begun(before, outlook, now)
    if outlook.demand.move is None:
        return _stopped(before, "an update has begun")
    group = next((group for group in outlook.demand.groups if group.name == move.group), None)
    if group is None and outlook.is_settled:
        return _begun(before.with_move(replace(move, phase=MovePhase.DONE)), outlook, now)
    leaves = move.group in holding_devices if group is None else not group.lives
    if not leaves and _is_refused(outlook):
        return _stopped(before, _no_room(move))
    return before


def _is_refused(outlook: Outlook) -> bool:
    waiting, placement = outlook.demand.waiting, outlook.placement
    if placement is None or not waiting:
        return False
    return placement.refusal_of(outlook.me.full_name, waiting[0].name) is not None


def _begun(before: Rebalance, outlook: Outlook, now: datetime) -> Rebalance:
    """Begin the next move if it is still possible; without one, everything is done."""
    if (move := before.following) is None:
        message = f"{_counted(before.done)} done" if before.moves else before.message
        return replace(before, phase=RebalancePhase.DONE, message=message)
    groups, snapshot = outlook.demand.groups, outlook.around.snapshot
    group = next((group for group in groups if group.name == move.group), None)
    if group is None or group.nodes != move.from_nodes:
        return _stopped(before, f"{move.group} is no longer on {_from(move)}")
    beside = outlook.me.spec.update.max_surge > 0
    if beside and _has_room(move, outlook, snapshot, now):
        return _with(before, replace(move, phase=MovePhase.MOVING))
    if not _has_room(move, outlook, _without(group, snapshot), now):
        return _stopped(before, _no_room(move))
    if len(groups) == 1:
        why = f"{move.group} would have to leave before its replacement starts, and no other replica serves"
        return _stopped(before, why)
    return _with(before, replace(move, phase=MovePhase.MOVING, drains_first=True))


def _has_room(move: Move, outlook: Outlook, snapshot: Snapshot, now: datetime) -> bool:
    me, demand, around = outlook.me, outlook.demand, outlook.around
    asked = group_asked(me, demand, around, now)
    if asked is None:
        return False
    others = [one for one in standing_groups(me, demand) if one.nodes != move.from_nodes]
    there = only_on(asked, move.to_nodes, around)
    done = place(replace(snapshot, standing=others), [there], around.policy, now.timestamp())
    return bool(done.bindings)


def _without(group: ReplicaGroup, snapshot: Snapshot) -> Snapshot:
    """The cluster as if this group were gone.

    Claims of devices do not name a pod, so the number of the group's devices is given back instead.
    """
    claims = list(snapshot.claims)
    for member in group.members:
        if (held := member.claim) in claims and held is not None:
            claims.remove(held)
        if member.node is not None and member.devices:
            returned = {resource: -count for resource, count in member.devices.items()}
            claims.append(Claim(node=member.node, requests=returned, of_pod=False))
    return replace(snapshot, claims=tuple(claims))


def _with(before: Rebalance, move: Move) -> Rebalance:
    number = before.done + 1
    message = f"move {number} of {len(before.moves)}: {move.group} from {_from(move)} to {_to(move)}"
    return replace(before.with_move(move), phase=RebalancePhase.MOVING, message=message)


def _stopped(before: Rebalance, why: str) -> Rebalance:
    message = f"stopped after {_counted(before.done)}: {why}; {ASK_ANEW}"
    return replace(before, phase=RebalancePhase.STOPPED, message=message)


def _no_room(move: Move) -> str:
    return f"{_to(move)} no longer has room for the replacement of {move.group}"


def _counted(moves: int) -> str:
    return "1 move" if moves == 1 else f"{moves} moves"


def _from(move: Move) -> str:
    return ", ".join(move.from_nodes)


def _to(move: Move) -> str:
    return ", ".join(move.to_nodes)
