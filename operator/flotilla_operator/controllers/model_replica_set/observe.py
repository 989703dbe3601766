"""Gathers what a plan rests on, from the caches, at one moment."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from flotilla_operator.api.model_replica_set import ModelReplicaSetSpec
from flotilla_operator.cluster.caches import Caches
from flotilla_operator.cluster.resources import (
    MODEL_REPLICA_SETS,
    NODES,
    PODS,
    PRIORITY_CLASSES,
    resource_of,
)
from flotilla_operator.cluster.writes import Manifest
from flotilla_operator.controllers.conditions import conditions_of
from flotilla_operator.controllers.controller import World
from flotilla_operator.controllers.images import images_of
from flotilla_operator.controllers.model_replica_set.backoff import is_refused
from flotilla_operator.controllers.model_replica_set.devices import (
    claim_templates,
    inventories,
    reserved_devices,
)
from flotilla_operator.controllers.model_replica_set.draining import RouterSeen
from flotilla_operator.controllers.model_replica_set.engine_key import engine_key_of
from flotilla_operator.controllers.model_replica_set.life import drain_epoch_of, group_name, pod_is_over
from flotilla_operator.controllers.model_replica_set.memory import Memory, ParsedSet, Promise, parsed
from flotilla_operator.controllers.model_replica_set.moves import Rebalance, nodes_to_reserve
from flotilla_operator.controllers.model_replica_set.priority import priority_of
from flotilla_operator.controllers.model_replica_set.reasons import ConditionType, Reason
from flotilla_operator.controllers.model_replica_set.records import (
    good_revision,
    records_of,
    restored,
    way_back,
)
from flotilla_operator.controllers.model_replica_set.references import missing_references
from flotilla_operator.controllers.model_replica_set.revisions import served_beside
from flotilla_operator.controllers.model_replica_set.router_load import router_load
from flotilla_operator.controllers.model_replica_set.scaling import (
    scaling_of,
    with_replicas,
    zero_signals,
)
from flotilla_operator.controllers.model_replica_set.seen import (
    Observed,
    SetSeen,
    Surroundings,
)
from flotilla_operator.controllers.model_replica_set.trouble import router_trouble
from flotilla_operator.placement import Claim, Policy, Snapshot
from flotilla_operator.placement.devices import Inventory
from flotilla_operator.placement.manifests import FINISHED, pod_requests
from flotilla_operator.telemetry.measurements import Measurements, Target
from flotilla_operator.workloads.devices import devices_of
from flotilla_operator.workloads.engine_pod import stages_of
from flotilla_operator.workloads.labels import Owner
from flotilla_operator.workloads.model_replica_set import router_objects
from flotilla_operator.workloads.placeholder import is_placeholder
from flotilla_operator.workloads.router import routers
from flotilla_runtime import contract

ROUTER_INTERVAL_SECONDS = 5.0
DRAINING_INTERVAL_SECONDS = 1.0


def owner_of(manifest: Manifest) -> Owner:
    """The set as the owner of what it makes."""
    metadata = manifest["metadata"]
    return Owner(
        kind=MODEL_REPLICA_SETS.kind,
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
    )


def engine_pods(caches: Caches, uid: str) -> list[Manifest]:
    """The pods of the set's groups, of all stages."""
    return [
        pod
        for pod in caches.owned(PODS, uid)
        if contract.LABEL_STAGE in (pod["metadata"].get("labels") or {})
    ]


async def observe(manifest: Manifest, world: World, memory: Memory, now: datetime) -> Observed:
    """Everything the plan of this set rests on."""
    me_parsed = parsed(manifest)
    missing = await missing_references(me_parsed, world)
    uid = manifest["metadata"]["uid"]
    key = await engine_key_of(owner_of(manifest), me_parsed.spec, world, memory.keys_asked, now)
    memory.keys_made_anew[uid] = key.made_anew
    # From here on nothing waits, so what is seen of the cluster is of one moment.
    memory.forget_the_gone(world.caches)
    promises = memory.open_promises(uid, world.caches, now)
    others = [
        other
        for other in memory.sets.of(world.caches.listed(MODEL_REPLICA_SETS))
        if other is not None and other.manifest["metadata"]["uid"] != uid
    ]
    stock = inventories(_specs([me_parsed, *others], world.caches, memory), world.caches, memory.devices)
    around = surroundings(world, memory, promises, reserved(others, world.caches), stock)
    router_pods = pods_of_router(world.caches, owner_of(manifest))
    pods = [pod for pod in router_pods if may_have_requests(pod)]
    engines = engine_pods(world.caches, uid)
    often = me_parsed.spec.autoscaling is not None or any(drain_epoch_of(pod) is not None for pod in engines)
    targets = router_targets(pods, often=often)
    load = router_load(targets, world.measurements)
    scaling = scaling_of(manifest, me_parsed.spec, zero_signals(load, engines, now))
    me_parsed = replace(me_parsed, spec=with_replicas(me_parsed.spec, scaling))
    me = _seen(me_parsed, world.caches, memory)
    if (failed := memory.note_failed_pins(me, around, now)) != me.failed_pins:
        me = replace(me, failed_pins=failed)
    rivals = [_seen(other, world.caches, memory) for other in others if _may_wait(other, world.caches)]
    observed = Observed(
        me=me,
        rivals=rivals if me.spec.accelerator is not None else (),
        around=around,
        existing=existing_objects(me, around, world.caches),
        missing=missing,
        load=load,
        scaling=scaling,
        targets=targets,
        engine_key=key,
        placeholders=[pod for pod in world.caches.owned(PODS, uid) if is_placeholder(pod)],
        routers=routers_seen(pods, targets, world.measurements),
        router_trouble=router_trouble(pod for pod in router_pods if not pod_is_over(pod)),
        records=records_of(world.caches, uid),
        served_beside=served_beside(me, world.caches),
    )
    return claim_templates(observed, world.caches)


