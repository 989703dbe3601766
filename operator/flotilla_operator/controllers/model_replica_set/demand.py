"""What a set asks of placement: the groups it has, the next step of its turnover, and the groups that wait.

The same function serves the set that is planned and its rivals, so every plan sees the same queue: who is
older or more urgent is served first, whichever set is planned first. A group that waits keeps its name and
the time it began to wait in the set's status. Of more than the status names the times are kept without names;
and a group that got its pods and is given up before they ran waits on with the time it had, which its pods
carry.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from flotilla_operator.controllers.conditions import parsed_timestamp
from flotilla_operator.controllers.model_replica_set.backoff import Backoff, backoff_of
from flotilla_operator.controllers.model_replica_set.endings import ending_of
from flotilla_operator.controllers.model_replica_set.life import Phase, ReplicaGroup
from flotilla_operator.controllers.model_replica_set.moves import Move, Rebalance
from flotilla_operator.controllers.model_replica_set.seen import (
    FailedPin,
    RouterLoad,
    SetSeen,
    Surroundings,
)
from flotilla_operator.controllers.model_replica_set.trouble import slow_setup, slow_start
from flotilla_operator.controllers.model_replica_set.turnover import Goal, Pace, Turnover, decide
from flotilla_operator.placement import Group, Standing
from flotilla_operator.placement.manifests import pod_requests, toleration_of
from flotilla_operator.workloads.devices import accelerator_resource, device_ask, devices_of
from flotilla_operator.workloads.engine_pod import GroupIdentity, engine_pod, stages_of
from flotilla_operator.workloads.hashing import stable_hash

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


def demand_of(
    seen: SetSeen,
    around: Surroundings,
    now: datetime,
    *,
    load: RouterLoad | None = None,
    moves: bool = True,
    given_up: Mapping[str, str] | None = None,
) -> Demand:
    """The set's groups, judged, and the groups it waits for; `load` is known of the set that is planned.
    Without `moves` a move that is under way counts for nothing; `given_up` says whom a verdict ends, and why.
    """
    groups = judged_groups(seen, around, now, load, given_up)
    revision, update = seen.revision, seen.spec.update
    pace = Pace(max_surge=update.max_surge, max_unavailable=update.max_unavailable)
    move = move_under_way(seen, groups) if moves else None
    if move is not None:
        groups = tuple(replace(group, moved=group.name == move.group) for group in groups)
        if move.drains_first:
            pace = Pace(max_surge=0, max_unavailable=max(1, update.max_unavailable))
    turnover = decide(groups, Goal(wanted=seen.spec.replicas, revision=revision, pace=pace))
    return Demand(
        revision=revision,
        groups=groups,
        turnover=turnover,
        waiting=_waiting(seen, groups, turnover.wanted_new, now),
        backoff=backoff_of(seen.manifest, groups, now),
        move=move,
    )


def move_under_way(seen: SetSeen, groups: Sequence[ReplicaGroup]) -> Move | None:
    """The move that is being carried out; none while an update is, which comes first."""
    if (move := Rebalance.of(seen.manifest).current) is None:
        return None
    revision = seen.revision
    return move if all(group.revision == revision for group in groups) else None


def judged_groups(
    seen: SetSeen,
    around: Surroundings,
    now: datetime,
    load: RouterLoad | None = None,
    given_up: Mapping[str, str] | None = None,
) -> tuple[ReplicaGroup, ...]:
    """The set's groups, and which of them must go."""
    groups = (_slow(group, seen, now) for group in seen.groups)
    ended = (
        replace(group, ending=ending_of(group, around, now, paused=seen.spec.paused, given_up=given_up))
        for group in groups
    )
    return tuple(_with_surroundings(group, seen, around, load) for group in ended)


