"""The objects of an AgentFleet: Redis, the gateway and the workers."""

from flotilla_operator.workloads.agent_fleet.parts import (
    REDIS_USERS,
    IndexKey,
    SecretEntry,
    Wiring,
    gateway,
    gateway_url,
    redis,
    redis_users,
    workers,
    workers_of,
)
from flotilla_operator.workloads.agent_fleet.pods import gateway_manifests, worker_manifests
from flotilla_operator.workloads.agent_fleet.redis_server import (
    ANNOTATION_USERS,
    claim,
    password_secret,
    redis_manifests,
    users_secret,
)
from flotilla_operator.workloads.agent_fleet.revision import revision_of

__all__ = [
    "ANNOTATION_USERS",
    "REDIS_USERS",
    "IndexKey",
    "SecretEntry",
    "Wiring",
    "claim",
    "gateway",
    "gateway_manifests",
    "gateway_url",
    "password_secret",
    "redis",
    "redis_manifests",
    "redis_users",
    "revision_of",
    "users_secret",
    "worker_manifests",
    "workers",
    "workers_of",
]