def reserved(others: Sequence[ParsedSet], caches: Caches) -> list[Claim]:
    """What other sets' moves hold: room for a replica that has no pods yet, as its like have it."""
    claims = []
    for other in others:
        if (move := Rebalance.of(other.manifest).current) is None:
            continue
        pods = engine_pods(caches, other.manifest["metadata"]["uid"])
        names = {group_name(pod) for pod in pods}
        nodes = nodes_to_reserve(move, names, other.spec.replicas) if pods else ()
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
    """The nodes, what is claimed on them, and the operator's own configuration."""
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
        images=images_of(config),
        placeholder_priority_class=config.placeholder_priority_class,
        bind_timeout=timedelta(seconds=config.placement.bind_timeout_seconds),
        promised={uid: len({promise.group_name for promise in held}) for uid, held in promises.items()},
    )


def existing_objects(me: SetSeen, around: Surroundings, caches: Caches) -> Mapping[tuple[str, str], Manifest]:
    """What stands at the names that ours need, by kind and name; ours or not."""
    found: dict[tuple[str, str], Manifest] = {}
    for wanted in router_objects(me.owner, me.spec, around.images, several_stages=True):
        name = wanted["metadata"]["name"]
        live = caches.get(resource_of(wanted), me.owner.namespace, name)
        if live is not None:
            found[wanted["kind"], name] = live
    return found


def _seen(seen: ParsedSet, caches: Caches, memory: Memory) -> SetSeen:
    uid = seen.manifest["metadata"]["uid"]
    found = memory.seen_before(
        SetSeen(
            manifest=seen.manifest,
            owner=owner_of(seen.manifest),
            spec=seen.spec,
            pods=engine_pods(caches, uid),
            priority=priority_of(seen.spec, caches.listed(PRIORITY_CLASSES)),
            failed_pins=memory.failed_pins.get(uid, ()),
            key_made_anew=memory.keys_made_anew.get(uid, ""),
        )
    )
    revision = found.spec_revision
    if good_revision(seen.manifest) in ("", revision):
        return found
    back = way_back(seen.spec, seen.manifest, found.key_made_anew, caches)
    if back is None or back.revision == revision:
        return replace(found, can_go_back=False)
    spec, rolled_back = restored(seen.spec, seen.manifest, revision, caches, back)
    return replace(found, spec=spec, rolled_back=rolled_back)


def _specs(sets: Iterable[ParsedSet], caches: Caches, memory: Memory) -> Iterator[ModelReplicaSetSpec]:
    """What the sets act on: their specs, and the last good one of a set whose newest has failed."""
    for one in sets:
        yield one.spec
        if ((one.manifest.get("status") or {}).get("rollout") or {}).get("failedRevision"):
            yield _seen(one, caches, memory).spec


def _may_wait(seen: ParsedSet, caches: Caches) -> bool:
    """Whether a rival can have a group that waits for an accelerator: most sets are settled and cost
    nothing.
    """
    metadata = seen.manifest["metadata"]
    if seen.spec.accelerator is None or seen.spec.paused or "deletionTimestamp" in metadata:
        return False
    status = seen.manifest.get("status") or {}
    if status.get("observedGeneration") == metadata.get("generation"):
        if _is_invalid(seen.manifest) or is_refused(seen.manifest):
            return False
        if (status.get("groupCounts") or {}).get("waiting"):
            return True
        return len(engine_pods(caches, metadata["uid"])) < seen.spec.replicas * stages_of(seen.spec)
    return True


def _is_invalid(manifest: Manifest) -> bool:
    """Whether a person must change the set before it gets pods; a prefix that is ignored holds none back."""
    judged: dict[str, tuple[str, str]] = {
        c["type"]: (c["status"], c["reason"]) for c in conditions_of(manifest)
    }
    status, reason = judged.get(ConditionType.SPEC_VALID, ("Unknown", ""))
    return status == "False" and reason != Reason.SHARED_PREFIX_IGNORED


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
    """Where each router's agent says how it is; asked often while a drain waits for the answers."""
    return tuple(
        Target(
            key=pod["metadata"]["uid"],
            url=f"http://{_host(pod['status']['podIP'])}:{contract.PORT_ROUTER_AGENT}/v1/status",
            interval_seconds=DRAINING_INTERVAL_SECONDS if often else ROUTER_INTERVAL_SECONDS,
        )
        for pod in pods
    )


def routers_seen(
    pods: Sequence[Manifest], targets: Sequence[Target], measurements: Measurements
) -> tuple[RouterSeen, ...]:
    """Every router with what it said last; one that says nothing is there all the same."""
    return tuple(
        RouterSeen(
            name=pod["metadata"]["name"],
            status=next(iter(measurements.answers([target], contract.RouterStatus)), None),
        )
        for pod, target in zip(pods, targets, strict=True)
    )


def _host(ip: str) -> str:
    return f"[{ip}]" if ":" in ip else ip
