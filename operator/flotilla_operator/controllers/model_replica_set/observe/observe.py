"""Gathers everything that a decision depends on, from the caches and at one moment."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial

from flotilla_operator.api.annotations import refresh_of
from flotilla_operator.api.model_replica_set import ModelReplicaSetSpec
from flotilla_operator.cluster.caches import Caches
from flotilla_operator.controllers.controller import World
from flotilla_operator.controllers.images import images_of
from flotilla_operator.controllers.model_replica_set.observe.devices import (
    device_classes,
    held_devices,
    inventories,
    reserved_devices,
)
from flotilla_operator.controllers.model_replica_set.observe.engine_key import engine_key_of
from flotilla_operator.controllers.model_replica_set.observe.memory import Memory, Promise
from flotilla_operator.controllers.model_replica_set.observe.node_cache import refused_node_caches
from flotilla_operator.controllers.model_replica_set.observe.parsed_sets import ParsedSet, parsed
from flotilla_operator.controllers.model_replica_set.observe.priority import priority_of
from flotilla_operator.controllers.model_replica_set.observe.recorded import (
    recorded,
    recorded_spec,
    records_of,
    served_by_revision,
)
from flotilla_operator.controllers.model_replica_set.observe.references import missing_references
from flotilla_operator.controllers.model_replica_set.observe.router_load import router_load
from flotilla_operator.controllers.model_replica_set.observe.watched_time import Look, WatchedTime
from flotilla_operator.controllers.model_replica_set.remembered.remembered import told_before
from flotilla_operator.controllers.model_replica_set.seen import Observed, Rendering
from flotilla_operator.objects.owners import Owner
from flotilla_operator.objects.resources import (
    MODEL_REPLICA_SETS,
    NODES,
    PODS,
    PRIORITY_CLASSES,
    RESOURCE_CLAIM_TEMPLATES,
    Manifest,
    resource_of,
)
from flotilla_operator.placement import Claim, Policy, Snapshot
from flotilla_operator.placement.devices import Inventory
from flotilla_operator.placement.manifests import FINISHED, pod_requests
from flotilla_operator.replicas.facts import SetFacts
from flotilla_operator.replicas.intent import in_force, wanted_last
from flotilla_operator.replicas.leaving.draining import RouterSeen
from flotilla_operator.replicas.moves import nodes_to_reserve
from flotilla_operator.replicas.rounds import Asked, Asks, asked_by_another, may_ask
from flotilla_operator.replicas.surroundings import Surroundings
from flotilla_operator.telemetry.measurements import Answered, Target
from flotilla_operator.workloads.devices import devices_of
from flotilla_operator.workloads.forms import Marks
from flotilla_operator.workloads.group_pods import group_name, pod_is_over
from flotilla_operator.workloads.images import Images
from flotilla_operator.workloads.model_facts import reported_by_revision
from flotilla_operator.workloads.model_replica_set import router_objects
from flotilla_operator.workloads.placeholder import is_placeholder, placeholder_of
from flotilla_operator.workloads.pod_trouble import router_trouble
from flotilla_operator.workloads.router import routers
from flotilla_runtime import contract

ROUTER_INTERVAL_SECONDS = 5.0
DRAINING_INTERVAL_SECONDS = 1.0


def engine_pods(caches: Caches, uid: str) -> list[Manifest]:
    """The pods of the set's groups, of all stages."""
    return [
        pod
        for pod in caches.owned(PODS, uid)
        if contract.LABEL_STAGE in (pod["metadata"].get("labels") or {})
    ]


def bound_nodes(caches: Caches, uid: str) -> set[str]:
    """The nodes to which the set's pods are bound."""
    return {name for pod in engine_pods(caches, uid) if (name := pod["spec"].get("nodeName"))}


