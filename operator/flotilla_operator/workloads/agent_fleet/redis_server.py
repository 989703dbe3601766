"""The managed Redis of a fleet: one pod that keeps every task on a claim.

Redis writes each command to its append-only file and, by default, syncs it before it answers. It evicts
nothing and requires a password that only this fleet has. Its memory limit is lower than the size of its
claim, because Redis refuses writes with an error at its limit, but ends when its disk is full. A claim that
must outlive the fleet has no owner reference.

Gateways and workers have a user each, who may use this fleet's keys and administer nothing. Tool executors,
where there are any, have a third one, who may use the keys of their queue alone. Their passwords are in
secrets that are made once. Their rights are in Redis' configuration, with the hashes of the passwords, so
that those of a new release act at Redis' next start. The passwords have 256 random bits, so a hash tells
nothing of them. Redis' default user may do everything. Its password is in another secret, which only the pod
of Redis has, for its probes and for people, as a file.
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
from flotilla_operator.workloads.template_parts import TemplatePart
from flotilla_runtime import contract
from flotilla_runtime.contract.redis_rights import EXECUTOR_COMMANDS, TASK_COMMANDS, acl_rights

DATA_DIRECTORY = "/data"
CONFIG_FILE: Final = "redis.conf"
PASSWORD_FILE = "password.conf"  # noqa: S105 (a file's name)
USERS_DIRECTORY: Final = f"{contract.REDIS_SECRET_DIRECTORY}-users"
USERS_FILE: Final = "users.conf"
ANNOTATION_USERS: Final = f"{contract.DOMAIN}/redis-users"  # of the pod: those that its Redis knows
EXECUTOR_DIRECTORY: Final = f"{contract.REDIS_SECRET_DIRECTORY}-executor"
STOP_SECONDS = 30
# The append-only file can double in size before it is rewritten, and is on the disk twice during the rewrite.
MEMORY_PERCENT_OF_CLAIM = 40
MEMORY_PERCENT_OF_LIMIT = 50  # the process that rewrites the file may need as much again
REQUESTS = {"cpu": "50m", "memory": "128Mi"}
CLIENTS_PERCENT_OF_MEMORY = 25
LEAST_CLIENTS_BYTES = 32 * 2**20
BASE_BYTES = 96 * 2**20  # the program, its shared libraries and what its allocator leaves free
# A client that does not read its answers, or that sends a command without an end, is cut off. The largest of
# ours are the journal of a long task, and the result of a call with what surrounds it.
BUFFERS = (
    "client-output-buffer-limit normal 256mb 64mb 60",
    "client-query-buffer-limit 256mb",
    "proto-max-bulk-len 128mb",
)
# A Redis that answers BUSY runs a script that may never end. One that loads its file, or forks, is alive.
NO_ANSWER_SECONDS = 50
PROBE_SECONDS = 60
LIVENESS_OF_BEFORE = {"tcpSocket": {"port": "redis"}, "periodSeconds": 10, "failureThreshold": 6}
BUSY_STOP_SECONDS = 5  # nothing is saved on the way out: the file has all that was answered
FSYNC = {Fsync.ALWAYS: "always", Fsync.EVERY_SECOND: "everysec"}


def redis_configuration(
    spec: RedisSpec, owner: Owner, digests: Mapping[str, str], *, has_executors: bool = False
) -> str:
    """redis.conf for Redis 7.0 and later. `digests` has the SHA-256 of each user's password, in hex."""
    users = (*REDIS_USERS, *((EXECUTOR_USER,) if has_executors else ()))
    lines = [
        *_settings(spec),
        f"maxmemory-clients {clients_bytes(spec)}",
        *BUFFERS,
        *(_user_line(owner, user, digests[user]) for user in users if user in digests),
    ]
    return "\n".join(lines) + "\n"


