"""Gathers the facts about a fleet: its references, its objects, the queue's figures. It decides nothing.

The Secrets of a managed Redis are read while Redis is not ready and once per sweep after that, because
secrets are not watched. A Secret of these names that belongs to another object, such as a deleted fleet of
the same name, does not count. The operator then tries again until the name is free, and starts nothing that
needs the password before that.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from flotilla_operator.api.agent_fleet import AgentFleet, AgentFleetSpec
from flotilla_operator.api.fleet_queue import RedisMode
from flotilla_operator.cluster.caches import Caches, controller_uid
from flotilla_operator.controllers.agent_fleet.bindings import LiveBinding, live_binding
from flotilla_operator.controllers.agent_fleet.memory import Memory, PasswordSeen
from flotilla_operator.controllers.agent_fleet.references import References
from flotilla_operator.controllers.agent_fleet.remembered import remembered
from flotilla_operator.controllers.agent_fleet.rollout import RevisionWorkers
from flotilla_operator.controllers.agent_fleet.seen import Observed, RedisSecret
from flotilla_operator.controllers.controller import World
from flotilla_operator.controllers.images import images_of
from flotilla_operator.controllers.live_objects import LiveObject, live_object
from flotilla_operator.controllers.stored_status import without_status
from flotilla_operator.objects.owners import Owner
from flotilla_operator.objects.resources import (
    AGENT_FLEETS,
    CLUSTER_ROLE_BINDINGS,
    CONFIG_MAPS,
    DEPLOYMENTS,
    NAMESPACES,
    NETWORK_POLICIES,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    SERVICES,
    STATEFUL_SETS,
    Manifest,
    Resource,
)
from flotilla_operator.telemetry.measurements import Answered, Target, newest_first
from flotilla_operator.workloads import agent_fleet as workloads
from flotilla_operator.workloads.agent_fleet.worker_pods import WorkerPod, worker_pod
from flotilla_operator.workloads.labels import Child
from flotilla_runtime import contract


def parsed(manifest: Manifest) -> AgentFleetSpec:
    """The spec. The reconcile loop turns a validation error into a condition."""
    return AgentFleet.model_validate(without_status(manifest)).spec


async def observe(manifest: Manifest, world: World, memory: Memory, now: datetime) -> Observed:
    """Everything that a decision about this fleet needs."""
    owner, spec = Owner.of(AGENT_FLEETS.kind, manifest), parsed(manifest)
    wiring, missing = await References(manifest, spec, world).look_up()
    remembered_of_fleet = memory.of(owner.uid)
    secrets_found, redis_digests = await _secrets_found(owner, spec, world, remembered_of_fleet.password, now)
    if len(memory.fleets) > len(world.caches.store(AGENT_FLEETS)):
        memory.keep_only(world.caches.store(AGENT_FLEETS).uids())
    # There is no await below this line, so everything that is read from the caches is from one moment.
    targets = tuple(_targets(owner, world.caches))
    answers = world.measurements.answers(targets, contract.FleetStatus)
    return Observed(
        manifest=manifest,
        owner=owner,
        spec=spec,
        images=images_of(world.config),
        wiring=wiring,
        missing=missing,
        remembered=remembered(manifest),
        memory=remembered_of_fleet,
        figures=figures_of(answers),
        certificate_problem=certificate_problem_of(answers, spec),
        namespace_uid=_namespace_uid(owner, world.caches),
        binding=binding_of(owner.namespace, owner.name, world),
        scaled=world.decisions.last(owner.uid),
        live=_live(owner, world.caches),
        workers=_by_revision(workloads.workers(owner), owner, world.caches),
        executors=_by_revision(workloads.executors(owner), owner, world.caches),
        adopted=_adopted(owner, world.caches),
        secrets_found=secrets_found,
        redis_digests=redis_digests,
        targets=targets,
    )


async def _secrets_found(
    owner: Owner, spec: AgentFleetSpec, world: World, before: PasswordSeen | None, now: datetime
) -> tuple[frozenset[RedisSecret] | None, Mapping[str, str]]:
    """The secrets of the managed Redis that are there, and the hashes of its users' passwords."""
    if spec.queue.redis.mode is not RedisMode.MANAGED:
        return None, {}
    redis = world.caches.get(STATEFUL_SETS, owner.namespace, workloads.redis(owner).name)
    ready = redis is not None and live_object(redis).ready_replicas
    executors = _by_revision(workloads.executors(owner), owner, world.caches)
    needed = RedisSecret.needed(spec, executors_left=bool(executors))
    interval = timedelta(seconds=world.config.loop.sweep_interval_seconds)
    has_user = RedisSecret.EXECUTOR not in needed or knows_executor(redis)
    known = {} if before is None else before.digests
    knows_all = {*workloads.REDIS_USERS} <= known.keys() and (
        RedisSecret.EXECUTOR not in needed or workloads.EXECUTOR_USER in known
    )
    seen = before is not None and not before.missing and now - before.at < interval
    if ready and has_user and knows_all and seen:
        return None, known
    read = {
        secret: found
        for secret in needed
        if (found := await world.own_secret(owner.namespace, secret.name_of(owner), owner.uid)) is not None
    }
    entries = {key: value for secret in read.values() for key, value in secret.data.items()}
    texts = {key: value.decode(errors="replace") for key, value in entries.items()}
    return frozenset(read), workloads.digests_of(texts)


