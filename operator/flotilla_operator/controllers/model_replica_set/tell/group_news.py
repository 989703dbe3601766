"""The events about groups: why they start, leave, end and move."""

from collections.abc import Sequence

from flotilla_operator.cluster.writes import Event, EventType
from flotilla_operator.controllers.model_replica_set.reasons import EventReason
from flotilla_operator.controllers.model_replica_set.tell.news import news_of
from flotilla_operator.replicas.group import GroupIdentity, ReplicaGroup
from flotilla_operator.replicas.leaving.departures import Departure
from flotilla_operator.replicas.leaving.draining import Because, Drained, DrainStep
from flotilla_operator.replicas.leaving.turnover import Removal, RemovalReason, Turnover
from flotilla_operator.replicas.moves import Move, RebalancePhase
from flotilla_operator.replicas.rebalancing import Rebalancing

WHY = {
    RemovalReason.SCALED_DOWN: "fewer replicas are wanted",
    RemovalReason.OUTDATED: "its revision is outdated",
    RemovalReason.NODE_LEAVES: "its node is cordoned or tainted",
    RemovalReason.REBALANCED: "the annotation flotilla.dev/rebalance moves it",
    RemovalReason.SERVER_ID_TAKEN: "another replica has its server id, so routers send it no requests",
}


def ending_events(groups: Sequence[ReplicaGroup]) -> list[Event]:
    """The events that say why they ended."""
    return [
        news_of(group.name, ending.reason, f": {ending.message}", is_bad=True)
        for group in groups
        if (ending := group.ending) is not None
    ]


def departure_events(turnover: Turnover, departures: Sequence[Departure]) -> list[Event]:
    """The events about groups that return or take a step."""
    returned = ": it is wanted again, so its drain is cancelled"
    return [
        *(news_of(group.name, EventReason.GROUP_RETURNED, returned) for group in turnover.returning),
        *(_told(one.removal, one.drained) for one in departures if one.drained.step is not DrainStep.WAIT),
    ]


def _told(removal: Removal, judged: Drained) -> Event:
    why = WHY[removal.reason]
    if judged.step is DrainStep.BEGIN:
        return news_of(removal.group.name, EventReason.GROUP_DRAINING, f" drains because {why}")
    in_flight = "1 request" if judged.in_flight == 1 else f"{judged.in_flight} requests"
    proof = {
        Because.NEVER_SERVED: "it never served",
        Because.IDLE: f"no request is left for it in {judged.routers} routers or in its engine",
        Because.DEADLINE_PASSED: "the deadline spec.drain.deadlineSeconds has passed; "
        f"{judged.acknowledged} of {judged.routers} routers acknowledged the drain and report {in_flight} in "
        "flight or queued",
    }[judged.because]
    return news_of(removal.group.name, EventReason.GROUP_REMOVED, f" is deleted because {why}; {proof}")


def started_event(group: GroupIdentity) -> Event:
    """The event about a group that gets its pods."""
    if not group.nodes:
        return news_of(group.name, EventReason.GROUP_CREATED, " is created; the scheduler chooses its node")
    return news_of(group.name, EventReason.GROUP_PLACED, f" is placed on {', '.join(group.nodes)}")


def move_events(moves: Rebalancing | None) -> list[Event]:
    """The events about a step of a rebalancing."""
    if moves is None or moves.before is None:
        return []
    before, after = moves.before, moves.after
    events = []
    move = after.current
    if move is not None and move != before.current:
        cost = _restarted(move.accelerators_restarted)
        if move.sessions_lost is not None:
            cost += f", and {_lost(move.sessions_lost)}"
        order = (
            "it drains before its replacement starts"
            if move.drains_first
            else "its replacement starts before it drains"
        )
        words = f" moves from {_from(move)} to {_to(move)}; {order}; {cost}"
        events.append(news_of(move.group, EventReason.GROUP_MOVES, words))
    if after.phase is not before.phase and after.phase is RebalancePhase.DONE:
        events.append(Event(type=EventType.NORMAL, reason=EventReason.REBALANCED, note=after.message))
    if after.phase in (RebalancePhase.STOPPED, RebalancePhase.REFUSED):
        events.append(Event(type=EventType.WARNING, reason=EventReason.REBALANCE_STOPPED, note=after.message))
    return events


def _restarted(accelerators: int) -> str:
    return "1 accelerator restarts" if accelerators == 1 else f"{accelerators} accelerators restart"


def _lost(sessions: int) -> str:
    return "1 session loses its replica" if sessions == 1 else f"{sessions} sessions lose their replica"


def _from(move: Move) -> str:
    return ", ".join(move.from_nodes)


def _to(move: Move) -> str:
    return ", ".join(move.to_nodes)