def _settings(spec: RedisSpec) -> list[str]:
    return [
        f"port {contract.PORT_REDIS}",
        "bind * -::*",
        f"dir {DATA_DIRECTORY}",
        "appendonly yes",
        f"appendfsync {FSYNC[spec.fsync]}",
        'save ""',
        f"maxmemory {memory_bytes(spec)}",
        "maxmemory-policy noeviction",
        f"include {contract.REDIS_SECRET_DIRECTORY}/{PASSWORD_FILE}",
    ]


def _user_line(owner: Owner, user: str, digest: str) -> str:
    fleet = f"{owner.namespace}/{owner.name}"
    if user == EXECUTOR_USER:
        prefix, commands = contract.ExecutorKeys(fleet).prefix, EXECUTOR_COMMANDS
        return f"user {user} on #{digest} ~{prefix}* {acl_rights(commands)}"
    prefix, commands = contract.TaskKeys(fleet).prefix, TASK_COMMANDS
    return f"user {user} on #{digest} ~{prefix}* &{prefix}* {acl_rights(commands)}"


def digests_of(secret: Mapping[str, str]) -> dict[str, str]:
    """The hashes of the users' passwords in the entries of a secret."""
    users, form = (*REDIS_USERS, EXECUTOR_USER), contract.SecretForm.TEXT
    texts = {user: secret[user] for user in users if user in secret}
    return {
        user: hashlib.sha256(contract.secret_value(text, user, form).encode()).hexdigest()
        for user, text in texts.items()
        if contract.what_is_wrong(text, form) is None
    }


def digests_of_made(secret: Manifest) -> dict[str, str]:
    """The same of a secret that is to be made."""
    return digests_of({key: base64.b64decode(value).decode() for key, value in secret["data"].items()})


def restarts_for(spec: RedisSpec, *, has_executors: bool) -> dict[str, str]:
    """Settings of the user, whose changes restart Redis.

    Rights and bounds of a new release act at Redis' next start, so an upgrade restarts none. The lines are
    those of the releases that kept the rights in the secrets.
    """
    lines = [*_settings(spec), f"include {USERS_DIRECTORY}/{USERS_FILE}"]
    if has_executors:
        lines.append(f"include {EXECUTOR_DIRECTORY}/{USERS_FILE}")
    return {CONFIG_FILE: "\n".join(lines) + "\n"}


def memory_bytes(spec: RedisSpec) -> int:
    """Redis' memory limit, at most half of its container's, so that it refuses writes with an error instead
    of being killed; never zero, which would mean no limit.
    """
    by_claim = int(quantity(spec.storage.size)) * MEMORY_PERCENT_OF_CLAIM // 100
    limit = spec.pod.resources.limits.get("memory")
    by_limit = by_claim if limit is None else int(quantity(limit)) * MEMORY_PERCENT_OF_LIMIT // 100
    return max(1, min(by_claim, by_limit))


