"""The names of a fleet's parts, and what its controller has looked up for them."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from flotilla_operator.api.agent_fleet import Gateway as GatewaySpec
from flotilla_operator.objects.owners import Owner
from flotilla_operator.workloads.labels import Child
from flotilla_runtime import contract

GATEWAY_USER, WORKER_USER = "gateway", "worker"
REDIS_USERS = (GATEWAY_USER, WORKER_USER)
EXECUTOR_USER = "executor"
REDIS_PASSWORD_PATH = f"{contract.REDIS_SECRET_DIRECTORY}/{contract.REDIS_PASSWORD_KEY}"


def redis(owner: Owner) -> Child:
    """The managed Redis: `NAME-redis`, also the name of its claim and of its default user's secret."""
    return Child(owner=owner, component="redis", suffix="redis")


def redis_users(owner: Owner) -> Child:
    """The users of the managed Redis: `NAME-redis-users` is the secret with their passwords."""
    return Child(owner=owner, component="redis", suffix="redis-users")


def redis_executor(owner: Owner) -> Child:
    """The executors' user of the managed Redis: `NAME-redis-executor` is the secret with its password."""
    return Child(owner=owner, component="redis", suffix="redis-executor")


def gateway(owner: Owner) -> Child:
    """The task API: `NAME-gateway`."""
    return Child(owner=owner, component="gateway", suffix="gateway")


def workers(owner: Owner) -> Child:
    """The pods that run tasks, of all revisions; their network policy is `NAME-worker`."""
    return Child(owner=owner, component="worker", suffix="worker")


def workers_of(owner: Owner, revision: str) -> Child:
    """The pods that run tasks of one revision: `NAME-worker-REVISION`.

    Those of releases that knew no revisions, whose revision is empty, are `NAME-worker`.
    """
    if not revision:
        return workers(owner)
    return Child(owner=owner, component="worker", suffix=f"worker-{revision}", revision=revision)


def executors(owner: Owner) -> Child:
    """The pods that run tools, of all revisions; their network policy is `NAME-executor`."""
    return Child(owner=owner, component="executor", suffix="executor")


def executors_of(owner: Owner, revision: str) -> Child:
    """The pods that run tools of one revision: `NAME-executor-REVISION`."""
    return Child(owner=owner, component="executor", suffix=f"executor-{revision}", revision=revision)


def gateway_url(owner: Owner, spec: GatewaySpec) -> str:
    """The URL of the task API."""
    scheme = "http" if spec.tls is None else "https"
    return f"{scheme}://{gateway(owner).name}.{owner.namespace}.svc:{contract.PORT_GATEWAY}"


def redis_url(owner: Owner) -> str:
    """The URL of the managed Redis, without its password."""
    return f"redis://{redis(owner).name}.{owner.namespace}.svc:{contract.PORT_REDIS}/0"


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretEntry:
    """One entry of a secret, and the environment variable that takes its value."""

    environment: str
    name: str
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexKey:
    """One entry of a secret with the key of an index, which workers have as a file of the index's name."""

    index: str
    name: str
    key: str

    @property
    def path(self) -> str:
        return f"{contract.INDEX_KEYS_DIRECTORY}/{self.index}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wiring:
    """The models, indexes and tools of the workers, as far as they are known.

    `assumed_contexts` are the roles of models whose context nothing states. `secret_versions` changes when a
    secret changes that the pods read at their start. The workers are first made when `complete` is true;
    while it is false later, they keep their last configuration. `telemetry` is None where no trace is sent.
    """

    models: tuple[contract.ModelConnection, ...] = ()
    capacities: tuple[contract.ModelCapacity, ...] = ()
    indexes: tuple[contract.IndexConnection, ...] = ()
    model_keys: tuple[SecretEntry, ...] = ()
    index_keys: tuple[IndexKey, ...] = ()
    secret_versions: Mapping[str, str] = field(default_factory=dict)
    assumed_contexts: tuple[str, ...] = ()
    telemetry: contract.TelemetryConfig | None = None
    complete: bool = True

    @property
    def sends_keys(self) -> bool:
        """Whether the workers send a key with every search."""
        return bool(self.index_keys) and len(self.index_keys) == len(self.indexes)
