"""Demand of a set on placement: its groups, the next step of its turnover, and the groups that wait.

The same function serves a set and all others, so every reconcile sees the same queue: older and more urgent
groups are served first, whichever set is looked at first. A waiting group keeps its name and the time it
began to wait in the set's status. When more groups wait than the status lists, only the times of the others
are kept. A group that got its pods and is released before they ran goes on waiting with its original time,
which its pods carry.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from flotilla_operator.objects.hashes import stable_hash
from flotilla_operator.placement import Group, Standing
from flotilla_operator.replicas.backoff import Backoff, backoff_of
from flotilla_operator.replicas.facts import FailedPin, RouterLoad
from flotilla_operator.replicas.group import Member, Phase, ReplicaGroup
from flotilla_operator.replicas.intent import IntendedSet
from flotilla_operator.replicas.leaving.endings import ending_of
from flotilla_operator.replicas.leaving.turnover import Goal, Pace, Turnover, decide
from flotilla_operator.replicas.moves import Move
from flotilla_operator.replicas.surroundings import Surroundings
from flotilla_operator.replicas.trouble import slow_setup, slow_start

LEFT_OUT_FOR = timedelta(minutes=5)
SUFFIX_LENGTH = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A group without pods."""

    name: str
    since: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """A set's groups and what is wanted beside them; `move` is the move that is being carried out."""

    revision: str
    groups: tuple[ReplicaGroup, ...]
    turnover: Turnover
    waiting: tuple[Waiting, ...]
    backoff: Backoff | None
    move: Move | None = None
    failed_pins: tuple[FailedPin, ...] = ()


def demand_of(
    seen: IntendedSet,
    groups: tuple[ReplicaGroup, ...],
    around: Surroundings,
    now: datetime,
    lacks: bool = False,
) -> Demand:
    """Return the demand of a set with these judged groups, the groups that it waits for included.

    A set that `lacks` something that its spec names starts no groups, so it replaces none either.
    """
    update = seen.spec.update
    pace = Pace(max_surge=update.max_surge, max_unavailable=update.max_unavailable)
    move = move_under_way(seen, groups)
    if move is not None:
        groups = tuple(replace(group, moved=group.name == move.group) for group in groups)
        if move.drains_first:
            pace = Pace(max_surge=0, max_unavailable=max(1, update.max_unavailable))
    goal = Goal(wanted=seen.replicas, revision=seen.revision, pace=pace, replaces=not lacks)
    turnover = decide(groups, goal)
    return Demand(
        revision=seen.revision,
        groups=groups,
        turnover=turnover,
        waiting=_waiting(seen, groups, turnover.wanted_new, now),
        backoff=backoff_of(seen.memory.backoff, seen.memory.refusal, groups, now),
        move=move,
        failed_pins=failed_pins(seen, groups, around, now),
    )


def without_move(demand: Demand) -> Demand:
    """The same for this once, if its move is called off: nothing begins or is added beside what exists.

    Drains that have begun go on, and groups in place of missing ones go on waiting.
    """
    turnover = demand.turnover
    going_on = tuple(one for one in turnover.removals if one.group.drain_epoch is not None)
    return replace(
        demand,
        groups=tuple(replace(group, moved=False) for group in demand.groups),
        turnover=replace(turnover, surge=0, removals=going_on),
        waiting=demand.waiting[: turnover.create],
        move=None,
    )


def move_under_way(seen: IntendedSet, groups: Sequence[ReplicaGroup]) -> Move | None:
    """The move that is being carried out; none during an update, which comes first."""
    if (move := seen.memory.rebalance.current) is None:
        return None
    revision = seen.revision
    return move if all(group.revision == revision for group in groups) else None


def judged_groups(
    seen: IntendedSet, around: Surroundings, now: datetime, load: RouterLoad | None = None
) -> tuple[ReplicaGroup, ...]:
    """The set's groups, with the reason for each that must end; `load` is not known of other sets."""
    groups = (_slow(group, seen, now) for group in seen.groups)
    ended = (
        replace(group, ending=ending_of(group, around, now, paused=seen.spec.paused)) for group in groups
    )
    told = (_with_surroundings(group, seen, around, load) for group in ended)
    return _with_shared_ids(_spared(group) for group in told)


