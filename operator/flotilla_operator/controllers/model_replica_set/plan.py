"""The story of a set, from what was seen to what is done.

held?     deleted: nothing, its children go with it; paused: look on, release what was never bound, change
          nothing else, ask for no nodes
guards    the engines' NetworkPolicy and disruption budget, and the Service that names stages, which goes when
          the last group of several has gone
endings   groups of which a pod is over, a node is gone, a pin failed: all their pods go
gates     groups that exist whole and have gates still, since an operator ended too early: they are lifted
turnover  too many, outdated, or on a node that leaves: the victim drains and then goes; too few: groups wait
placement the groups that fit get their pods, already pinned, and are let go once they are whole; without an
          accelerator the scheduler chooses
router    services, ConfigMap, Deployment and what guards them, for a router starts faster than an engine; a
          name that is taken is left alone
nodes     for groups that fit nowhere placeholders make a node autoscaler bring some, where the user wishes it
status    what all of this amounts to
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from flotilla_operator.cluster.resources import DEPLOYMENTS, PODS, SERVICES, resource_of
from flotilla_operator.cluster.writes import (
    Apply,
    Create,
    Event,
    EventType,
    JsonPatch,
    Manifest,
    ObjectRef,
    Plan,
    Write,
)
from flotilla_operator.controllers.model_replica_set.applied import applied_objects, names_nobody_asks_for
from flotilla_operator.controllers.model_replica_set.budget import pods_to_keep
from flotilla_operator.controllers.model_replica_set.demand import (
    Demand,
    Waiting,
    demand_of,
    placement_groups,
    standing_groups,
)
from flotilla_operator.controllers.model_replica_set.devices import new_template, old_templates
from flotilla_operator.controllers.model_replica_set.ended import (
    ended_groups,
    ending_deletes,
    ending_events,
    released_groups,
)
from flotilla_operator.controllers.model_replica_set.leaving import steps
from flotilla_operator.controllers.model_replica_set.life import Phase
from flotilla_operator.controllers.model_replica_set.looks import look_again
from flotilla_operator.controllers.model_replica_set.moves import RebalancePhase
from flotilla_operator.controllers.model_replica_set.news import news_of
from flotilla_operator.controllers.model_replica_set.outcome import Outcome, Started, status_and_events
from flotilla_operator.controllers.model_replica_set.placeholders import (
    ask_for_nodes,
    due_seconds,
    placeholder_writes,
)
from flotilla_operator.controllers.model_replica_set.reasons import ConditionType, EventReason
from flotilla_operator.controllers.model_replica_set.rebalancing import Rebalancing, rebalancing
from flotilla_operator.controllers.model_replica_set.revisions import record_revisions, rollout_of
from flotilla_operator.controllers.model_replica_set.rollout import Rollout
from flotilla_operator.controllers.model_replica_set.seen import Observed
from flotilla_operator.controllers.model_replica_set.sizing import given_up, sized
from flotilla_operator.placement import Placement, place
from flotilla_operator.workloads.engine_key import engine_key, engine_key_secret
from flotilla_operator.workloads.engine_pod import GroupIdentity, engine_pods, engines, stages_of
from flotilla_operator.workloads.gate import is_gated, lifting
from flotilla_operator.workloads.labels import Owner


def plan(observed: Observed, now: datetime) -> Plan:
    """The next step of a set."""
    me = observed.me
    if "deletionTimestamp" in me.manifest["metadata"]:
        return Plan()
    observed, demand, placement, moves = _decided(observed, now)
    rollout = rollout_of(observed, demand, placement, now)
    if me.spec.paused:
        return _look_on(observed, demand, rollout, now)
    started, waiting = _start(observed, demand, placement, now)
    asking = ask_for_nodes(observed, demand, placement, len(started), now)
    to_keep = pods_to_keep(observed, demand, placement, asking, now)
    objects, taken = applied_objects(observed, pods_to_keep=to_keep)
    ended = ended_groups(demand.groups)
    leaving = steps(demand.turnover, observed, now)
    outcome = Outcome(
        observed=observed,
        demand=demand,
        rollout=rollout,
        names_taken=taken,
        placement=placement,
        started=started,
        waiting=waiting,
        asking=asking,
        rebalance=moves.after,
    )
    status, events = status_and_events(outcome, now)
    templates = new_template(observed, demand) if started else []
    key = _engine_key(observed)
    needs = _refs([*key, *templates]) | _names(observed)
    writes: list[Write] = [
        *key,
        *templates,
        *_applies([one for one in objects if _is_of_engines(one, me.owner)], _refs(key)),
        *record_revisions(observed, demand, rollout),
        *ending_deletes(ended, observed),
        *leaving.writes,
        *_lifts(demand, now),
        *_pods(started, needs, now),
        *_applies([one for one in objects if not _is_of_engines(one, me.owner)], _refs(key)),
        *placeholder_writes(asking, observed, now),
        *old_templates(observed, demand),
        *names_nobody_asks_for(observed),
    ]
    return Plan(
        writes=writes,
        status=status,
        events=[
            *_key_events(observed),
            *ending_events(ended),
            *(_started_event(one.identity) for one in started),
            *leaving.events,
            *moves.events,
            *events,
        ],
        look_again_seconds=min(
            look_again(observed, demand, started, now),
            leaving.look_again_seconds,
            due_seconds(asking),
            moves.look_again_seconds,
        ),
        rests_on={**_rests_on(started, needs), **leaving.rests_on},
    )


def _decided(observed: Observed, now: datetime) -> tuple[Observed, Demand, Placement | None, Rebalancing]:
    """What is wanted and where it goes; before anything is done, the groups that a verdict on the model is
    against are given up, and a move that finds no room is called off.
    """
    me, around = observed.me, observed.around
    demand = demand_of(me, around, now, load=observed.load)
    observed = sized(observed, demand)
    placement = _placement(observed, demand, now)
    moves = rebalancing(observed, demand, placement, now)
    without = given_up(observed, demand)
    called_off = demand.move is not None and moves.after.phase is RebalancePhase.STOPPED
    if without or called_off:
        demand = demand_of(me, around, now, load=observed.load, moves=not called_off, given_up=without)
        placement = _placement(observed, demand, now)
    return observed, demand, placement, moves


def _look_on(observed: Observed, demand: Demand, rollout: Rollout, now: datetime) -> Plan:
    """A paused set: told of and left alone, but it holds nothing by half and asks for no nodes, for both cost
    something.
    """
    _, taken = applied_objects(observed, pods_to_keep=0)  # nothing is applied
    released = released_groups(demand.groups)
    outcome = Outcome(
        observed=observed, demand=demand, rollout=rollout, names_taken=taken, waiting=demand.waiting
    )
    status, events = status_and_events(outcome, now)
    return Plan(
        writes=[
            *ending_deletes(released, observed),
            *placeholder_writes(ask_for_nodes(observed, demand, None, 0, now), observed, now),
        ],
        status=status,
        events=[*ending_events(released), *events],
        look_again_seconds=look_again(observed, demand, (), now),
    )


def _engine_key(observed: Observed) -> list[Create]:
    """The key first, for both sides of it are started with it."""
    key, owner = observed.engine_key, observed.me.owner
    if key.new is None:
        return []
    return [Create(manifest=engine_key_secret(owner, key.new, made_anew=key.made_anew))]


def _key_events(observed: Observed) -> list[Event]:
    key = observed.engine_key
    if not key.lost:
        return []
    note = (
        f"the Secret {engine_key(observed.me.owner).name} was missing; its key is made anew, and routers and "
        "replicas are replaced; until then calls may be answered with 503"
    )
    return [Event(type=EventType.WARNING, reason=EventReason.ENGINE_KEY_LOST, note=note)]


def _placement(observed: Observed, demand: Demand, now: datetime) -> Placement | None:
    """Where this set's and every rival's waiting groups go; None when this set has none to place."""
    if observed.missing or not (mine := placement_groups(observed.me, demand, observed.around, now)):
        return None
    waiting, standing = list(mine), standing_groups(observed.me, demand)
    for rival in observed.rivals:
        theirs = demand_of(rival, observed.around, now)
        waiting += placement_groups(rival, theirs, observed.around, now)
        standing += standing_groups(rival, theirs)
    snapshot = replace(observed.around.snapshot, standing=standing)
    return place(snapshot, waiting, observed.around.policy, now.timestamp())


def _start(
    observed: Observed, demand: Demand, placement: Placement | None, now: datetime
) -> tuple[tuple[Started, ...], tuple[Waiting, ...]]:
    """The groups that get their pods now, and those that go on waiting."""
    me = observed.me
    if observed.missing or (demand.backoff is not None and demand.backoff.holds(now)):
        return (), demand.waiting
    owner_name = f"{me.owner.namespace}/{me.owner.name}"
    used_ids = {group.server_id for group in demand.groups}
    started: list[Started] = []
    for waiting in demand.waiting:
        nodes: tuple[str, ...] = ()
        if me.spec.accelerator is not None:
            binding = placement.binding_of(owner_name, waiting.name) if placement else None
            if binding is None:
                continue
            nodes = binding.nodes
        server_id = _smallest_free(used_ids)
        used_ids.add(server_id)
        identity = GroupIdentity(
            name=waiting.name,
            server_id=server_id,
            revision=demand.revision,
            nodes=nodes,
            waiting_since=waiting.since,
        )
        pods = engine_pods(me.owner, me.spec, identity, observed.around.images)
        started.append(Started(identity=identity, pods=tuple(pods)))
    names = {one.identity.name for one in started}
    return tuple(started), tuple(w for w in demand.waiting if w.name not in names)


def _smallest_free(used: set[int]) -> int:
    """Routers hash on these, so they stay small, and a group that takes a lost one's place takes its keys
    too.
    """
    return next(candidate for candidate in range(1, len(used) + 2) if candidate not in used)


def _lifts(demand: Demand, now: datetime) -> list[JsonPatch]:
    """The gates of groups that exist whole, where an operator has ended before it lifted them. Those whose
    nodes are not to be had any more have an ending. A group that is to leave keeps its gates: it will never
    serve.
    """
    leaving = {removal.group.name for removal in demand.turnover.removals}
    return [
        JsonPatch(
            ref=PODS.ref(member.pod["metadata"]["namespace"], member.pod_name),
            resource_version=member.pod["metadata"]["resourceVersion"],
            operations=lifting(member.pod, now),
        )
        for group in demand.groups
        if group.phase is Phase.GATED and group.lives and group.whole and group.name not in leaving
        for member in group.members
        if is_gated(member.pod["spec"])
    ]


def _started_event(identity: GroupIdentity) -> Event:
    if not identity.nodes:
        return news_of(identity.name, EventReason.GROUP_CREATED, " is left to the scheduler")
    return news_of(identity.name, EventReason.GROUP_PLACED, f" goes to {', '.join(identity.nodes)}")


def _applies(objects: Sequence[Manifest], key: frozenset[ObjectRef]) -> list[Apply]:
    """Routers that were started with another's key would be refused by the engines."""
    nothing: frozenset[ObjectRef] = frozenset()
    return [Apply(manifest=one, needs=key if one["kind"] == DEPLOYMENTS.kind else nothing) for one in objects]


