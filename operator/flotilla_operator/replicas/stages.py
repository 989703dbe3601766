"""Decides the next step of a set: all stages in their order, from values to values.

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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from flotilla_operator.autoscaling.from_zero import ZeroDecision
from flotilla_operator.placement import Refusal
from flotilla_operator.replicas.asking import Asking, ask_for_nodes
from flotilla_operator.replicas.demand import (
    Demand,
    Waiting,
    demand_of,
    judged_groups,
    without_move,
)
from flotilla_operator.replicas.facts import RouterLoad, SetFacts
from flotilla_operator.replicas.group import GroupIdentity, ReplicaGroup
from flotilla_operator.replicas.intent import IntendedSet, in_force
from flotilla_operator.replicas.leaving.budget import pods_to_keep
from flotilla_operator.replicas.leaving.departures import Departure, departures
from flotilla_operator.replicas.leaving.draining import RouterSeen
from flotilla_operator.replicas.leaving.endings import ended_groups, released_groups, without_the_unfit
from flotilla_operator.replicas.moves import RebalancePhase
from flotilla_operator.replicas.outlook import Outlook
from flotilla_operator.replicas.provisioning import Placeholder
from flotilla_operator.replicas.rebalancing import Rebalancing, rebalancing
from flotilla_operator.replicas.revisions.revision import judged_revision
from flotilla_operator.replicas.revisions.rollout import Rollout
from flotilla_operator.replicas.rounds import Asked, Asks, Room, Round, asked_by, room_for
from flotilla_operator.replicas.scale import scale
from flotilla_operator.replicas.sizing import Sizing, sized
from flotilla_operator.replicas.start import start
from flotilla_operator.replicas.surroundings import Surroundings
from flotilla_runtime import contract


@dataclass(frozen=True, slots=True, kw_only=True)
class SetSeen:
    """Input of a set's next step.

    `asks` is what all sets ask for; `last_round` says where their groups went last. `scaled` is the last
    decision of autoscaling. `model_facts` holds what pods report of the model, by revision. `hold_devices`
    names the group of the current move while its devices are not given back. `lacks` says that something that
    the spec names is missing.
    """

    facts: SetFacts
    around: Surroundings
    asks: Asks = field(default_factory=Asks)
    last_round: Round | None = None
    load: RouterLoad = field(default_factory=RouterLoad)
    scaled: ZeroDecision | None = None
    routers: Sequence[RouterSeen] = ()
    placeholders: Sequence[Placeholder] = ()
    model_facts: Mapping[str, contract.ModelFacts] = field(default_factory=dict)
    hold_devices: frozenset[str] = frozenset()
    lacks: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Next step of a set.

    `me` is the set as it is in force. `started` groups get their pods, `waiting` ones keep waiting. `ended`
    groups lose theirs. `rebalancing` is None while the set is paused.
    """

    me: IntendedSet
    demand: Demand
    rollout: Rollout
    scaling: ZeroDecision | None = None
    sizing: Sizing = field(default_factory=Sizing)
    ended: tuple[ReplicaGroup, ...] = ()
    room: Room = field(default_factory=Room)
    started: tuple[GroupIdentity, ...] = ()
    waiting: tuple[Waiting, ...] = ()
    asking: Asking | None = None
    departures: tuple[Departure, ...] = ()
    pods_to_keep: int = 0
    rebalancing: Rebalancing | None = None

    @property
    def refusal(self) -> Refusal | None:
        """Why the first of the waiting groups does not fit."""
        if self.room.placement is None or not self.waiting:
            return None
        return self.room.placement.refusal_of(self.me.full_name, self.waiting[0].name)


@dataclass(frozen=True, slots=True, kw_only=True)
class _InForce:
    """A set as it is in force, its judged groups, and what is known of the model's size."""

    me: IntendedSet
    groups: tuple[ReplicaGroup, ...]
    scaling: ZeroDecision | None
    sizing: Sizing
    lacks: bool


def next_step(seen: SetSeen, now: datetime) -> Step | None:
    """The next step of a set; None for one that is being deleted.

    Each stage runs once. Only where a move is called off, room is looked for again, without it.
    """
    if seen.facts.leaves:
        return None
    held = _in_force(seen, now)
    demand = demand_of(held.me, held.groups, seen.around, now, held.lacks)
    room, outlook = _room(held, seen, demand, now)
    moves = rebalancing(outlook, seen.hold_devices, now)
    if demand.move is not None and moves.after.phase is RebalancePhase.STOPPED:
        room, outlook = _room(held, seen, without_move(demand), now)
    if held.me.spec.paused:
        return _looking_on(held, seen, outlook, now)
    started = start(outlook, now)
    asking = ask_for_nodes(outlook, seen.placeholders, len(started.groups), now)
    names = {group.name for group in started.groups}
    deadline = timedelta(seconds=held.me.spec.drain.deadline_seconds)
    demand = outlook.demand
    return Step(
        me=held.me,
        scaling=held.scaling,
        sizing=held.sizing,
        demand=demand,
        rollout=judged_revision(outlook, seen.load, asking, now),
        ended=tuple(ended_groups(demand.groups)),
        room=room,
        started=started.groups,
        waiting=tuple(waiting for waiting in demand.waiting if waiting.name not in names),
        asking=asking,
        departures=departures(demand.turnover, seen.routers, deadline, now),
        pods_to_keep=pods_to_keep(outlook, asking, now),
        rebalancing=moves,
    )


def _in_force(seen: SetSeen, now: datetime) -> _InForce:
    """Scale, intent and endings. After a verdict that the model cannot fit, replicas give back their room."""
    scaling = scale(seen.facts, seen.scaled)
    me = in_force(seen.facts, scaling)
    groups = judged_groups(me, seen.around, now, seen.load)
    sizing = sized(me, groups, seen.model_facts.get(me.revision), seen.around)
    if sizing.misfit is not None and me.replicas and not me.spec.paused:
        groups = without_the_unfit(groups, me.revision, me.replicas, sizing.misfit.reason)
    lacks = seen.lacks or sizing.misfit is not None
    return _InForce(me=me, groups=groups, scaling=scaling, sizing=sizing, lacks=lacks)


def _looking_on(held: _InForce, seen: SetSeen, outlook: Outlook, now: datetime) -> Step:
    """A paused set is left alone.

    It still releases half-bound groups and asks for no nodes, because both cost something.
    """
    asking = ask_for_nodes(outlook, seen.placeholders, 0, now)
    return Step(
        me=held.me,
        scaling=held.scaling,
        sizing=held.sizing,
        demand=outlook.demand,
        rollout=judged_revision(outlook, seen.load, asking, now),
        ended=tuple(released_groups(outlook.demand.groups)),
        waiting=outlook.demand.waiting,
        asking=asking,
    )


def _room(held: _InForce, seen: SetSeen, demand: Demand, now: datetime) -> tuple[Room, Outlook]:
    """Where the waiting groups go. A set that lacks something that its spec names asks for nothing."""
    mine = Asked() if held.lacks else asked_by(held.me, demand, seen.around, now)
    room = room_for(held.me.full_name, mine, seen.asks, seen.around, seen.last_round, now)
    return room, Outlook(
        me=held.me, demand=demand, around=seen.around, placement=room.placement, lacks=held.lacks
    )