def _spared(group: ReplicaGroup) -> ReplicaGroup:
    """The group, without an ending because it never ran, if all its pods have nodes and a router uses it."""
    never_ran = group.ending is not None and group.ending.never_ran
    return replace(group, ending=None) if never_ran and group.bound and group.used else group


def _with_shared_ids(groups: Iterable[ReplicaGroup]) -> tuple[ReplicaGroup, ...]:
    """The groups, with those marked whose server id another one has, which is ready or older.

    Routers choose in the same way which of two pods they use. Two groups get one id when a pod that was
    given up as never made appears after all.
    """
    judged = tuple(groups)
    holders: dict[int, str] = {}
    for group in sorted(judged, key=lambda group: (not group.ready, group.created_at, group.name)):
        if group.lives and group.server_id:
            holders.setdefault(group.server_id, group.name)
    return tuple(
        replace(group, shares_id=group.lives and holders.get(group.server_id, group.name) != group.name)
        for group in judged
    )


def _slow(group: ReplicaGroup, seen: IntendedSet, now: datetime) -> ReplicaGroup:
    """The group, with slow set-up or a slow start as its trouble, unless it has worse."""
    if group.trouble is not None or group.phase is not Phase.LOADING:
        return group
    setups = (slow_setup(member.name, member.setup_waits_since, now) for member in group.members)
    setup = next((trouble for trouble in setups if trouble is not None), None)
    start = slow_start(group.leader.engine.loads_since, seen.memory.startup_seconds, now)
    return replace(group, trouble=setup or start)


def _with_surroundings(
    group: ReplicaGroup, seen: IntendedSet, around: Surroundings, load: RouterLoad | None
) -> ReplicaGroup:
    """Add what routers and nodes say to what the pods say."""
    group = replace(group, node_leaves=any(_must_leave(member, around) for member in group.members))
    if load is None:
        return group
    return replace(
        group,
        in_flight=load.by_group.get(group.name),
        sessions=load.sessions.get(group.name),
        used=group.name in load.used,
        others_on_nodes=_others_on_nodes(group, seen, around),
    )


def _others_on_nodes(group: ReplicaGroup, seen: IntendedSet, around: Surroundings) -> int:
    """How many accelerators others hold on its nodes; without an accelerator, the number of others' pods."""
    nodes = set(group.nodes)
    if seen.asks is None:
        return sum(around.claims_on.get(node, 0) for node in nodes) - len(group.nodes)
    ours = seen.spec.parallelism.tensor * len(group.nodes)
    return sum(around.held(node, seen.asks.accelerator) for node in nodes) - ours


def _must_leave(member: Member, around: Surroundings) -> bool:
    """Whether the pod's node is to be emptied: it is cordoned, or has a taint that drives the pod away.

    What the pod itself tolerates counts: the chart may tolerate more or less by now, which replaces no pod.
    """
    if (node := around.node(member.node)) is None:
        return False
    return node.cordoned or any(
        taint.effect == "NoExecute" and not any(one.tolerates(taint) for one in member.tolerations)
        for taint in node.taints
    )


def placement_groups(seen: IntendedSet, demand: Demand, around: Surroundings, now: datetime) -> list[Group]:
    """The waiting groups as placement takes them.

    There are none for a set without an accelerator, and for one that is paused or backs off. During a move,
    the first of them goes to the nodes of the move or nowhere.
    """
    if not demand.waiting or seen.spec.paused:
        return []
    if demand.backoff is not None and demand.backoff.holds(now):
        return []
    asked = group_asked(seen, demand, around, now)
    if asked is None:
        return []
    promised = len(around.promised.get(seen.owner.uid, ()))
    waiting = [
        replace(asked, name=waiting.name, waiting_since_seconds=waiting.since.timestamp())
        for waiting in demand.waiting[promised:]
    ]
    if demand.move is not None and not promised:
        waiting[0] = only_on(waiting[0], demand.move.to_nodes, around)
    return waiting


def only_on(group: Group, nodes: Sequence[str], around: Surroundings) -> Group:
    """The group with all other nodes left out."""
    others = around.snapshot.topology.positions.keys() - set(nodes)
    return replace(group, left_out=group.left_out | others)


