"""Gathers the facts about a fleet: its references, its objects, the queue's figures. It decides nothing.

The Secret of a managed Redis is read while Redis is not ready and once per sweep after that, because secrets
are not watched. A Secret of this name that belongs to another object, such as a deleted fleet of the same
name, does not count as the password. The operator then tries again until the name is free, and starts nothing
that needs the password before that.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from flotilla_operator.api.agent_fleet import AgentFleet, AgentFleetSpec, RedisMode
from flotilla_operator.cluster.caches import Caches
from flotilla_operator.controllers.agent_fleet.memory import Memory, PasswordSeen
from flotilla_operator.controllers.agent_fleet.references import References
from flotilla_operator.controllers.agent_fleet.remembered import remembered
from flotilla_operator.controllers.agent_fleet.seen import Observed
from flotilla_operator.controllers.controller import World
from flotilla_operator.controllers.images import images_of
from flotilla_operator.controllers.live_objects import LiveObject, live_object
from flotilla_operator.controllers.stored_status import without_status
from flotilla_operator.objects.owners import Owner
from flotilla_operator.objects.resources import (
    AGENT_FLEETS,
    CONFIG_MAPS,
    DEPLOYMENTS,
    NETWORK_POLICIES,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    SERVICES,
    STATEFUL_SETS,
    Manifest,
)
from flotilla_operator.telemetry.measurements import Answered, Target, newest_first
from flotilla_operator.workloads import agent_fleet as workloads
from flotilla_runtime import contract


def parsed(manifest: Manifest) -> AgentFleetSpec:
    """The spec. The reconcile loop turns a validation error into a condition."""
    return AgentFleet.model_validate(without_status(manifest)).spec


def owner_of(manifest: Manifest) -> Owner:
    """The fleet as the owner of what it makes."""
    metadata = manifest["metadata"]
    return Owner(
        kind=AGENT_FLEETS.kind, namespace=metadata["namespace"], name=metadata["name"], uid=metadata["uid"]
    )


async def observe(manifest: Manifest, world: World, memory: Memory, now: datetime) -> Observed:
    """Everything that a decision about this fleet needs."""
    owner, spec = owner_of(manifest), parsed(manifest)
    wiring, missing = await References(manifest, spec, world).look_up()
    remembered_of_fleet = memory.of(owner.uid)
    password_found = await _password_found(owner, spec, world, remembered_of_fleet.password, now)
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
        scaled=world.decisions.last(owner.uid),
        live=_live(owner, world.caches),
        password_found=password_found,
        targets=targets,
    )


async def _password_found(
    owner: Owner, spec: AgentFleetSpec, world: World, before: PasswordSeen | None, now: datetime
) -> bool | None:
    if spec.queue.redis.mode is not RedisMode.MANAGED:
        return None
    name = workloads.redis(owner).name
    redis = world.caches.get(STATEFUL_SETS, owner.namespace, name)
    ready = redis is not None and live_object(redis).ready_replicas
    interval = timedelta(seconds=world.config.loop.sweep_interval_seconds)
    if ready and before is not None and not before.missing and now - before.at < interval:
        return None
    return await world.own_secret(owner.namespace, name, owner.uid) is not None


def _live(owner: Owner, caches: Caches) -> dict[tuple[str, str], LiveObject]:
    """The objects that have the names of the fleet's parts, whoever owns them."""
    parts = (workloads.redis(owner), workloads.gateway(owner), workloads.workers(owner))
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
    """What the newest of the answers says that names a problem. Each pod has loaded the files itself."""
    if spec.gateway.tls is None:
        return None
    problems = (answered.answer.certificate_problem for answered in newest_first(answers))
    return next((problem for problem in problems if problem), None)
