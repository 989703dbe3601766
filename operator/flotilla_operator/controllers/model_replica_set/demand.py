"""What a set asks of placement: the groups it has, the next step of its turnover, and the groups that wait.

The same function serves the set that is planned and its rivals, so every plan sees the same queue: who is
older or more urgent is served first, whichever set is planned first. A group that waits keeps its name and
the time it began to wait in the set's status.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from flotilla_operator.api.annotations import refresh_of
from flotilla_operator.controllers.conditions import parsed_timestamp
from flotilla_operator.controllers.model_replica_set.life import Phase, ReplicaGroup, group_of
from flotilla_operator.controllers.model_replica_set.reasons import EventReason
from flotilla_operator.controllers.model_replica_set.seen import (
    FailedPin,
    RouterLoad,
    SetSeen,
    Surroundings,
)
from flotilla_operator.controllers.model_replica_set.turnover import Goal, Turnover, decide
from flotilla_operator.placement import Group
from flotilla_operator.placement.loads import Loads
from flotilla_operator.placement.manifests import pod_requests, toleration_of
from flotilla_operator.workloads.engine_pod import GroupIdentity, engine_pod
from flotilla_operator.workloads.hashing import stable_hash
from flotilla_operator.workloads.revision import revision_of

LEFT_OUT_FOR = timedelta(minutes=5)
SUFFIX_LENGTH = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A group without pods."""

    name: str
    since: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """A set's groups and what is wanted beside them."""

    revision: str
    groups: tuple[ReplicaGroup, ...]
    turnover: Turnover
    waiting: tuple[Waiting, ...]


def demand_of(
    seen: SetSeen, around: Surroundings, now: datetime, *, load: RouterLoad | None = None
) -> Demand:
    """The set's groups, judged, and the groups it waits for; `load` is known of the set that is planned."""
    node_names = frozenset(around.snapshot.topology.positions)
    groups = tuple(
        _with_surroundings(group_of(pod, node_names=node_names, now=now), seen, around, load)
        for pod in seen.pods
    )
    refresh = " ".join(filter(None, (refresh_of(seen.manifest), seen.key_made_anew)))
    revision = revision_of(seen.spec, refresh=refresh)
    turnover = decide(groups, Goal(wanted=seen.spec.replicas, revision=revision))
    return Demand(
        revision=revision,
        groups=groups,
        turnover=turnover,
        waiting=_waiting(seen, groups, turnover.wanted_new, now),
    )


def _with_surroundings(
    group: ReplicaGroup, seen: SetSeen, around: Surroundings, load: RouterLoad | None
) -> ReplicaGroup:
    """What the routers and the node add to what the pods say."""
    group = replace(group, node_leaves=_leaves(group.node, seen, around))
    if load is None:
        return group
    return replace(
        group,
        in_flight=load.by_group.get(group.name),
        sessions=load.sessions.get(group.name),
        others_on_node=around.claims_on.get(group.node or "", 1) - 1,
    )


def _leaves(node_name: str | None, seen: SetSeen, around: Surroundings) -> bool:
    """Whether a node is to be emptied: cordoned, or with a taint that drives the set's pods away."""
    topology = around.snapshot.topology
    position = topology.positions.get(node_name or "")
    if position is None:
        return False
    node = topology.nodes[position]
    tolerations = [toleration_of(toleration.manifest()) for toleration in seen.spec.placement.tolerations]
    return node.cordoned or any(
        taint.effect == "NoExecute" and not any(toleration.tolerates(taint) for toleration in tolerations)
        for taint in node.taints
    )


def placement_groups(seen: SetSeen, demand: Demand, around: Surroundings, now: datetime) -> list[Group]:
    """The waiting groups as placement takes them; none for a set without an accelerator, or one that is
    held.
    """
    accelerator = seen.spec.accelerator
    if not demand.waiting or accelerator is None or accelerator.resource is None or seen.spec.paused:
        return []
    pod = engine_pod(
        seen.owner,
        seen.spec,
        GroupIdentity(name="any", server_id=0, revision=demand.revision, node=None),
        around.images,
    )["spec"]
    left_out = left_out_nodes(seen, around, now) | _just_released(demand)
    return [
        Group(
            owner=f"{seen.owner.namespace}/{seen.owner.name}",
            name=waiting.name,
            accelerator=accelerator.resource,
            requests=pod_requests(pod),
            waiting_since_seconds=waiting.since.timestamp(),
            priority=seen.priority,
            node_selector=pod.get("nodeSelector") or {},
            tolerations=tuple(toleration_of(t) for t in pod.get("tolerations") or ()),
            products=frozenset(accelerator.products),
            left_out=left_out,
        )
        for waiting in demand.waiting[seen.promised :]
    ]


def left_out_nodes(seen: SetSeen, around: Surroundings, now: datetime) -> frozenset[str]:
    """Nodes where a pin failed: until what they have free changes, five minutes at most."""
    accelerator = seen.spec.accelerator
    if accelerator is None or accelerator.resource is None or not seen.failed_pins:
        return frozenset()
    resource = accelerator.resource
    return frozenset(
        failed.node
        for failed in seen.failed_pins
        if now - failed.at < LEFT_OUT_FOR and free_on(around, failed.node, resource) == failed.free
    )


def _just_released(demand: Demand) -> frozenset[str]:
    """The nodes of pins that fail in this very plan, whose pods still count."""
    return frozenset(
        group.node
        for group in demand.groups
        if group.node is not None
        and group.ending is not None
        and group.ending.reason is EventReason.GROUP_RELEASED
    )


def free_on(around: Surroundings, node: str, resource: str) -> int | None:
    """What a node has free of a resource, None when the node is gone."""
    position = around.snapshot.topology.positions.get(node)
    return None if position is None else Loads(around.snapshot).free(position, resource)


def failed_pins(seen: SetSeen, around: Surroundings, now: datetime) -> tuple[FailedPin, ...]:
    """The pins of this set that have just failed, with what their nodes would have free without them."""
    accelerator = seen.spec.accelerator
    if accelerator is None or accelerator.resource is None:
        return ()
    demand = demand_of(seen, around, now)
    released = [group.node for group in demand.groups if group.node in _just_released(demand)]
    found = []
    for node in sorted(_just_released(demand)):
        free = free_on(around, node, accelerator.resource)
        if free is not None:
            ours = released.count(node) * seen.spec.parallelism.tensor
            found.append(FailedPin(node=node, free=free + ours, at=now))
    return tuple(found)


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
    taken |= {waiting.name for waiting in remembered}
    fresh = []
    for index in range(count - len(remembered)):
        name = _new_name(seen, taken, now, index)
        taken.add(name)
        fresh.append(Waiting(name=name, since=now))
    return (*remembered[:count], *sorted(fresh, key=lambda waiting: waiting.name))


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
