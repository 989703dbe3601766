"""Decides the next step of a set, from what was observed. Pure.

held?     deleted: nothing, the garbage collector removes the children; paused: release groups that were
          never bound, ask for no nodes, and change nothing else
scale     how many replicas autoscaling wants
intent    the spec and the number that are in force
endings   groups with a pod that has ended, a node that is gone, or a pin that failed: all pods are deleted
turnover  too many groups, outdated ones, or nodes to be emptied: the victim drains and is then deleted;
          too few: groups wait
room      groups that fit get their nodes; a move that finds no room any more is called off
start     groups with nodes get their pods; without an accelerator the scheduler chooses the nodes; for
          groups that fit nowhere, placeholders make a node autoscaler bring nodes, if the user asks for it
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from flotilla_operator.capacity import FitReason
from flotilla_operator.controllers.missing import Missing
from flotilla_operator.controllers.model_replica_set.reasons import Reason
from flotilla_operator.controllers.model_replica_set.seen import Observed, Situation
from flotilla_operator.placement import Refusal
from flotilla_operator.replicas.asking import Asking, ask_for_nodes
from flotilla_operator.replicas.demand import (
    Demand,
    Waiting,
    demand_of,
    judged_groups,
    without_move,
)
from flotilla_operator.replicas.group import GroupIdentity, ReplicaGroup
from flotilla_operator.replicas.intent import in_force
from flotilla_operator.replicas.leaving.budget import pods_to_keep
from flotilla_operator.replicas.leaving.departures import Departure, departures
from flotilla_operator.replicas.leaving.endings import ended_groups, released_groups, without_the_unfit
from flotilla_operator.replicas.moves import RebalancePhase
from flotilla_operator.replicas.outlook import Outlook
from flotilla_operator.replicas.rebalancing import Rebalancing, rebalancing
from flotilla_operator.replicas.revisions.revision import judged_revision
from flotilla_operator.replicas.revisions.rollout import Rollout
from flotilla_operator.replicas.rounds import Asked, Room, asked_by, room_for
from flotilla_operator.replicas.scale import scale
from flotilla_operator.replicas.sizing import Misfit, sized
from flotilla_operator.replicas.start import start


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What is wanted of a set now.

    `situation` has the sizes of the model added. `started` groups get their pods, `waiting` ones keep
    waiting. `ended` groups lose theirs. `rebalancing` is None while the set is paused.
    """

    situation: Situation
    demand: Demand
    rollout: Rollout
    ended: tuple[ReplicaGroup, ...] = ()
    room: Room = field(default_factory=Room)
    started: tuple[GroupIdentity, ...] = ()
    waiting: tuple[Waiting, ...] = ()
    asking: Asking | None = None
    departures: tuple[Departure, ...] = ()
    pods_to_keep: int = 0
    rebalancing: Rebalancing | None = None

    @property
    def paused(self) -> bool:
        return self.situation.me.spec.paused

    @property
    def refusal(self) -> Refusal | None:
        """Why the first of the waiting groups does not fit."""
        if self.room.placement is None or not self.waiting:
            return None
        return self.room.placement.refusal_of(self.situation.me.full_name, self.waiting[0].name)


def decide(observed: Observed, now: datetime) -> Decision | None:
    """The next step of a set; None for one that is being deleted.

    Each stage runs once. Only where a move is called off, room is looked for again, without it.
    """
    if observed.facts.leaves:
        return None
    situation, groups = _in_force(observed, now)
    demand = demand_of(situation.me, groups, situation.around, now)
    room, outlook = _room(situation, demand, now)
    moves = rebalancing(outlook, observed.hold_devices, now)
    if demand.move is not None and moves.after.phase is RebalancePhase.STOPPED:
        room, outlook = _room(situation, without_move(demand), now)
    if situation.me.spec.paused:
        return _looking_on(situation, outlook, now)
    started = start(outlook, now)
    asking = ask_for_nodes(outlook, observed.placeholders, len(started.groups), now)
    names = {group.name for group in started.groups}
    deadline = timedelta(seconds=situation.me.spec.drain.deadline_seconds)
    demand = outlook.demand
    return Decision(
        situation=situation,
        demand=demand,
        rollout=judged_revision(outlook, observed.load, asking, now),
        ended=tuple(ended_groups(demand.groups)),
        room=room,
        started=started.groups,
        waiting=tuple(waiting for waiting in demand.waiting if waiting.name not in names),
        asking=asking,
        departures=departures(demand.turnover, observed.routers, deadline, now),
        pods_to_keep=pods_to_keep(outlook, asking, now),
        rebalancing=moves,
    )


def _in_force(observed: Observed, now: datetime) -> tuple[Situation, tuple[ReplicaGroup, ...]]:
    """The set as it is in force, with what is known of the model's size; and its judged groups."""
    scaling = scale(observed.facts, observed.scaled)
    me, around = in_force(observed.facts, scaling), observed.around
    groups = judged_groups(me, around, now, observed.load)
    sizing = sized(me, groups, observed.model_facts.get(me.revision), around)
    missing = observed.missing
    if sizing.misfit is not None:
        verdict = _missing(sizing.misfit)
        missing = (*missing, verdict)
        if me.replicas and not me.spec.paused:
            groups = without_the_unfit(groups, me.revision, me.replicas, verdict.reason)
    return Situation(observed=observed, me=me, missing=missing, scaling=scaling, sizing=sizing), groups


def _missing(misfit: Misfit) -> Missing:
    """A model that does not fit counts as something that a person must correct."""
    divides = misfit.reason is not FitReason.TENSOR_DOES_NOT_DIVIDE_HEADS
    reason = Reason.MODEL_DOES_NOT_FIT if divides else Reason.TENSOR_DOES_NOT_DIVIDE_HEADS
    return Missing(reason=reason, message=misfit.message)


def _looking_on(situation: Situation, outlook: Outlook, now: datetime) -> Decision:
    """A paused set is left alone.

    It still releases half-bound groups and asks for no nodes, because both cost something.
    """
    asking = ask_for_nodes(outlook, situation.observed.placeholders, 0, now)
    return Decision(
        situation=situation,
        demand=outlook.demand,
        rollout=judged_revision(outlook, situation.load, asking, now),
        ended=tuple(released_groups(outlook.demand.groups)),
        waiting=outlook.demand.waiting,
        asking=asking,
    )


def _room(situation: Situation, demand: Demand, now: datetime) -> tuple[Room, Outlook]:
    """Where the waiting groups go. A set that lacks something that its spec names asks for nothing."""
    me, around, seen = situation.me, situation.around, situation.observed
    mine = Asked() if situation.missing else asked_by(me, demand, around, now)
    room = room_for(me.full_name, mine, seen.asks, around, seen.last_round, now)
    lacks = bool(situation.missing)
    return room, Outlook(me=me, demand=demand, around=around, placement=room.placement, lacks=lacks)
