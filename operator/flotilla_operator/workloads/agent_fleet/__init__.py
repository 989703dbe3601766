"""The objects of an AgentFleet: Redis, the gateway and the workers."""

from flotilla_operator.workloads.agent_fleet.parts import (
    IndexKey,
    SecretEntry,
    Wiring,
    gateway,
    gateway_url,
    redis,
    workers,
)
from flotilla_operator.workloads.agent_fleet.pods import gateway_manifests, worker_manifests
from flotilla_operator.workloads.agent_fleet.redis_server import claim, password_secret, redis_manifests

__all__ = [
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
    "worker_manifests",
    "workers",
]