def _is_of_engines(manifest: Manifest, owner: Owner) -> bool:
    """Whether it has to be there before engine pods are; a router starts faster than they do."""
    return bool(manifest["metadata"]["name"] == engines(owner).name)


def _pods(started: Sequence[Started], needs: frozenset[ObjectRef], now: datetime) -> list[Create | JsonPatch]:
    """Without the template of their devices pods would hold room on their nodes and never be bound; with a
    key of another's the routers would be refused. The last pod of a group may be bound as soon as it exists,
    so it needs the others, and with it the others are let go.
    """
    writes: list[Create | JsonPatch] = []
    for *others, last in (one.pods for one in started):
        all_but_last = needs.union(PODS.ref_to(other) for other in others)
        whole = all_but_last | {PODS.ref_to(last)}
        writes += [
            *(Create(manifest=pod, needs=needs) for pod in others),
            Create(manifest=last, needs=all_but_last),
            *(JsonPatch(ref=PODS.ref_to(p), operations=lifting(p, now), needs=whole) for p in others),
        ]
    return writes


def _rests_on(started: Sequence[Started], needs: frozenset[ObjectRef]) -> dict[str, frozenset[ObjectRef]]:
    """A group is placed when its pods could be written, and all are placed when every pod could."""
    if not started:
        return {}
    created = {one.identity.name: needs.union(PODS.ref_to(pod) for pod in one.pods) for one in started}
    return {**created, ConditionType.PLACED: needs.union(*created.values())}


def _names(observed: Observed) -> frozenset[ObjectRef]:
    """Stages that do not find each other would hold their accelerators for nothing."""
    owner = observed.me.owner
    names = SERVICES.ref(owner.namespace, engines(owner).name)
    return frozenset({names} if stages_of(observed.me.spec) > 1 else ())


def _refs(creates: Sequence[Create]) -> frozenset[ObjectRef]:
    return frozenset(resource_of(one.manifest).ref_to(one.manifest) for one in creates)
