"""The objects of an AgentFleet: Redis, the gateway and the workers."""

from flotilla_operator.workloads.agent_fleet.executors import executor_manifests
from flotilla_operator.workloads.agent_fleet.parts import (
    EXECUTOR_USER,
    REDIS_USERS,
    IndexKey,
    SecretEntry,
    Wiring,
    executors,
    executors_of,
    gateway,
    gateway_url,
    redis,
    redis_executor,
    redis_users,
    workers,
    workers_of,
)
from flotilla_operator.workloads.agent_fleet.pods import gateway_manifests, worker_manifests
from flotilla_operator.workloads.agent_fleet.redis_server import (
    ANNOTATION_USERS,
    CONFIG_FILE,
    claim,
    digests_of,
    digests_of_made,
    executor_secret,
    password_secret,
    redis_manifests,
    users_secret,
)
from flotilla_operator.workloads.agent_fleet.revision import revision_of
from flotilla_operator.workloads.agent_fleet.token_reviews import (
    asks_for_reviews,
    binding_labels,
    binding_name,
    fleet_of_binding,
    review_binding,
)
from flotilla_operator.workloads.agent_fleet.tools import has_executors

__all__ = [
    "ANNOTATION_USERS",
    "CONFIG_FILE",
    "EXECUTOR_USER",
    "REDIS_USERS",
    "IndexKey",
    "SecretEntry",
    "Wiring",
    "asks_for_reviews",
    "binding_labels",
    "binding_name",
    "claim",
    "digests_of",
    "digests_of_made",
    "executor_manifests",
    "executor_secret",
    "executors",
    "executors_of",
    "fleet_of_binding",
    "gateway",
    "gateway_manifests",
    "gateway_url",
    "has_executors",
    "password_secret",
    "redis",
    "redis_executor",
    "redis_manifests",
    "redis_users",
    "review_binding",
    "revision_of",
    "users_secret",
    "worker_manifests",
    "workers",
    "workers_of",
]
