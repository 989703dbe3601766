"""The managed Redis of a fleet: one pod that keeps every task on a claim.

Redis writes each command to its append-only file and, by default, syncs it before it answers. It evicts
nothing and requires a password that only this fleet has. Its memory limit is lower than the size of its
claim, because Redis refuses writes with an error at its limit, but ends when its disk is full. A claim that
must outlive the fleet has no owner reference.

Gateways and workers have a user each, who may use this fleet's keys and administer nothing. Their passwords
are in a secret that is made once; Redis has only the hashes of them. Redis' default user may do everything.
Its password is in another secret, which only the pod of Redis has, for its probes and for people. Redis reads
both from files, so no password is in a command line.

Tool executors, where there are any, have a third user, who may use the keys of their queue alone. Its secret
is of its own, so a fleet without executors has no such user, and one that gets them starts Redis anew once.
"""

import base64
import hashlib
from collections.abc import Mapping
from typing import Any, Final

from flotilla_operator.api.fleet_queue import Fsync
from flotilla_operator.api.fleet_queue import Redis as RedisSpec
from flotilla_operator.api.parts import DeletionPolicy
from flotilla_operator.objects.owners import Owner
from flotilla_operator.objects.quantities import quantity
from flotilla_operator.objects.resources import Manifest
from flotilla_operator.workloads import objects
from flotilla_operator.workloads.agent_fleet.parts import (
    EXECUTOR_USER,
    REDIS_USERS,
    executors,
    gateway,
    redis,
    redis_executor,
    redis_users,
    workers,
)
from flotilla_operator.workloads.images import Images
from flotilla_operator.workloads.ingress import from_pods
from flotilla_operator.workloads.labels import Child
from flotilla_operator.workloads.pod_options import with_options
from flotilla_runtime import contract

DATA_DIRECTORY = "/data"
PASSWORD_FILE = "password.conf"  # noqa: S105 (a file's name)
USERS_DIRECTORY: Final = f"{contract.REDIS_SECRET_DIRECTORY}-users"
USERS_FILE: Final = "users.conf"
ANNOTATION_USERS: Final = f"{contract.DOMAIN}/redis-users"  # of the pod: those that its Redis knows
# Without those that name keys or channels of others, where Redis checks no pattern: tracking with BCAST tells
# each key that is written.
NAMING: Final = "-client|tracking -cluster|getkeysinslot -pubsub +pubsub|shardnumsub -randomkey -scan"
# All that reads and writes keys, scripts that do so, and INFO, which says how full Redis is.
COMMANDS: Final = f"+@all -@admin -@dangerous +info -function -script +script|load +script|exists {NAMING}"
EXECUTOR_DIRECTORY: Final = f"{contract.REDIS_SECRET_DIRECTORY}-executor"
# The same, without channels and without what tells how many keys there are.
EXECUTOR_COMMANDS: Final = f"{COMMANDS} -@pubsub -dbsize -info -memory"
STOP_SECONDS = 30
# The append-only file can double in size before it is rewritten, and is on the disk twice during the rewrite.
MEMORY_PERCENT_OF_CLAIM = 40
MEMORY_PERCENT_OF_LIMIT = 50  # the process that rewrites the file may need as much again
RESOURCES = {"requests": {"cpu": "50m", "memory": "128Mi"}}
FSYNC = {Fsync.ALWAYS: "always", Fsync.EVERY_SECOND: "everysec"}


def redis_configuration(spec: RedisSpec, *, has_executors: bool = False) -> str:
    """redis.conf for Redis 7.0 and later."""
    lines = [
        f"port {contract.PORT_REDIS}",
        "bind * -::*",
        f"dir {DATA_DIRECTORY}",
        "appendonly yes",
        f"appendfsync {FSYNC[spec.fsync]}",
        'save ""',
        f"maxmemory {memory_bytes(spec)}",
        "maxmemory-policy noeviction",
        f"include {contract.REDIS_SECRET_DIRECTORY}/{PASSWORD_FILE}",
        f"include {USERS_DIRECTORY}/{USERS_FILE}",
    ]
    if has_executors:
        lines.append(f"include {EXECUTOR_DIRECTORY}/{USERS_FILE}")
    return "\n".join(lines) + "\n"


def memory_bytes(spec: RedisSpec) -> int:
    """Redis' memory limit, at most half of its container's, so that it refuses writes with an error instead
    of being killed; never zero, which would mean no limit.
    """
    by_claim = int(quantity(spec.storage.size)) * MEMORY_PERCENT_OF_CLAIM // 100
    limit = spec.pod.resources.limits.get("memory")
    by_limit = by_claim if limit is None else int(quantity(limit)) * MEMORY_PERCENT_OF_LIMIT // 100
    return max(1, min(by_claim, by_limit))


def password_secret(owner: Owner, password: str) -> Manifest:
    """The secret with the default user's password, for the probe and as Redis' configuration."""
    entries = {contract.REDIS_PASSWORD_KEY: password, PASSWORD_FILE: f'requirepass "{password}"\n'}
    return _secret(redis(owner), entries)


def users_secret(owner: Owner, passwords: Mapping[str, str]) -> Manifest:
    """The secret with the passwords of the users, and their rights in the format of Redis' configuration."""
    prefix = contract.TaskKeys(f"{owner.namespace}/{owner.name}").prefix
    lines = [
        f"user {name} on #{hashlib.sha256(password.encode()).hexdigest()} ~{prefix}* &{prefix}* {COMMANDS}\n"
        for name, password in sorted(passwords.items())
    ]
    return _secret(redis_users(owner), {**passwords, USERS_FILE: "".join(lines)})


