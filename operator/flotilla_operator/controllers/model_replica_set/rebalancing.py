"""Shows the moves that would raise the placement score, and carries them out one drained group at a time.

A move begins only while the set is settled. Where there is room for it, the replacement comes first, on the
nodes of the move, and the group drains when it is ready; else the group drains first, as long as another one
serves. When the replacement has no room there any more, or an update begins, the rebalancing stops and says
so: what is under way ends as turnover would end it, and nothing else is moved.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from flotilla_operator.cluster.writes import Event, EventType
from flotilla_operator.controllers.conditions import timestamp
from flotilla_operator.controllers.model_replica_set.demand import (
    Demand,
    group_asked,
    only_on,
    standing_groups,
)
from flotilla_operator.controllers.model_replica_set.life import Phase, ReplicaGroup
from flotilla_operator.controllers.model_replica_set.moves import (
    Mode,
    Move,
    MovePhase,
    Rebalance,
    RebalancePhase,
)
from flotilla_operator.controllers.model_replica_set.news import news_of
from flotilla_operator.controllers.model_replica_set.reasons import EventReason
from flotilla_operator.controllers.model_replica_set.seen import Observed
from flotilla_operator.placement import Claim, Placement, Settled, Snapshot, place, rebalance
from flotilla_operator.placement.manifests import claim_of
from flotilla_operator.workloads.devices import devices_of

MOVES_SHOWN = 64
LOOK_AGAIN_MOVING_SECONDS = 1.0
WAITS = "waits until every replica is ready and no update or scaling is under way"
ASK_ANEW = "change the value of flotilla.dev/rebalance to ask anew"
NEITHER = (
    "flotilla.dev/rebalance is neither show nor apply; set one of them, with :text behind it to ask anew"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebalancing:
    """What to remember, what is news, and when to look again."""

    after: Rebalance
    events: tuple[Event, ...] = ()
    look_again_seconds: float = float("inf")


def rebalancing(
    observed: Observed, demand: Demand, placement: Placement | None, now: datetime
) -> Rebalancing:
    """The next step of what is asked by flotilla.dev/rebalance."""
    before = Rebalance.of(observed.me.manifest)
    if not before.asked or before.answered:
        return Rebalancing(after=before)
    after = _next(before, observed, demand, placement, now)
    return Rebalancing(
        after=after,
        events=tuple(_events(before, after)),
        look_again_seconds=LOOK_AGAIN_MOVING_SECONDS if after.current != before.current else float("inf"),
    )


def _next(
    before: Rebalance, observed: Observed, demand: Demand, placement: Placement | None, now: datetime
) -> Rebalance:
    accelerator = observed.me.spec.accelerator
    if before.mode is None:
        return replace(before, phase=RebalancePhase.REFUSED, message=NEITHER)
    if accelerator is None:
        message = "the scheduler places this set; spec.accelerator.resource makes the operator do it"
        return replace(before, phase=RebalancePhase.REFUSED, message=message)
    if before.phase is RebalancePhase.MOVING:
        return _moving(before, observed, demand, placement, now)
    if not is_settled(observed, demand):
        return replace(before, phase=RebalancePhase.WAITING, message=WAITS)
    planned = _planned(before, observed, demand, now)
    if before.mode is Mode.SHOW:
        return replace(planned, phase=RebalancePhase.SHOWN)
    return _begun(planned, observed, demand, now)


def is_settled(observed: Observed, demand: Demand) -> bool:
    """Whether all that is wanted serves, and nothing comes or goes."""
    turnover, groups = demand.turnover, demand.groups
    under_way = turnover.wanted_new or turnover.removals or turnover.returning or turnover.outdated
    ready = all(group.lives and group.phase is Phase.READY for group in groups)
    held = observed.missing or observed.me.spec.paused
    return ready and len(groups) == observed.me.spec.replicas and not under_way and not held


def _planned(before: Rebalance, observed: Observed, demand: Demand, now: datetime) -> Rebalance:
    """The moves that would raise the score."""
    asked = group_asked(observed.me, demand, observed.around, now)
    if asked is None:
        return before
    settled = [
        Settled(group=replace(asked, name=group.name), nodes=group.nodes, sessions=group.sessions)
        for group in demand.groups
    ]
    snapshot = replace(observed.around.snapshot, standing=standing_groups(observed.me, demand))
    found = rebalance(snapshot, settled, observed.around.policy)
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
    message = f"{_counted(len(shown))} would raise the score from {found.before.value} to {found.after.value}"
    if not shown:
        message = "no move would raise the score"
    return replace(before, moves=shown, message=message, planned_time=timestamp(now))


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
    before: Rebalance, observed: Observed, demand: Demand, placement: Placement | None, now: datetime
) -> Rebalance:
    """A move is being carried out."""
    if (move := before.current) is None:
        return _begun(before, observed, demand, now)
    if demand.move is None:
        return _stopped(before, "an update began")
    group = next((group for group in demand.groups if group.name == move.group), None)
    if group is None and is_settled(observed, demand):
        return _begun(before.with_move(replace(move, phase=MovePhase.DONE)), observed, demand, now)
    leaves = move.group in observed.hold_devices if group is None else not group.lives
    if not leaves and _is_refused(observed, demand, placement):
        return _stopped(
            before, f"{_to(move)} has no room any more for the replica that replaces {move.group}"
        )
    return before


def _is_refused(observed: Observed, demand: Demand, placement: Placement | None) -> bool:
    if placement is None or not demand.waiting:
        return False
    owner = observed.me.owner
    return placement.refusal_of(f"{owner.namespace}/{owner.name}", demand.waiting[0].name) is not None


def _begun(before: Rebalance, observed: Observed, demand: Demand, now: datetime) -> Rebalance:
    """The next move begins, if it still can be carried out; without one, all is done."""
    if (move := before.following) is None:
        message = f"{_counted(before.done)} done" if before.moves else before.message
        return replace(before, phase=RebalancePhase.DONE, message=message)
    group = next((group for group in demand.groups if group.name == move.group), None)
    if group is None or group.nodes != move.from_nodes:
        return _stopped(before, f"{move.group} is not where it was")
    beside = observed.me.spec.update.max_surge > 0
    if beside and _has_room(move, observed, demand, observed.around.snapshot, now):
        return _with(before, replace(move, phase=MovePhase.MOVING))
    if not _has_room(move, observed, demand, _without(group, observed.around.snapshot), now):
        return _stopped(
            before, f"{_to(move)} has no room any more for the replica that replaces {move.group}"
        )
    if len(demand.groups) == 1:
        why = f"{move.group} would have to go before its replacement comes, and no other replica serves"
        return _stopped(before, why)
    return _with(before, replace(move, phase=MovePhase.MOVING, drains_first=True))


def _has_room(move: Move, observed: Observed, demand: Demand, snapshot: Snapshot, now: datetime) -> bool:
    asked = group_asked(observed.me, demand, observed.around, now)
    if asked is None:
        return False
    others = [one for one in standing_groups(observed.me, demand) if one.nodes != move.from_nodes]
    there = only_on(asked, move.to_nodes, observed.around)
    done = place(replace(snapshot, standing=others), [there], observed.around.policy, now.timestamp())
    return bool(done.bindings)


def _without(group: ReplicaGroup, snapshot: Snapshot) -> Snapshot:
    """As if this group were gone. Its devices are claimed one by one and by nobody's name, so what they come
    to is given back.
    """
    claims = list(snapshot.claims)
    for member in group.members:
        pod = dict(member.pod)
        held = claim_of(pod)
        if held in claims:
            claims.remove(held)
        if member.node is not None and (devices := devices_of(pod)):
            returned = {resource: -count for resource, count in devices.items()}
            claims.append(Claim(node=member.node, requests=returned, of_pod=False))
    return replace(snapshot, claims=tuple(claims))


def _with(before: Rebalance, move: Move) -> Rebalance:
    number = before.done + 1
    message = f"move {number} of {len(before.moves)}: {move.group} from {_from(move)} to {_to(move)}"
    return replace(before.with_move(move), phase=RebalancePhase.MOVING, message=message)


def _stopped(before: Rebalance, why: str) -> Rebalance:
    message = f"stopped after {_counted(before.done)}: {why}; {ASK_ANEW}"
    return replace(before, phase=RebalancePhase.STOPPED, message=message)


def _events(before: Rebalance, after: Rebalance) -> list[Event]:
    events = []
    move = after.current
    if move is not None and move != before.current:
        cost = f"{move.accelerators_restarted} accelerators restart"
        if move.sessions_lost is not None:
            cost += f", {move.sessions_lost} sessions lose their replica"
        order = "it drains first" if move.drains_first else "its replacement comes first"
        words = f": from {_from(move)} to {_to(move)}, {order}; {cost}"
        events.append(news_of(move.group, EventReason.GROUP_MOVES, words))
    if after.phase is not before.phase and after.phase is RebalancePhase.DONE:
        events.append(Event(type=EventType.NORMAL, reason=EventReason.REBALANCED, note=after.message))
    if after.phase in (RebalancePhase.STOPPED, RebalancePhase.REFUSED):
        events.append(Event(type=EventType.WARNING, reason=EventReason.REBALANCE_STOPPED, note=after.message))
    return events


def _counted(moves: int) -> str:
    return "1 move" if moves == 1 else f"{moves} moves"


def _from(move: Move) -> str:
    return ", ".join(move.from_nodes)


def _to(move: Move) -> str:
    return ", ".join(move.to_nodes)
