"""The contract for agent fleets: tasks in Redis, the gateway and the workers."""

from enum import StrEnum
from typing import Final

from pydantic import Field

from flotilla_runtime.contract.names import DOMAIN, PORT_GATEWAY, PORT_METRICS
from flotilla_runtime.contract.sections import Section, WireModel

ENV_REDIS_URL: Final = "FLOTILLA_REDIS_URL"  # the whole URL of an external Redis
ENV_MODEL_KEY_PREFIX: Final = "FLOTILLA_MODEL_KEY_"  # followed by the model's role in capitals
ENV_POD_NAME: Final = "FLOTILLA_POD_NAME"

REDIS_SECRET_DIRECTORY: Final = "/var/run/flotilla/redis"  # noqa: S105
REDIS_PASSWORD_KEY: Final = "password"  # noqa: S105
INDEX_KEYS_DIRECTORY: Final = "/var/run/flotilla/index-keys"  # of workers: a file for each index
LABEL_INDEX_KEYS: Final = f"{DOMAIN}/index-keys"  # on a worker that sends a key with each search
INDEX_KEYS_SENT: Final = "sent"
CALLERS_DIRECTORY: Final = "/var/run/flotilla/callers"
CLUSTER_CA_DIRECTORY: Final = "/var/run/flotilla/cluster"
CLUSTER_CA_PATH: Final = f"{CLUSTER_CA_DIRECTORY}/ca.crt"
CLUSTER_CA_CONFIG_MAP: Final = "kube-root-ca.crt"  # Kubernetes writes it into every namespace

DEFAULT_ROLE: Final = "Default"


def caller_entry(kind: str, name: str) -> str:
    """The entry of an `authSecretRef` that holds the key of this fleet or index."""
    return f"{kind.lower()}-{name}"


class Priority(StrEnum):
    """How urgent a task is: Interactive tasks go before Batch tasks. HEADER_PRIORITY has the same values."""

    INTERACTIVE = "Interactive"
    BATCH = "Batch"


class GatewayAuth(StrEnum):
    """How callers of the task API authenticate."""

    KUBERNETES = "Kubernetes"
    SECRET = "Secret"  # noqa: S105
    NONE = "None"


class TaskLimits(Section):
    """The most that one task may use; a step is one turn of the loop, however many calls it makes."""

    max_steps: int = 24
    max_tokens: int = 200_000
    max_wall_seconds: float = 600


class QueueConfig(Section):
    """The Redis of a fleet, and the limits of its queue.

    `fleet` is `namespace/name`; every key begins with it, so fleets can share a Redis. Without `url` the
    whole URL is in ENV_REDIS_URL. With `url`, the password is in the file `password_path`, which is read for
    each connection.
    """

    fleet: str
    url: str | None = None
    password_path: str | None = None
    max_waiting: int = 100_000
    result_ttl_seconds: int = 86_400
    lease_seconds: float = 5
    max_attempts: int = 5


class ModelConnection(Section):
    """A model that a fleet calls. `url` ends in /v1; `context_tokens` limits prompt and answer together.

    With `asks_context` the endpoint's list of models is asked, and may say another length.

    `key_environment` names the environment variable with the API key, if the model needs one.
    """

    role: str
    name: str
    url: str
    model: str
    context_tokens: int = 4096
    asks_context: bool = False
    key_environment: str | None = None


class IndexConnection(Section):
    """An index that a fleet searches; `url` is that of POST /v1/retrieve, and the deadline is the index's.

    The fleet's key is in the file `key_path`, which is read for each search.
    """

    name: str
    url: str
    deadline_milliseconds: int = 500
    key_path: str | None = None


class WorkerConfig(Section):
    """`config.json` of the agent workers."""

    queue: QueueConfig
    prompt: str
    models: tuple[ModelConnection, ...]
    indexes: tuple[IndexConnection, ...] = ()
    limits: TaskLimits = TaskLimits()
    concurrency: int = 200
    model_timeout_seconds: float = 300
    handover_seconds: float = 45  # how long calls may still run after SIGTERM
    metrics_port: int = PORT_METRICS


class GatewayConfig(Section):
    """`config.json` of the gateway."""

    queue: QueueConfig
    namespace: str
    name: str
    auth: GatewayAuth
    limits: TaskLimits = TaskLimits()
    max_body_bytes: int = 1024 * 1024
    callers_directory: str = CALLERS_DIRECTORY
    cluster_ca_path: str = CLUSTER_CA_PATH
    port: int = PORT_GATEWAY
    metrics_port: int = PORT_METRICS


class FleetStatus(WireModel):
    """The answer to GET /v1/status on the gateway's PORT_METRICS, which the operator scrapes.

    Every gateway reads the same Redis, so each one answers for the whole fleet. `waiting`, `in_flight`,
    `unknown_effects` and `oldest_waiting_seconds` are current values. The other figures cover the tasks that
    ended in the last hour; percentiles are None when there was none. `busy_seconds` says where these tasks
    spent their time: `Queue`, `Model/<name>`, `Index/<name>`. `unknown_effects` is always 0 for now.
    """

    fleet: str
    waiting: int
    in_flight: int
    unknown_effects: int = 0
    oldest_waiting_seconds: float | None = None
    ended: dict[str, int] = Field(default_factory=dict)  # by terminal reason
    recovered: int = 0
    steps: int = 0
    tokens: int = 0
    p50_seconds: float | None = None
    p95_seconds: float | None = None
    wait_p95_seconds: float | None = None
    busy_seconds: dict[str, float] = Field(default_factory=dict)


class TaskKeys:
    """The names of a fleet's keys in Redis.

    All keys of a fleet have the same hash tag, so a Redis Cluster keeps them on one shard. That is needed
    because one script takes a task off the queue and grants its lease, and one script submits a task.
    """

    def __init__(self, fleet: str) -> None:
        self.prefix: Final = f"flotilla:{{{fleet}}}:"

    def waiting(self, priority: Priority) -> str:
        """The sorted set of the waiting tasks of all callers, by the time of their submission."""
        return f"{self.prefix}waiting:{priority}"

    def stream(self, priority: Priority) -> str:
        """The stream in which tasks wait until a worker newer than version 0.1.0 has come."""
        return f"{self.prefix}queue:{priority}"

    @property
    def calls(self) -> str:
        """The list from which an idle worker takes one call for each submitted task."""
        return f"{self.prefix}calls"

    @property
    def leases(self) -> str:
        """The sorted set of the running tasks, by the time at which their lease ends."""
        return f"{self.prefix}leases"

    @property
    def tasks(self) -> str:
        """The sorted set of all task ids; ids sort by time."""
        return f"{self.prefix}tasks"

    def tasks_of(self, caller: str) -> str:
        """The sorted set of one caller's task ids."""
        return f"{self.prefix}tasks-of:{caller}"

    @property
    def ended(self) -> str:
        """The sorted set of ended tasks, by the time at which they ended."""
        return f"{self.prefix}ended"

    def task(self, task_id: str) -> str:
        """The hash of one task."""
        return f"{self.prefix}task:{task_id}"

    def journal(self, task_id: str) -> str:
        """The append-only list of one task's journal."""
        return f"{self.prefix}journal:{task_id}"

    def window(self, minute: int) -> str:
        """The hash with the counts of what ended in one minute since the epoch."""
        return f"{self.prefix}window:{minute}"
