"""Gathers what a fleet's plan rests on: its references, its objects, the queue's figures, the workers'
number.

The password of a managed Redis is made here, because `plan` knows no randomness. Its secret is asked for
while Redis is not ready, and once per sweep after that, since no watch tells of its end. One that belongs to
another, such as a deleted fleet of this name, is not the password: ours is asked for until the name is free,
and what needs it is not started before.
"""

import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from flotilla_operator.api.agent_fleet import AgentFleet, AgentFleetSpec, RedisMode
from flotilla_operator.autoscaling.workers import (
    WorkerMemory,
    WorkerPolicy,
    WorkersDecision,
    WorkerSignals,
    decide,
)
from flotilla_operator.cluster.caches import Caches, controller_uid
from flotilla_operator.cluster.resources import (
    AGENT_FLEETS,
    CONFIG_MAPS,
    DEPLOYMENTS,
    NETWORK_POLICIES,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    SERVICES,
    STATEFUL_SETS,
)
from flotilla_operator.cluster.writes import Manifest
from flotilla_operator.controllers.agent_fleet.references import References
from flotilla_operator.controllers.agent_fleet.seen import Observed
from flotilla_operator.controllers.controller import World
from flotilla_operator.controllers.images import images_of
from flotilla_operator.telemetry.measurements import Target
from flotilla_operator.workloads import agent_fleet as workloads
from flotilla_operator.workloads.labels import Owner
from flotilla_runtime import contract

PASSWORD_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class PasswordSeen:
    """When a fleet's password was seen, or asked to be made, and since when a Redis has been without it."""

    at: datetime
    missing: bool = False
    lost_at: datetime | None = None


@dataclass(slots=True)
class Memory:
    """What one controller keeps between looks; all of it can be lost."""

    needs: dict[str, WorkerMemory] = field(default_factory=dict)
    passwords: dict[str, PasswordSeen] = field(default_factory=dict)

    def forget_the_gone(self, caches: Caches) -> None:
        """Drop what is remembered of fleets that are no more."""
        if len(self.needs) > len(caches.store(AGENT_FLEETS)):
            alive = {fleet["metadata"]["uid"] for fleet in caches.listed(AGENT_FLEETS)}
            self.needs = {uid: need for uid, need in self.needs.items() if uid in alive}
            self.passwords = {uid: seen for uid, seen in self.passwords.items() if uid in alive}


def parsed(manifest: Manifest) -> AgentFleetSpec:
    """The spec; the loop turns what pydantic finds wrong into a condition."""
    return AgentFleet.model_validate(manifest).spec


def owner_of(manifest: Manifest) -> Owner:
    """The fleet as the owner of what it makes."""
    metadata = manifest["metadata"]
    return Owner(
        kind=AGENT_FLEETS.kind, namespace=metadata["namespace"], name=metadata["name"], uid=metadata["uid"]
    )


async def observe(manifest: Manifest, world: World, memory: Memory, now: datetime) -> Observed:
    """Everything the plan of this fleet rests on."""
    owner, spec = owner_of(manifest), parsed(manifest)
    wiring, problems = await References(manifest, spec, world).look_up()
    new_password = await _new_password(owner, spec, world, memory, now)
    seen = memory.passwords.get(owner.uid)
    memory.forget_the_gone(world.caches)
    # From here on nothing waits, so what is seen of the cluster is of one moment.
    live = _live(owner, world.caches)
    targets = tuple(_targets(owner, world.caches))
    figures = _figures(targets, world)
    decision, memory.needs[owner.uid] = _workers(
        owner, spec, live, figures, memory.needs.get(owner.uid, WorkerMemory()), now
    )
    return Observed(
        manifest=manifest,
        owner=owner,
        spec=spec,
        images=images_of(world.config),
        wiring=wiring,
        problems=problems,
        decision=decision,
        figures=figures,
        live=live,
        new_password=new_password,
        password_lost_at=seen.lost_at if seen is not None else None,
        targets=targets,
    )


async def _new_password(
    owner: Owner, spec: AgentFleetSpec, world: World, memory: Memory, now: datetime
) -> str | None:
    if spec.queue.redis.mode is not RedisMode.MANAGED:
        memory.passwords.pop(owner.uid, None)
        return None
    name = workloads.redis(owner).name
    stateful_set = world.caches.get(STATEFUL_SETS, owner.namespace, name)
    ready = stateful_set is not None and (stateful_set.get("status") or {}).get("readyReplicas")
    before = memory.passwords.get(owner.uid)
    interval = timedelta(seconds=world.config.loop.sweep_interval_seconds)
    if ready and before is not None and not before.missing and now - before.at < interval:
        return None
    if await world.own_secret(owner.namespace, name, owner.uid) is not None:
        memory.passwords[owner.uid] = PasswordSeen(at=now)
        return None
    ours = stateful_set is not None and controller_uid(stateful_set) == owner.uid
    lost_at = (before.lost_at if before is not None else None) or (now if ours else None)
    memory.passwords[owner.uid] = PasswordSeen(at=now, missing=True, lost_at=lost_at)
    return secrets.token_urlsafe(PASSWORD_BYTES)


def _live(owner: Owner, caches: Caches) -> dict[tuple[str, str], Manifest]:
    """What stands at the names of the fleet's parts, ours or not."""
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
        (resource.kind, part.name): manifest
        for part in parts
        for resource in resources
        if (manifest := caches.get(resource, owner.namespace, part.name)) is not None
    }


def _targets(owner: Owner, caches: Caches) -> Iterable[Target]:
    """Every gateway pod tells the figures of the whole fleet; any answer will do."""
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
            host = f"[{address}]" if ":" in address else address
            url = f"http://{host}:{contract.PORT_METRICS}/v1/status"
            yield Target(key=pod["metadata"]["uid"], url=url)


def _figures(targets: Iterable[Target], world: World) -> contract.FleetStatus | None:
    """The newest of the gateways' answers."""
    return next(iter(world.measurements.answers(targets, contract.FleetStatus)), None)


def _workers(
    owner: Owner,
    spec: AgentFleetSpec,
    live: dict[tuple[str, str], Manifest],
    figures: contract.FleetStatus | None,
    memory: WorkerMemory,
    now: datetime,
) -> tuple[WorkersDecision, WorkerMemory]:
    deployment = live.get((DEPLOYMENTS.kind, workloads.workers(owner).name))
    current = int(deployment["spec"].get("replicas") or 0) if deployment else 0
    signals = None
    if figures is not None:
        signals = WorkerSignals(
            waiting=figures.waiting,
            in_flight=figures.in_flight,
            unknown_effects=figures.unknown_effects,
        )
    policy = WorkerPolicy(
        min_replicas=spec.workers.min_replicas,
        max_replicas=spec.workers.max_replicas,
        concurrency=spec.workers.concurrency,
    )
    return decide(signals, policy, memory, current=current, now=now)