def knows_executor(redis: Manifest | None) -> bool:
    """Whether Redis was started with the executors' user."""
    annotations = {} if redis is None else live_object(redis).template_annotations
    return workloads.EXECUTOR_USER in annotations.get(workloads.ANNOTATION_USERS, "").split(",")


def _live(owner: Owner, caches: Caches) -> dict[tuple[str, str], LiveObject]:
    """The objects that have the names of the fleet's parts, whoever owns them."""
    parts = (
        workloads.redis(owner),
        workloads.gateway(owner),
        workloads.workers(owner),
        workloads.executors(owner),
    )
    resources = (
        DEPLOYMENTS,
        STATEFUL_SETS,
        SERVICES,
        CONFIG_MAPS,
        NETWORK_POLICIES,
        PERSISTENT_VOLUME_CLAIMS,
    )
    return {
        (resource.kind, part.name): live_object(manifest)
        for part in parts
        for resource in resources
        if (manifest := caches.get(resource, owner.namespace, part.name)) is not None
    }


def _namespace_uid(owner: Owner, caches: Caches) -> str | None:
    namespace = caches.get(NAMESPACES, "", owner.namespace)
    return None if namespace is None else str(namespace["metadata"]["uid"])


def binding_of(namespace: str, name: str, world: World) -> LiveBinding | None:
    """Return the object that has the name of the fleet's binding; None in a namespace that is not watched."""
    watched = world.config.watch_namespaces
    if watched and namespace not in watched:
        return None
    role = world.config.gateway.cluster_role
    manifest = world.caches.get(CLUSTER_ROLE_BINDINGS, "", workloads.binding_name(namespace, name, role))
    return None if manifest is None else live_binding(manifest)


def _by_revision(part: Child, owner: Owner, caches: Caches) -> dict[str, RevisionWorkers]:
    """The Deployments of workers, or of executors, that this fleet made, by revision."""
    named = ((one["metadata"]["name"], one) for one in _ours(CONFIG_MAPS, part, owner, caches))
    config_maps = {name: live_object(one) for name, one in named}
    pods = _worker_pods(part, owner, caches)
    found = {}
    for deployment in _ours(DEPLOYMENTS, part, owner, caches):
        revision = _revision(deployment)
        found[revision] = RevisionWorkers(
            revision=revision,
            deployment=live_object(deployment),
            config_map=config_maps.get(deployment["metadata"]["name"]),
            pods=tuple(pod for pod in pods if pod.revision == revision),
        )
    return found


def _adopted(owner: Owner, caches: Caches) -> tuple[str, ...]:
    """The revisions that any workers of the fleet were told to adopt."""
    lists = (
        (config_map.get("data") or {}).get(contract.ADOPTED_FILE)
        for config_map in _ours(CONFIG_MAPS, workloads.workers(owner), owner, caches)
    )
    return tuple(sorted({revision for text in lists if text is not None for revision in _listed(text)}))


def _listed(text: str) -> Iterable[str]:
    """The entries of a list that we wrote; none where somebody has made it unreadable."""
    try:
        found = json.loads(text)
    except ValueError:
        return ()
    return (one for one in found if isinstance(one, str)) if isinstance(found, list) else ()


def _ours(resource: Resource, part: Child, owner: Owner, caches: Caches) -> list[Manifest]:
    return [
        one
        for one in caches.by_label(resource, contract.LABEL_OWNER_NAME, owner.name)
        if one["metadata"].get("namespace") == owner.namespace
        and controller_uid(one) == owner.uid
        and (one["metadata"].get("labels") or {}).get(contract.LABEL_COMPONENT) == part.component
        and "deletionTimestamp" not in one["metadata"]
    ]


def _worker_pods(part: Child, owner: Owner, caches: Caches) -> list[WorkerPod]:
    selector = part.selector
    return [
        worker_pod(pod)
        for pod in caches.by_label(PODS, contract.LABEL_OWNER_NAME, owner.name)
        if pod["metadata"].get("namespace") == owner.namespace
        and selector.items() <= (pod["metadata"].get("labels") or {}).items()
        and "deletionTimestamp" not in pod["metadata"]
    ]


def _revision(deployment: Manifest) -> str:
    revision: str = deployment["metadata"]["labels"].get(contract.LABEL_REVISION, "")
    return revision


def _targets(owner: Owner, caches: Caches) -> Iterable[Target]:
    """The gateway pods. Each one reports the figures of the whole fleet, so one answer is enough."""
    selector = workloads.gateway(owner).selector
    for pod in caches.by_label(PODS, contract.LABEL_OWNER_NAME, owner.name):
        address = (pod.get("status") or {}).get("podIP")
        labels = pod["metadata"].get("labels") or {}
        if (
            pod["metadata"]["namespace"] == owner.namespace
            and address
            and selector.items() <= labels.items()
            and "deletionTimestamp" not in pod["metadata"]
        ):
            url = f"http://{contract.url_host(address)}:{contract.PORT_METRICS}/v1/status"
            yield Target(key=pod["metadata"]["uid"], url=url)


def figures_of(answers: Sequence[Answered[contract.FleetStatus] | None]) -> contract.FleetStatus | None:
    """The newest of the gateways' answers."""
    return next((answered.answer for answered in newest_first(answers)), None)


def certificate_problem_of(
    answers: Sequence[Answered[contract.FleetStatus] | None], spec: AgentFleetSpec
) -> str | None:
    """Return the certificate problem that the newest answer names; each pod loads its files itself."""
    if spec.gateway.tls is None:
        return None
    problems = (answered.answer.certificate_problem for answered in newest_first(answers))
    return next((problem for problem in problems if problem), None)
