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

from flotilla_operator.autoscaling.from_zero import ZeroDecision
from flotilla_operator.controllers.model_replica_set.decide.asking import Asking, ask_for_nodes
from flotilla_operator.controllers.model_replica_set.decide.budget import pods_to_keep
from flotilla_operator.controllers.model_replica_set.decide.rebalancing import Rebalancing, rebalancing
from flotilla_operator.controllers.model_replica_set.decide.revisions import rollout_of
from flotilla_operator.controllers.model_replica_set.decide.sizing import sized, unfit
from flotilla_operator.controllers.model_replica_set.seen import Observed, Situation
from flotilla_operator.placement import Placement, Refusal
from flotilla_operator.replicas.demand import (
    Demand,
    Waiting,
    demand_of,
    judged_groups,
    without_move,
)
from flotilla_operator.replicas.departures import Departure, departures
from flotilla_operator.replicas.endings import ended_groups, released_groups, without_the_unfit
from flotilla_operator.replicas.group import ReplicaGroup
from flotilla_operator.replicas.intent import IntendedSet, in_force
from flotilla_operator.replicas.moves import RebalancePhase
from flotilla_operator.replicas.rollout import Rollout
from flotilla_operator.replicas.rounds import Asked, Room, asked_by, room_for
from flotilla_operator.replicas.scale import scale
from flotilla_operator.workloads.engine_pod import GroupIdentity


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
    scaling = scale(observed.facts, observed.scaled)
    me = in_force(observed.facts, scaling)
    situation, groups = _endings(observed, me, scaling, now)
    demand = demand_of(me, groups, observed.around, now)
    room = _room(situation, demand, now)
    moves = rebalancing(situation, demand, room.placement, now)
    if demand.move is not None and moves.after.phase is RebalancePhase.STOPPED:
        demand = without_move(demand)
        room = _room(situation, demand, now)
    placement = room.placement
    rollout = rollout_of(situation, demand, placement, now)
    if me.spec.paused:
        return _looking_on(situation, demand, rollout, now)
    started = _start(situation, demand, placement, now)
    asking = ask_for_nodes(situation, demand, placement, len(started), now)
    names = {group.name for group in started}
    deadline = timedelta(seconds=me.spec.drain.deadline_seconds)
    return Decision(
        situation=situation,
        demand=demand,
        rollout=rollout,
        ended=tuple(ended_groups(demand.groups)),
        room=room,
        started=started,
        waiting=tuple(waiting for waiting in demand.waiting if waiting.name not in names),
        asking=asking,
        departures=departures(demand.turnover, observed.routers, deadline, now),
        pods_to_keep=pods_to_keep(situation, demand, placement, asking, now),
        rebalancing=moves,
    )


def _endings(
    observed: Observed, me: IntendedSet, scaling: ZeroDecision | None, now: datetime
) -> tuple[Situation, tuple[ReplicaGroup, ...]]:
    """The judged groups, and the situation with what is known of the model's size."""
    groups = judged_groups(me, observed.around, now, observed.load)
    unsized = Situation(observed=observed, me=me, missing=observed.missing, scaling=scaling)
    situation = sized(unsized, groups)
    verdict = unfit(situation)
    if verdict is not None and me.replicas and not me.spec.paused:
        groups = without_the_unfit(groups, me.revision, me.replicas, verdict.reason)
    return situation, groups


def _looking_on(situation: Situation, demand: Demand, rollout: Rollout, now: datetime) -> Decision:
    """A paused set is left alone.

    It still releases half-bound groups and asks for no nodes, because both cost something.
    """
    return Decision(
        situation=situation,
        demand=demand,
        rollout=rollout,
        ended=tuple(released_groups(demand.groups)),
        waiting=demand.waiting,
        asking=ask_for_nodes(situation, demand, None, 0, now),
    )


def _room(situation: Situation, demand: Demand, now: datetime) -> Room:
    """Where the waiting groups go. A set that lacks something that its spec names asks for nothing."""
    me, seen = situation.me, situation.observed
    mine = Asked() if situation.missing else asked_by(me, demand, situation.around, now)
    return room_for(me.full_name, mine, seen.asks, situation.around, seen.last_round, now)


def _start(
    situation: Situation, demand: Demand, placement: Placement | None, now: datetime
) -> tuple[GroupIdentity, ...]:
    """The groups that get their pods now."""
    me = situation.me
    if situation.missing or (demand.backoff is not None and demand.backoff.holds(now)):
        return ()
    used_ids = {group.server_id for group in demand.groups}
    started: list[GroupIdentity] = []
    for waiting in demand.waiting:
        nodes: tuple[str, ...] = ()
        if me.asks is not None:
            binding = placement.binding_of(me.full_name, waiting.name) if placement else None
            if binding is None:
                continue
            nodes = binding.nodes
        server_id = _smallest_free(used_ids)
        used_ids.add(server_id)
        started.append(
            GroupIdentity(
                name=waiting.name,
                server_id=server_id,
                revision=demand.revision,
                nodes=nodes,
                waiting_since=waiting.since,
            )
        )
    return tuple(started)


def _smallest_free(used: set[int]) -> int:
    """The smallest free server id. Routers hash on ids, so a replacement gets the keys of the lost group."""
    return next(candidate for candidate in range(1, len(used) + 2) if candidate not in used)