def _slow(group: ReplicaGroup, seen: SetSeen, now: datetime) -> ReplicaGroup:
    """The group, troubled by pods that are not set up or by its leader's start, where nothing worse is
    known.
    """
    if group.trouble is not None or group.phase is not Phase.LOADING:
        return group
    setups = (slow_setup(member.pod, now) for member in group.members)
    setup = next((trouble for trouble in setups if trouble is not None), None)
    capacity = (seen.manifest.get("status") or {}).get("capacity") or {}
    start = slow_start(group.leader.pod, capacity.get("startupSeconds"), now)
    return replace(group, trouble=setup or start)


def _with_surroundings(
    group: ReplicaGroup, seen: SetSeen, around: Surroundings, load: RouterLoad | None
) -> ReplicaGroup:
    """What the routers and the node add to what the pods say."""
    group = replace(group, node_leaves=any(_leaves(node, seen, around) for node in group.nodes))
    if load is None:
        return group
    return replace(
        group,
        in_flight=load.by_group.get(group.name),
        sessions=load.sessions.get(group.name),
        others_on_nodes=_others_on_nodes(group, seen, around),
    )


def _others_on_nodes(group: ReplicaGroup, seen: SetSeen, around: Surroundings) -> int:
    """The accelerators of its nodes that others hold; without an accelerator, the pods of others there."""
    nodes, resource = set(group.nodes), accelerator_resource(seen.spec)
    if resource is None:
        return sum(around.claims_on.get(node, 0) for node in nodes) - len(group.nodes)
    ours = seen.spec.parallelism.tensor * len(group.nodes)
    return sum(around.held(node, resource) for node in nodes) - ours


def _leaves(node_name: str, seen: SetSeen, around: Surroundings) -> bool:
    """Whether a node is to be emptied: cordoned, or with a taint that drives the set's pods away."""
    if (node := around.node(node_name)) is None:
        return False
    tolerations = [toleration_of(toleration.manifest()) for toleration in seen.spec.placement.tolerations]
    return node.cordoned or any(
        taint.effect == "NoExecute" and not any(toleration.tolerates(taint) for toleration in tolerations)
        for taint in node.taints
    )


def placement_groups(seen: SetSeen, demand: Demand, around: Surroundings, now: datetime) -> list[Group]:
    """The waiting groups as placement takes them; none for a set without an accelerator, or one that is
    held or backs off. While a move is carried out, the first of them goes where the move says or nowhere.
    """
    if not demand.waiting or seen.spec.paused:
        return []
    if demand.backoff is not None and demand.backoff.holds(now):
        return []
    asked = group_asked(seen, demand, around, now)
    if asked is None:
        return []
    promised = around.promised.get(seen.owner.uid, 0)
    waiting = [
        replace(asked, name=waiting.name, waiting_since_seconds=waiting.since.timestamp())
        for waiting in demand.waiting[promised:]
    ]
    if demand.move is not None and not promised:
        waiting[0] = only_on(waiting[0], demand.move.to_nodes, around)
    return waiting


def only_on(group: Group, nodes: Sequence[str], around: Surroundings) -> Group:
    """The group with every other node left out."""
    others = around.snapshot.topology.positions.keys() - set(nodes)
    return replace(group, left_out=group.left_out | others)


def group_asked(seen: SetSeen, demand: Demand, around: Surroundings, now: datetime) -> Group | None:
    """What a replica of the set asks of placement; None without an accelerator."""
    accelerator, placement = seen.spec.accelerator, seen.spec.placement
    resource, ask = accelerator_resource(seen.spec), device_ask(seen.spec)
    if accelerator is None or resource is None:
        return None
    identity = GroupIdentity(name="any", server_id=0, revision=demand.revision)
    manifest = engine_pod(seen.owner, seen.spec, identity, around.images)
    pod = manifest["spec"]
    return Group(
        owner=f"{seen.owner.namespace}/{seen.owner.name}",
        name=identity.name,
        accelerator=resource,
        requests={**pod_requests(pod), **devices_of(manifest)},
        waiting_since_seconds=now.timestamp(),
        stages=stages_of(seen.spec),
        priority=seen.priority,
        node_selector=pod.get("nodeSelector") or {},
        tolerations=tuple(toleration_of(t) for t in pod.get("tolerations") or ()),
        products=frozenset(accelerator.products),
        products_of_devices=ask is not None and bool(ask.attributes),
        left_out=left_out_nodes(seen, around, now) | _just_released(demand.groups),
        pack_within=placement.pack_pipeline_within,
        spread_across=placement.spread_replicas_across,
        required=placement.required,
    )