def group_asked(seen: IntendedSet, demand: Demand, around: Surroundings, now: datetime) -> Group | None:
    """Return a replica's ask to placement; None without an accelerator."""
    if seen.asks is None:
        return None
    asked: Group = replace(
        seen.asks,
        waiting_since_seconds=now.timestamp(),
        priority=seen.priority,
        left_out=left_out_nodes(seen, around, now) | _just_released(demand.groups),
    )
    return asked


def standing_groups(seen: IntendedSet, demand: Demand) -> list[Standing]:
    """Where the set's replicas are, for spreading."""
    return [
        Standing(owner=seen.full_name, nodes=group.nodes)
        for group in demand.groups
        if group.lives and group.nodes
    ]


def left_out_nodes(seen: IntendedSet, around: Surroundings, now: datetime) -> frozenset[str]:
    """Nodes where a pin failed, left out until what they have free changes, or for five minutes."""
    if seen.asks is None or not seen.failed_pins:
        return frozenset()
    resource = seen.asks.accelerator
    return frozenset(
        failed.node
        for failed in seen.failed_pins
        if abs(now - failed.at) < LEFT_OUT_FOR and around.free(failed.node, resource) == failed.free
    )


def failed_pins(
    seen: IntendedSet, groups: Sequence[ReplicaGroup], around: Surroundings, now: datetime
) -> tuple[FailedPin, ...]:
    """The pins of these judged groups that fail now, and those of the last few minutes.

    A pin is noted with what its node will have free without the group.
    """
    if seen.asks is None:
        return ()
    resource = seen.asks.accelerator
    leaving = [node for group in groups if group.ending and group.ending.failed_nodes for node in group.nodes]
    fresh = []
    for node in sorted(_just_released(groups)):
        free = around.free(node, resource)
        if free is not None:
            ours = leaving.count(node) * seen.spec.parallelism.tensor
            fresh.append(FailedPin(node=node, free=free + ours, at=now))
    renewed = {pin.node for pin in fresh}
    kept = (pin for pin in seen.failed_pins if abs(now - pin.at) < LEFT_OUT_FOR and pin.node not in renewed)
    return (*kept, *fresh)


def _just_released(groups: Sequence[ReplicaGroup]) -> frozenset[str]:
    """The nodes of pins that fail now, whose pods still count."""
    return frozenset(node for group in groups if group.ending for node in group.ending.failed_nodes)


def _waiting(
    seen: IntendedSet, groups: tuple[ReplicaGroup, ...], count: int, now: datetime
) -> tuple[Waiting, ...]:
    taken = {group.name for group in groups}
    remembered = [
        Waiting(name=name, since=listed.since)
        for name, listed in seen.memory.listed.items()
        if listed.phase is Phase.WAITING and name not in taken and listed.since is not None
    ]
    remembered.sort(key=lambda waiting: (waiting.since, waiting.name))
    named = {waiting.name for waiting in remembered}
    taken |= named
    ages = _ages_without_names(seen, groups)
    fresh = []
    for index in range(count - len(remembered)):
        name = _new_name(seen, taken, now, index)
        taken.add(name)
        fresh.append(Waiting(name=name, since=ages[index] if index < len(ages) else now))
    kept = remembered[:count]
    return tuple(sorted([*kept, *fresh], key=lambda one: (one.since, one.name not in named, one.name)))


def _ages_without_names(seen: IntendedSet, groups: Sequence[ReplicaGroup]) -> list[datetime]:
    """Since when the groups wait that need new names, the oldest first."""
    never_ran = [
        group.waiting_since or group.created_at
        for group in groups
        if group.ending is not None and group.ending.never_ran and group.staying
    ]
    return sorted([*never_ran, *seen.memory.more_waiting])


def _new_name(seen: IntendedSet, taken: set[str], now: datetime, index: int) -> str:
    """A name that no group of the set has. It depends on the time, so no recent group had it either."""
    seed: list[Any] = [seen.owner.uid, now.isoformat(), index]
    for attempt in range(1000):
        suffix = stable_hash([*seed, attempt], length=SUFFIX_LENGTH)
        name = f"{seen.owner.name}-{suffix}"
        if name not in taken and not suffix.isdigit():
            return name
    raise RuntimeError(f"no free name for a group of {seen.owner.name} in 1000 attempts")