async def observe(manifest: Manifest, world: World, memory: Memory, now: datetime) -> Observed:
    """Everything that a decision about this set depends on."""
    me_parsed = parsed(manifest)
    missing = await missing_references(me_parsed, world, older=_gone_back_to(me_parsed, world.caches))
    uid = manifest["metadata"]["uid"]
    key = await engine_key_of(
        Owner.of(MODEL_REPLICA_SETS.kind, manifest), me_parsed.spec, world, memory.keys_asked, now
    )
    memory.keys_made_anew[uid] = key.made_anew
    await world.absent_nodes.look_for(bound_nodes(world.caches, uid))
    # Nothing is awaited from here on, so everything below is read from the caches at one moment.
    memory.forget_the_gone(world.caches)
    promises = memory.open_promises(uid, world.caches, now)
    others = [
        other
        for other in memory.sets.of(world.caches.listed(MODEL_REPLICA_SETS))
        if other is not None and other.manifest["metadata"]["uid"] != uid
    ]
    images = images_of(world.config)
    look = Look(now=now, steady=world.steady())
    me = steadied(facts_of(me_parsed, world.caches, memory, images), memory.watched, look)
    specs = [me_parsed.spec, *(other.spec for other in others), *memory.good_specs()]
    specs_to_run = (me_parsed.spec, in_force(me).spec)
    refused = refused_node_caches(specs_to_run, world.config.model_cache.node_paths)
    stock = inventories(specs, world.caches, memory.devices)
    around = surroundings(world, memory, promises, reserved(others, world.caches), stock)

    def ask(other: ParsedSet) -> Asked:
        leaves = "deletionTimestamp" in other.manifest["metadata"]
        pods = len(engine_pods(world.caches, other.uid))
        if leaves or not may_ask(other.spec, other.memory, pods):
            return Asked()
        return asked_by_another(in_force(facts_of(other, world.caches, memory, images)), around, now)

    places = me.newest.asks is not None or (me.good is not None and me.good.asks is not None)
    asks = memory.asks.seen_by(me_parsed, others, ask, now) if places else Asks()
    router_pods = pods_of_router(world.caches, me.owner)
    pods = [pod for pod in router_pods if may_have_requests(pod)]
    drains = any(group.drain_epoch is not None for group in me.groups)
    targets = router_targets(pods, often=me_parsed.spec.autoscaling is not None or drains)
    answers = world.measurements.answers(targets, contract.RouterStatus)
    revisions = {group.revision for group in me.groups}
    return Observed(
        manifest=manifest,
        facts=me,
        before=told_before(manifest),
        asks=asks,
        last_round=memory.asks.last_round,
        around=around,
        existing=existing_objects(me, images, world.caches),
        rendering=Rendering(
            images=images, placeholder_priority_class=world.config.placeholder_priority_class
        ),
        pods=engine_pods(world.caches, uid),
        missing=(*missing, *refused),
        load=router_load(answers),
        scaled=world.decisions.last(uid),
        targets=targets,
        engine_key=key,
        placeholders=[placeholder_of(pod) for pod in world.caches.owned(PODS, uid) if is_placeholder(pod)],
        model_facts=reported_by_revision(engine_pods(world.caches, uid)),
        routers=routers_seen(pods, answers),
        router_trouble=router_trouble(pod for pod in router_pods if not pod_is_over(pod)),
        device_classes=device_classes((form.spec for form in (me.newest, me.good) if form), world.caches),
        claim_templates=world.caches.owned(RESOURCE_CLAIM_TEMPLATES, uid),
        hold_devices=held_devices(me, world.caches),
        records=records_of(world.caches, uid),
        served=served_by_revision(me.owner, me_parsed.spec, revisions, world.caches),
    )


def _gone_back_to(me: ParsedSet, caches: Caches) -> ModelReplicaSetSpec | None:
    """The older spec that pods are made from after a revision has failed."""
    rollout, owner = me.memory.rollout, Owner.of(MODEL_REPLICA_SETS.kind, me.manifest)
    return recorded_spec(me.spec, owner, rollout.good, caches) if rollout.failed else None


def steadied(me: SetFacts, watched: WatchedTime, look: Look) -> SetFacts:
    """The set with times that count only what was watched."""
    uid = me.owner.uid
    rollout = watched.rollout(uid, me.memory.rollout, look)
    groups = watched.drained(uid, me.groups, look)
    return replace(me, groups=groups, memory=replace(me.memory, rollout=rollout))


def reserved(others: Sequence[ParsedSet], caches: Caches) -> list[Claim]:
    """The room that moves of other sets reserve for a replica without pods: as much as their pods hold."""
    claims = []
    for other in others:
        if (move := other.memory.rebalance.current) is None:
            continue
        pods = engine_pods(caches, other.manifest["metadata"]["uid"])
        names = {group_name(pod) for pod in pods}
        nodes = nodes_to_reserve(move, names, wanted_last(other.spec, other.memory)) if pods else ()
        held = {**pod_requests(pods[0]["spec"]), **devices_of(pods[0])} if nodes else {}
        claims += [Claim(node=node, requests=held) for node in nodes]
    return claims


