"""Where an AgentFleet's tasks are stored, for how long, and how they survive a lost worker."""

from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field

from flotilla_operator.api.base import ApiModel, Rule, rules
from flotilla_operator.api.parts import (
    SECRET_KEY,
    DeletionPolicy,
    HttpUrl,
    Quantity,
    SecretRef,
    Storage,
    UrlSecretRef,
)
from flotilla_operator.api.pods import PodOptionsWithResources, PodRules


class RedisMode(StrEnum):
    """Redis that stores the tasks."""

    MANAGED = "Managed"
    EXTERNAL = "External"


class RedisTopology(StrEnum):
    """How a Redis is run."""

    SINGLE = "Single"
    SENTINEL = "Sentinel"
    CLUSTER = "Cluster"


class Fsync(StrEnum):
    """When Redis writes to disk."""

    ALWAYS = "Always"
    EVERY_SECOND = "EverySecond"


class RedisStorage(Storage):
    """The PersistentVolumeClaim on which Redis stores the tasks."""

    size: Quantity = "1Gi"
    """Size of the claim, of which Redis uses 40 % for tasks. It can be raised later if the storage class
    allows expansion; Kubernetes refuses to lower it."""


class PasswordSecretRef(SecretRef):
    """An entry of a secret that contains a password."""

    key: Annotated[str, Field(min_length=1, max_length=253, pattern=SECRET_KEY)] = "password"
    """Entry of the secret that contains the password."""


class Sentinel(ApiModel):
    """How the primary is found by Redis Sentinel."""

    master: Annotated[str, Field(min_length=1, max_length=253)]
    """Name under which the sentinels watch the primary."""
    password_secret_ref: PasswordSecretRef | None = None
    """Secret with the password of the sentinels. Absent: they ask for none."""


class Redis(ApiModel):
    """The Redis that stores the tasks."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                rule="(self.mode == 'External') == has(self.urlSecretRef)",
                message="spec.queue.redis.urlSecretRef is required with spec.queue.redis.mode External and "
                "not allowed with other modes; set urlSecretRef with mode External, and remove it with any "
                "other mode",
            ),
            Rule(
                rule="self.mode == 'Managed' || !has(self.pod)",
                message="spec.queue.redis.pod is for spec.queue.redis.mode Managed only; remove it",
            ),
            Rule(
                rule="self.mode == 'External' || self.topology == 'Single'",
                message="spec.queue.redis.topology Sentinel and Cluster need spec.queue.redis.mode External; "
                "set it, or use topology Single",
            ),
            Rule(
                rule="(self.topology == 'Sentinel') == has(self.sentinel)",
                message="spec.queue.redis.sentinel is required with spec.queue.redis.topology Sentinel and "
                "not allowed with others; set sentinel with topology Sentinel, and remove it with any other",
            ),
        )
    )

    mode: RedisMode = RedisMode.MANAGED
    """Managed: Flotilla runs a Redis for this fleet, with a PersistentVolumeClaim. External: tasks are stored
    in an existing Redis 7.0 or later, or Valkey, which must not evict keys."""
    storage: RedisStorage = RedisStorage()
    """PersistentVolumeClaim of the Redis, for mode Managed."""
    pod: Annotated[PodOptionsWithResources, PodRules("spec.queue.redis.pod", ("REDISCLI_AUTH",))] = (
        PodOptionsWithResources()
    )
    """Options of the pod of Redis, for mode Managed. A change restarts it. With a memory limit, Redis uses
    half of that for tasks at most, because rewriting its file may need as much again."""
    fsync: Fsync = Fsync.ALWAYS
    """When Redis writes to disk, for mode Managed. Always: before a task is accepted, so that an accepted
    task survives a crash. EverySecond: once a second, which is faster, but a crash may lose the last
    second."""
    url_secret_ref: UrlSecretRef | None = None
    """Secret with the URL of the existing Redis, including its password. With topology Sentinel it names the
    sentinels, with Cluster some of the nodes: several hosts with commas between them. Required with mode
    External."""
    topology: RedisTopology = RedisTopology.SINGLE
    """How the existing Redis is run. Single: one server. Sentinel: a primary with replicas that Sentinel
    watches. Cluster: a Redis Cluster; a fleet is on one of its shards."""
    sentinel: Sentinel | None = None
    """How the primary is found. Required with topology Sentinel."""
    deletion_policy: DeletionPolicy = DeletionPolicy.RETAIN
    """Action on the claim of mode Managed when the fleet is deleted. Retain: it is kept. Delete: it is
    deleted."""


class Payloads(ApiModel):
    """An object store with S3's API for texts of more than 64 KiB."""

    url: Annotated[
        str,
        Field(
            max_length=512,
            pattern=r"^s3://[a-z0-9][-a-z0-9.]{1,61}[a-z0-9](/[A-Za-z0-9_=][-A-Za-z0-9_.=]*)*/?$",
        ),
    ]
    """Bucket and prefix, as s3://bucket/prefix. Objects are named PREFIX/NAMESPACE/FLEET/TASK/HASH."""
    endpoint: HttpUrl | None = None
    """URL of the object store. Absent: that of AWS for the region."""
    region: Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9][-a-z0-9]*$")] | None = None
    """Region of the bucket, for which requests are signed. Absent: us-east-1."""
    secret_ref: SecretRef | None = None
    """Secret with the entries `accessKeyId` and `secretAccessKey`. They need the rights to read, write, list
    and delete objects below the prefix. New ones need no restart. Absent: requests are not signed."""