def executor_secret(owner: Owner, password: str) -> Manifest:
    """The secret with the password of the executors' user, and its rights: the keys of their queue alone."""
    prefix = contract.ExecutorKeys(f"{owner.namespace}/{owner.name}").prefix
    digest = hashlib.sha256(password.encode()).hexdigest()
    line = f"user {EXECUTOR_USER} on #{digest} ~{prefix}* {EXECUTOR_COMMANDS}\n"
    return _secret(redis_executor(owner), {EXECUTOR_USER: password, USERS_FILE: line})


def _secret(part: Child, entries: Mapping[str, str]) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": part.metadata(),
        "type": "Opaque",
        "data": {name: base64.b64encode(value.encode()).decode() for name, value in entries.items()},
    }


def claim(owner: Owner, spec: RedisSpec) -> Manifest:
    """The claim that holds the tasks."""
    return objects.persistent_volume_claim(
        redis(owner),
        size=str(spec.storage.size),
        storage_class=spec.storage.storage_class_name,
        owned=spec.deletion_policy is DeletionPolicy.DELETE,
    )


def redis_manifests(
    owner: Owner, spec: RedisSpec, images: Images, *, has_executors: bool = False
) -> list[Manifest]:
    """All objects of Redis except the secrets and the claim, which are written differently."""
    part = redis(owner)
    data = {"redis.conf": redis_configuration(spec, has_executors=has_executors)}
    connect = [gateway(owner).selector, workers(owner).selector]
    if has_executors:
        connect.append(executors(owner).selector)
    port = objects.Port(name="redis", number=contract.PORT_REDIS)
    return [
        objects.config_map(part, data=data),
        objects.headless_service(part, selector=part.selector, ports=[port]),
        objects.network_policy(
            part,
            selector=part.selector,
            ingress=[from_pods(*connect, ports=(contract.PORT_REDIS,))],
            may_connect=False,
        ),
        with_options(_stateful_set(owner, images, data, has_executors), spec.pod),
    ]


def _stateful_set(owner: Owner, images: Images, data: dict[str, str], has_executors: bool) -> Manifest:
    part, users = redis(owner), (*REDIS_USERS, *((EXECUTOR_USER,) if has_executors else ()))
    template = {
        "metadata": {
            "labels": part.labels,
            "annotations": {**objects.config_hash_annotation(data), ANNOTATION_USERS: ",".join(users)},
        },
        "spec": objects.pod_spec(_pod_parts(owner, images, has_executors)),
    }
    return objects.single_stateful_set(part, template)


def _pod_parts(owner: Owner, images: Images, has_executors: bool) -> objects.PodParts:
    part = redis(owner)
    config_volume, config_mount = objects.config_volume(part.name)
    secret_volume = {"name": "secret", "secret": {"secretName": part.name}}
    items = [{"key": USERS_FILE, "path": USERS_FILE}]
    users_volume = {"name": "users", "secret": {"secretName": redis_users(owner).name, "items": items}}
    executor_volumes: list[Manifest] = []
    executor_mounts: list[Manifest] = []
    if has_executors:
        secret = {"secretName": redis_executor(owner).name, "items": items}
        executor_volumes.append({"name": "executor", "secret": secret})
        executor_mounts.append({"name": "executor", "mountPath": EXECUTOR_DIRECTORY, "readOnly": True})
    data_volume = {"name": "data", "persistentVolumeClaim": {"claimName": part.name}}
    password = {"name": part.name, "key": contract.REDIS_PASSWORD_KEY}
    container = objects.container(
        "redis",
        images.redis,
        pull_policy=images.pull_policy,
        command=["redis-server", f"{contract.CONFIG_DIRECTORY}/redis.conf"],
        env=[{"name": "REDISCLI_AUTH", "valueFrom": {"secretKeyRef": password}}],
        ports=[{"name": "redis", "containerPort": contract.PORT_REDIS, "protocol": "TCP"}],
        resources=RESOURCES,
        volumeMounts=[
            config_mount,
            {"name": "secret", "mountPath": contract.REDIS_SECRET_DIRECTORY, "readOnly": True},
            {"name": "users", "mountPath": USERS_DIRECTORY, "readOnly": True},
            *executor_mounts,
            {"name": "data", "mountPath": DATA_DIRECTORY},
        ],
        # After a crash, Redis may read a long append-only file for minutes. Liveness only needs an open port.
        startupProbe={**_ping(), "periodSeconds": 2, "failureThreshold": 900},
        readinessProbe={**_ping(), "periodSeconds": 5, "failureThreshold": 2},
        livenessProbe={"tcpSocket": {"port": "redis"}, "periodSeconds": 10, "failureThreshold": 6},
    )
    return objects.PodParts(
        containers=[container],
        volumes=[config_volume, secret_volume, users_volume, *executor_volumes, data_volume],
        termination_grace_seconds=STOP_SECONDS,
        image_pull_secrets=images.pull_secrets,
    )


def _ping() -> dict[str, Any]:
    """The probe with `ping`; `-e` turns an error reply, such as LOADING, into an exit status."""
    return {"exec": {"command": ["redis-cli", "-e", "ping"]}, "timeoutSeconds": 3}