def surroundings(
    world: World,
    memory: Memory,
    promises: Mapping[str, Sequence[Promise]],
    reservations: Sequence[Claim],
    stock: Sequence[Inventory],
) -> Surroundings:
    """The nodes, the claims on them, and the operator's own configuration."""
    caches, config = world.caches, world.config
    claims = [claim for claim in memory.claims.of(caches.listed(PODS)) if claim is not None]
    claims += reservations
    claims += [promise.claim for held in promises.values() for promise in held]
    if stock:
        claims += [*reserved_devices(caches), *(claim for inventory in stock for claim in inventory.claims)]
    return Surroundings(
        snapshot=Snapshot(topology=memory.topology_of(caches.listed(NODES), stock), claims=tuple(claims)),
        policy=Policy(
            product_labels=config.labels.gpu_products,
            aging_seconds=config.placement.aging_seconds,
            topology_levels=config.labels.topology_levels,
            interconnect_label=config.labels.interconnect or None,
        ),
        bind_timeout=timedelta(seconds=config.placement.bind_timeout_seconds),
        promised={uid: {promise.group_name for promise in held} for uid, held in promises.items()},
        gone=world.absent_nodes.gone(),
    )


def existing_objects(me: SetFacts, images: Images, caches: Caches) -> Mapping[tuple[str, str], Manifest]:
    """The objects under the names that ours need, by kind and name, whoever owns them."""
    found: dict[tuple[str, str], Manifest] = {}
    for wanted in router_objects(me.owner, me.newest.spec, images, several_stages=True):
        name = wanted["metadata"]["name"]
        live = caches.get(resource_of(wanted), me.owner.namespace, name)
        if live is not None:
            found[wanted["kind"], name] = live
    return found


def facts_of(seen: ParsedSet, caches: Caches, memory: Memory, images: Images) -> SetFacts:
    """Gather the facts of one set."""
    owner = Owner.of(MODEL_REPLICA_SETS.kind, seen.manifest)
    key_made_anew = memory.keys_made_anew.get(owner.uid, "")
    marks = Marks(refresh=refresh_of(seen.manifest), key_made_anew=key_made_anew)
    newest = memory.form_of(owner, seen.spec, marks, images)
    back = recorded(owner, newest, marks, seen.memory.rollout, caches, partial(memory.form_of, images=images))
    return SetFacts(
        owner=owner,
        newest=newest,
        good=back.good,
        newest_failed=back.newest_failed,
        leaves="deletionTimestamp" in seen.manifest["metadata"],
        groups=memory.groups_of(owner.uid, engine_pods(caches, owner.uid)),
        memory=seen.memory,
        priority=priority_of(seen.spec, caches.listed(PRIORITY_CLASSES)),
        failed_pins=memory.failed_pins.get(owner.uid, ()),
        key_made_anew=key_made_anew,
    )


def pods_of_router(caches: Caches, owner: Owner) -> list[Manifest]:
    """The set's router pods."""
    selector = routers(owner).selector
    return [
        pod
        for pod in caches.by_label(PODS, contract.LABEL_OWNER_NAME, owner.name)
        if pod["metadata"]["namespace"] == owner.namespace
        and selector.items() <= (pod["metadata"].get("labels") or {}).items()
    ]


def may_have_requests(pod: Manifest) -> bool:
    """Whether a router pod can have requests in flight: it has an address and is not over."""
    status = pod.get("status") or {}
    return bool(status.get("podIP")) and status.get("phase") not in FINISHED


def router_targets(pods: Sequence[Manifest], *, often: bool = False) -> tuple[Target, ...]:
    """The status address of each router's agent, asked often while a drain waits for the answers."""
    return tuple(
        Target(
            key=pod["metadata"]["uid"],
            url=f"http://{contract.url_host(pod['status']['podIP'])}:{contract.PORT_ROUTER_AGENT}/v1/status",
            interval_seconds=DRAINING_INTERVAL_SECONDS if often else ROUTER_INTERVAL_SECONDS,
        )
        for pod in pods
    )


def routers_seen(
    pods: Sequence[Manifest], answers: Sequence[Answered[contract.RouterStatus] | None]
) -> tuple[RouterSeen, ...]:
    """Every router with its last answer; routers that do not answer are included."""
    return tuple(
        RouterSeen(
            name=pod["metadata"]["name"],
            status=None if answered is None else answered.answer,
        )
        for pod, answered in zip(pods, answers, strict=True)
    )