class Queue(ApiModel):
    """Where tasks are stored, and for how long."""

    redis: Redis = Redis()
    """The Redis that stores the tasks."""
    max_waiting: Annotated[int, Field(ge=1, le=100_000_000)] = 100_000
    """How many tasks may wait. Further tasks are refused with 429 and Retry-After."""
    max_stored_mib: Annotated[int, Field(ge=1, le=16_777_216)] | None = None
    """How many MiB Redis may use before tasks are refused; above it only workers write. Absent: three
    quarters of Redis' own limit (`maxmemory`). An existing Redis without one has no limit then; the condition
    QueueReady tells so."""
    result_ttl_seconds: Annotated[int, Field(ge=60, le=31_536_000)] = 86_400
    """How long status, result and usage of a task can be read after it ended, in seconds."""
    journal_ttl_seconds: Annotated[int, Field(ge=60, le=31_536_000)] = 3600
    """How long timeline, events and calls of a task can be read after it succeeded or was cancelled, in
    seconds."""
    dead_letter_ttl_seconds: Annotated[int, Field(ge=60, le=31_536_000)] = 604_800
    """How long a task that failed can be read and replayed, with its journal, in seconds."""
    conversation_ttl_seconds: Annotated[int, Field(ge=60, le=31_536_000)] = 86_400
    """How long the history of a conversation is kept after its last task, in seconds."""
    payloads: Payloads | None = None
    """Object store for texts of more than 64 KiB: what a task is asked, what its calls were asked and
    answered, and its result. Absent: they are kept in Redis. Tasks need it until they are forgotten: those
    that are there when it is changed or removed end as Infrastructure, or cannot be shown."""


class Recovery(ApiModel):
    """Rules for the tasks of a lost worker."""

    lease_seconds: Annotated[int, Field(ge=1, le=300)] = 5
    """How long a worker may be silent, in seconds, before other workers take over its tasks."""
    max_attempts: Annotated[int, Field(ge=1, le=100)] = 5
    """After how many lost workers a task ends with reason Infrastructure. Only workers that were lost while
    they ran the task alone count."""
    unknown_effect_seconds: Annotated[int, Field(ge=1, le=31_536_000)] = 86_400
    """How long a task waits, in seconds, until somebody says whether a call of an Unsafe tool happened. Then
    it ends with reason UnknownEffect."""


class Update(ApiModel):
    """Rules for running tasks when the agent changes."""

    deadline_seconds: Annotated[int, Field(ge=0, le=604_800)] = 3600
    """How long tasks of an older revision keep workers of their own, in seconds. Those that are left then go
    on with the new revision's workers. If no worker of the older revision becomes ready, they do so at
    once."""