def clients_bytes(spec: RedisSpec) -> int:
    """Bytes that all clients' buffers may take. Beyond them, Redis cuts off the client with the most."""
    return max(LEAST_CLIENTS_BYTES, memory_bytes(spec) * CLIENTS_PERCENT_OF_MEMORY // 100)


def _resources(spec: RedisSpec, images: Images) -> Manifest:
    """The limit is what tasks may take, the same again for the copy that rewrites the file, and the clients.

    The user's own resources take the place of all this.
    """
    if TemplatePart.REDIS_MEMORY not in images.parts:
        return {"requests": REQUESTS}
    most = 2 * memory_bytes(spec) + clients_bytes(spec) + BASE_BYTES
    return {"requests": REQUESTS, "limits": {"memory": f"{-(-most // 2**20)}Mi"}}


def password_secret(owner: Owner, password: str) -> Manifest:
    """The secret with the default user's password, for the probe and as Redis' configuration."""
    entries = {contract.REDIS_PASSWORD_KEY: password, PASSWORD_FILE: f'requirepass "{password}"\n'}
    return _secret(redis(owner), entries)


def users_secret(owner: Owner, passwords: Mapping[str, str]) -> Manifest:
    """The secret with the passwords of gateways and workers.

    Its entry with their rights is for a configuration of a release before, which includes it.
    """
    return _with_rights(redis_users(owner), owner, passwords)


def executor_secret(owner: Owner, password: str) -> Manifest:
    """The secret with the password of the executors' user."""
    return _with_rights(redis_executor(owner), owner, {EXECUTOR_USER: password})


def _with_rights(part: Child, owner: Owner, passwords: Mapping[str, str]) -> Manifest:
    digests = digests_of(passwords)
    lines = [f"{_user_line(owner, user, digest)}\n" for user, digest in sorted(digests.items())]
    return _secret(part, {**passwords, USERS_FILE: "".join(lines)})


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
    owner: Owner,
    spec: RedisSpec,
    images: Images,
    *,
    digests: Mapping[str, str],
    has_executors: bool = False,
) -> list[Manifest]:
    """All objects of Redis except the secrets and the claim, which are written differently."""
    part = redis(owner)
    data = {CONFIG_FILE: redis_configuration(spec, owner, digests, has_executors=has_executors)}
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
        with_options(_stateful_set(owner, spec, images, has_executors), spec.pod),
    ]


def _stateful_set(owner: Owner, spec: RedisSpec, images: Images, has_executors: bool) -> Manifest:
    part, users = redis(owner), (*REDIS_USERS, *((EXECUTOR_USER,) if has_executors else ()))
    template = {
        "metadata": {
            "labels": part.labels,
            "annotations": {
                **objects.config_hash_annotation(restarts_for(spec, has_executors=has_executors)),
                ANNOTATION_USERS: ",".join(users),
            },
        },
        "spec": objects.pod_spec(_pod_parts(owner, spec, images, has_executors)),
    }
    return objects.single_stateful_set(part, template)


def _pod_parts(owner: Owner, spec: RedisSpec, images: Images, has_executors: bool) -> objects.PodParts:
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
        command=["redis-server", f"{contract.CONFIG_DIRECTORY}/{CONFIG_FILE}"],
        env=[{"name": "REDISCLI_AUTH", "valueFrom": {"secretKeyRef": password}}],
        ports=[{"name": "redis", "containerPort": contract.PORT_REDIS, "protocol": "TCP"}],
        resources=_resources(spec, images),
        volumeMounts=[
            config_mount,
            {"name": "secret", "mountPath": contract.REDIS_SECRET_DIRECTORY, "readOnly": True},
            {"name": "users", "mountPath": USERS_DIRECTORY, "readOnly": True},  # see users_secret
            *executor_mounts,
            {"name": "data", "mountPath": DATA_DIRECTORY},
        ],
        # After a crash, Redis may read a long append-only file for minutes.
        startupProbe={**_ping(), "periodSeconds": 2, "failureThreshold": 900},
        readinessProbe={**_ping(), "periodSeconds": 5, "failureThreshold": 2},
        livenessProbe=_is_alive() if TemplatePart.REDIS_LIVENESS in images.parts else LIVENESS_OF_BEFORE,
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


def _is_alive() -> dict[str, Any]:
    """The probe that fails six times in a minute of BUSY, or of nobody who listens.

    A probe waits for an answer, so that six fail only after five minutes without any.
    """
    return {
        "exec": {"command": ["sh", "-c", alive_command(NO_ANSWER_SECONDS)]},
        "periodSeconds": 10,
        "timeoutSeconds": PROBE_SECONDS,
        "failureThreshold": 6,
        "terminationGracePeriodSeconds": BUSY_STOP_SECONDS,
    }


def alive_command(patience_seconds: float) -> str:
    """A command of the shell that fails where Redis is busy with a script, or does not answer for so long."""
    return (
        f'said=$(timeout {patience_seconds} redis-cli ping 2>&1); case "$said" in '
        '""|*BUSY*|"Could not connect"*) echo "${said:-no answer}"; exit 1;; esac'
    )