def standing_groups(seen: SetSeen, demand: Demand) -> list[Standing]:
    """Where the set's replicas are, for those that wish to be spread."""
    owner = f"{seen.owner.namespace}/{seen.owner.name}"
    return [
        Standing(owner=owner, nodes=group.nodes) for group in demand.groups if group.lives and group.nodes
    ]


def left_out_nodes(seen: SetSeen, around: Surroundings, now: datetime) -> frozenset[str]:
    """Nodes where a pin failed: until what they have free changes, five minutes at most."""
    resource = accelerator_resource(seen.spec)
    if resource is None or not seen.failed_pins:
        return frozenset()
    return frozenset(
        failed.node
        for failed in seen.failed_pins
        if now - failed.at < LEFT_OUT_FOR and around.free(failed.node, resource) == failed.free
    )


def failed_pins(seen: SetSeen, around: Surroundings, now: datetime) -> tuple[FailedPin, ...]:
    """The pins of this set that have just failed, with what their nodes would have free without them."""
    if (resource := accelerator_resource(seen.spec)) is None:
        return ()
    groups = judged_groups(seen, around, now)
    leaving = [node for group in groups if group.ending and group.ending.failed_nodes for node in group.nodes]
    found = []
    for node in sorted(_just_released(groups)):
        free = around.free(node, resource)
        if free is not None:
            ours = leaving.count(node) * seen.spec.parallelism.tensor
            found.append(FailedPin(node=node, free=free + ours, at=now))
    return tuple(found)


def _just_released(groups: Sequence[ReplicaGroup]) -> frozenset[str]:
    """The nodes of pins that fail in this very plan, whose pods still count."""
    return frozenset(node for group in groups if group.ending for node in group.ending.failed_nodes)


def _waiting(
    seen: SetSeen, groups: tuple[ReplicaGroup, ...], count: int, now: datetime
) -> tuple[Waiting, ...]:
    taken = {group.name for group in groups}
    remembered = [
        Waiting(name=entry["name"], since=parsed_timestamp(entry["sinceTime"]))
        for entry in (seen.manifest.get("status") or {}).get("groups") or ()
        if entry.get("phase") == Phase.WAITING and entry["name"] not in taken and entry.get("sinceTime")
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


def _ages_without_names(seen: SetSeen, groups: Sequence[ReplicaGroup]) -> list[datetime]:
    """Since when groups wait whose names are new, the oldest first."""
    never_ran = [
        group.waiting_since or group.created_at
        for group in groups
        if group.ending is not None and group.ending.never_ran and group.staying
    ]
    more = (seen.manifest.get("status") or {}).get("moreWaiting") or ()
    not_listed = [parsed_timestamp(entry["sinceTime"]) for entry in more for _ in range(entry["replicas"])]
    return sorted([*never_ran, *not_listed])


def _new_name(seen: SetSeen, taken: set[str], now: datetime, index: int) -> str:
    """A name no group of the set has, and, with the time in it, none had lately: logs of two groups never
    mix.
    """
    seed: list[Any] = [seen.owner.uid, now.isoformat(), index]
    for attempt in range(1000):
        suffix = stable_hash([*seed, attempt], length=SUFFIX_LENGTH)
        name = f"{seen.owner.name}-{suffix}"
        if name not in taken and not suffix.isdigit():
            return name
    raise RuntimeError(f"no free name for a group of {seen.owner.name} in 1000 attempts")
