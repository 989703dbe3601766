"""The objects of an AgentFleet: Redis, the gateway and the workers."""

from flotilla_operator.workloads.agent_fleet.parts import (
    SecretEntry,
    Wiring,
    gateway,
    gateway_url,
    redis,
    workers,
    workers_of,
)
from flotilla_operator.workloads.agent_fleet.pods import gateway_manifests, worker_manifests
from flotilla_operator.workloads.agent_fleet.redis_server import claim, password_secret, redis_manifests
from flotilla_operator.workloads.agent_fleet.revision import revision_of

__all__ = [
    "SecretEntry",
    "Wiring",
    "claim",
    "gateway",
    "gateway_manifests",
    "gateway_url",
    "password_secret",
    "redis",
    "redis_manifests",
    "revision_of",
    "worker_manifests",
    "workers",
    "workers_of",
]
