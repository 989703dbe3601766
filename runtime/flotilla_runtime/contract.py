"""What the operator and the pods it creates agree on.

The operator's workloads write these names into manifests, the runtime reads them from inside the pods; both
import them from here and from nowhere else, so neither can drift. Every component reads one JSON file,
`CONFIG_PATH`, mounted from a ConfigMap and described by the pydantic model of its name below; secrets never
stand in it, only the names of the environment variables or files that hold them.
"""

from enum import StrEnum
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, JsonValue
from pydantic.alias_generators import to_camel

DOMAIN: Final = "flotilla.dev"
API_VERSION: Final = f"{DOMAIN}/v1alpha1"

LABEL_MANAGED_BY: Final = "app.kubernetes.io/managed-by"
LABEL_COMPONENT: Final = "app.kubernetes.io/component"
LABEL_INSTANCE: Final = "app.kubernetes.io/instance"
LABEL_NAME: Final = "app.kubernetes.io/name"
MANAGED_BY: Final = "flotilla"

LABEL_OWNER_KIND: Final = f"{DOMAIN}/kind"
LABEL_OWNER_NAME: Final = f"{DOMAIN}/owner"
LABEL_GROUP: Final = f"{DOMAIN}/group"
LABEL_STAGE: Final = f"{DOMAIN}/stage"
LABEL_REVISION: Final = f"{DOMAIN}/revision"
LABEL_GENERATION: Final = f"{DOMAIN}/generation"

ANNOTATION_SERVER_ID: Final = f"{DOMAIN}/server-id"
ANNOTATION_STAGES: Final = f"{DOMAIN}/stages"  # on a pod of a group of several: how many they are
ANNOTATION_GATE_LIFTED: Final = f"{DOMAIN}/gate-lifted-at"
ANNOTATION_DRAIN_EPOCH: Final = f"{DOMAIN}/drain-epoch"
ANNOTATION_CONFIG_HASH: Final = f"{DOMAIN}/config-hash"

ENV_ENGINE_KEY: Final = "VLLM_API_KEY"  # vLLM's own name, in its pods and in the routers

CONFIG_DIRECTORY: Final = "/etc/flotilla"
CONFIG_PATH: Final = f"{CONFIG_DIRECTORY}/config.json"

HEADER_SESSION: Final = "X-Session-Id"
HEADER_PRIORITY: Final = "X-Flotilla-Priority"
HEADER_REPLICA: Final = "X-Flotilla-Replica"
HEADER_REQUEST: Final = "X-Request-Id"

PORT_ENGINE: Final = 8000
PORT_ENGINE_RANKS: Final = 29501  # where the stages of a group meet
PORT_ROUTER: Final = 8000
PORT_ROUTER_INTERNAL: Final = 8001
PORT_ROUTER_METRICS: Final = 8404
PORT_ROUTER_AGENT: Final = 8405
PORT_GATEWAY: Final = 8080
PORT_RETRIEVER: Final = 8080
PORT_METRICS: Final = 9090
PORT_MILVUS: Final = 19530
PORT_REDIS: Final = 6379


# Vector index: builds and the retriever ---------------------------------------------------------------------

ANNOTATION_ATTEMPT: Final = f"{DOMAIN}/attempt"  # on a Job: how many times this step was tried before
LABEL_STEP: Final = f"{DOMAIN}/step"
LABEL_BUILD: Final = f"{DOMAIN}/build"

ENV_MILVUS_TOKEN: Final = "FLOTILLA_MILVUS_TOKEN"  # noqa: S105 (a name, not a token)
ENV_EMBEDDER_KEY: Final = "FLOTILLA_EMBEDDER_KEY"
ENV_HUB_TOKEN: Final = "HF_TOKEN"  # noqa: S105

SOURCE_DIRECTORY: Final = "/source"
WORKSPACE_DIRECTORY: Final = "/workspace"
TOKENIZER_DIRECTORY: Final = "/model"
TERMINATION_LOG_PATH: Final = "/dev/termination-log"
TERMINATION_LOG_BYTES: Final = 4096  # the kubelet's limit for one container

EXIT_RETRY: Final = 1  # a step failed and another try may help
EXIT_PERMANENT: Final = 3  # a step failed until a person changes something

# What a change of our own code means for generations: each is part of a generation's id.
PARSER_VERSION: Final = 2
CHUNKER_VERSION: Final = 1
COLLECTION_SCHEMA_VERSION: Final = 1
CHUNK_PREFIX_TOKENS: Final = 32  # room for title and heading in front of a chunk's own tokens
CHUNK_SPECIAL_TOKENS: Final = 2  # what a tokenizer adds around a text


class _Section(BaseModel):
    """A part of a configuration file; keys this version does not know are left to the version that does."""

    model_config = ConfigDict(extra="ignore", frozen=True)


# Models: what an engine pod's init containers say of the model ----------------------------------------------

MODEL_FACTS_CONTAINER: Final = "read-model-facts"


class ModelFacts(_Section):
    """What a model's files say of it, left as the termination message of the container that read them.

    `config` holds the fields of its config.json that memory follows from, lists of names counted.
    `file_bytes` is the size of its weight files together, `stored_bytes` that of one number in them; None
    where it is not known.
    """

    config: dict[str, JsonValue]
    file_bytes: int | None = None
    stored_bytes: float | None = None


class FilesRole(StrEnum):
    """What files are to an engine."""

    MODEL = "Model"
    GUESSER = "Guesser"
    ADAPTER = "Adapter"


class EngineFiles(_Section):
    """Files that must be there before an engine starts, and the field of the ModelReplicaSet that asks for
    them. With a `source` on the hub they are fetched; without one they lie in the folder already.
    """

    model_config = ConfigDict(
        extra="ignore", frozen=True, alias_generator=to_camel, validate_by_name=True, validate_by_alias=True
    )

    role: FilesRole
    field: str
    folder: str
    source: str | None = None
    revision: str | None = None
    highest_rank: int | None = None


class BuildStep(StrEnum):
    """The steps of a build, in order; each is a Job."""

    PLAN = "plan"
    SHARDS = "shards"
    PROMOTE = "promote"


class BuildReason(StrEnum):
    """Why a step of a build stopped."""

    PATH_MISSING = "PathMissing"
    SOURCE_EMPTY = "SourceEmpty"
    SOURCE_UNREADABLE = "SourceUnreadable"
    EMBEDDER_UNREACHABLE = "EmbedderUnreachable"
    EMBEDDER_UNAUTHORIZED = "EmbedderUnauthorized"
    MODEL_UNKNOWN = "ModelUnknown"
    DIMENSION_MISMATCH = "DimensionMismatch"
    CHUNKS_TOO_LONG = "ChunksTooLong"
    MILVUS_UNREACHABLE = "MilvusUnreachable"
    WORKSPACE_INCOMPLETE = "WorkspaceIncomplete"
    TOO_MANY_DEAD_LETTERS = "TooManyDeadLetters"
    COUNT_MISMATCH = "CountMismatch"
    UNEXPECTED = "Unexpected"


class MilvusConnection(_Section):
    """Where the index is kept; a token, if any, is in the environment variable ENV_MILVUS_TOKEN."""

    uri: str
    database: str = "default"


class Embedder(_Section):
    """The model that made, or makes, a generation's vectors.

    `identity` is source and revision of its weights. `tokenizer_repository` is where the tokenizer is fetched
    from when no model folder is mounted at TOKENIZER_DIRECTORY.
    """

    model_ref: str
    url: str
    model: str
    identity: str
    dimension: int
    batch_size: int = 64
    normalize: bool = True
    tokenizer_repository: str | None = None
    tokenizer_revision: str | None = None


class SourceConfig(_Section):
    """Which files under `root` are the documents; no include pattern means every file."""

    root: str
    uri: str
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    max_document_mib: int = 64


class ChunkingConfig(_Section):
    """How long a chunk is, and how much of it the next one repeats."""

    chunk_tokens: int = 220
    overlap_tokens: int = 32


class CollectionConfig(_Section):
    """The generation's own collection and how it is indexed; `prefix` starts the names of all generations."""

    name: str
    alias: str
    prefix: str
    index_type: str = "HNSW"
    metric: str = "COSINE"
    parameters: dict[str, int] = Field(default_factory=dict)
    shards: int = 1
    replicas: int = 1


class BuildConfig(_Section):
    """`config.json` of the three steps of one build."""

    build: str
    generation: str
    source: SourceConfig
    chunking: ChunkingConfig = ChunkingConfig()
    embedder: Embedder
    milvus: MilvusConnection
    collection: CollectionConfig
    workspace: str = WORKSPACE_DIRECTORY
    shard_documents: int = 2000
    embedding_concurrency: int = 2
    max_failed_percent: float = 1
    require_count_parity: bool = True
    keep_generations: int = 2


class DocumentCounts(_Section):
    """discovered = indexed + duplicates + dead_lettered, always; `removed` were indexed and are no more."""

    discovered: int = 0
    indexed: int = 0
    duplicates: int = 0
    dead_lettered: int = 0
    removed: int = 0


class DeadLetter(_Section):
    """A document that could not be indexed, and why."""

    document: str
    reason: str
    message: str


class StepReport(_Section):
    """What a step's pod leaves as its termination message, which is how the operator hears of it.

    `reason` is None when the step succeeded; else `message` says what to do. `dead_letters` is a sample: the
    whole list lies in the workspace.
    """

    step: BuildStep
    reason: BuildReason | None = None
    message: str = ""
    documents: DocumentCounts = DocumentCounts()
    chunks: int = 0
    shards: int = 0
    tokenizer: str = ""
    count_parity: bool | None = None
    dead_letters: tuple[DeadLetter, ...] = ()


class RetrieverConfig(_Section):
    """`config.json` of the retriever; what embeds a query is written in the collection the alias leads to."""

    index: str
    milvus: MilvusConnection
    alias: str
    top_k: int = 8
    deadline_milliseconds: int = 500
    port: int = PORT_RETRIEVER


class _WireModel(BaseModel):
    model_config = ConfigDict(
        alias_generator=to_camel, validate_by_name=True, validate_by_alias=True, frozen=True
    )


class RetrieveRequest(_WireModel):
    """Body of POST /v1/retrieve."""

    query: str = Field(min_length=1, max_length=8192)
    top_k: int | None = Field(default=None, ge=1, le=100)


class Passage(_WireModel):
    """One chunk of a document; `page` for PDF, `anchor` for HTML and Markdown, where there is one."""

    id: str
    document: str
    title: str
    heading: str
    page: int | None = None
    anchor: str | None = None
    text: str
    score: float


class RetrieveResponse(_WireModel):
    """Answer of POST /v1/retrieve, best passage first."""

    passages: tuple[Passage, ...]
    generation: str
    took_milliseconds: float


class RetrieverStatus(_WireModel):
    """Answer of GET /v1/status; `generation` is None before the first promotion."""

    index: str
    generation: str | None = None
    build: str | None = None
    chunks: int | None = None
    embedder: str | None = None
    problem: str | None = None
    requests: int = 0
    p50_milliseconds: float | None = None
    p99_milliseconds: float | None = None


TLS_FILE: Final = "tls.pem"
TLS_KEY_FILE: Final = "tls.pem.key"  # HAProxy looks for it beside the certificate


class RouterTask(StrEnum):
    """What the set's model does; embeddings have no conversation, so they are not kept on a replica."""

    GENERATE = "Generate"
    EMBED = "Embed"


class ListenFamily(StrEnum):
    """The address families that the router's listeners take."""

    DUAL = "Dual"
    IPV4 = "IPv4"
    IPV6 = "IPv6"


class RouterConfig(_Section):
    """`config.json` of a router pod: read by `render` for HAProxy and by the agent beside it.

    `models` are the names that every replica serves, adapters too; none while a model is renamed. The engine
    selector must find the pods of one set; pods whose LABEL_STAGE is not "0" are passed over, since only a
    group's leader serves. The router selector finds the set's router pods: limits are per process, so each
    agent divides by the number alive.
    `caller_keys_directory` is where the secret of callers' keys is mounted; None lets everyone in.
    `tls_directory` is where the certificate and its key are mounted, as TLS_FILE and TLS_KEY_FILE: then
    `port` speaks HTTPS, and `internal_port` speaks HTTP to Flotilla's own pods.
    `hold_at_zero` makes a request that finds no replica wait for one, up to the queue's time and length.
    `engine_key_environment` names the environment variable of HAProxy that holds the key the engines ask for;
    None passes on what the caller sent.
    `run_directory` is an emptyDir that HAProxy and the agent share. `drain_deadline_seconds` is how long a
    router pod that is being deleted waits for its streams; the pod's grace period must be longer. The two
    `promised_…` are the times that answers are counted against.
    """

    name: str = Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)
    namespace: str = Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)
    models: tuple[str, ...]
    task: RouterTask = RouterTask.GENERATE
    engine_selector: dict[str, str] = Field(min_length=1)
    router_selector: dict[str, str] = Field(min_length=1)
    max_num_seqs: int = Field(default=48, ge=1)
    load_factor: float = Field(default=1.25, gt=1, le=10)
    max_queue: int = Field(default=1000, ge=1)
    max_request_mib: int = Field(default=16, ge=1, le=1024)
    max_connections: int = Field(default=8_000, ge=100)
    queue_timeout_seconds: int = Field(default=60, ge=1)
    request_timeout_seconds: int = Field(default=600, ge=1)
    client_timeout_seconds: int = Field(default=30, ge=1)
    retry_after_seconds: int = Field(default=5, ge=1)
    drain_deadline_seconds: int = Field(default=300, ge=1)
    promised_first_byte_seconds: float | None = None
    promised_total_seconds: float | None = None
    caller_keys_directory: str | None = None
    tls_directory: str | None = None
    hold_at_zero: bool = False
    engine_key_environment: str | None = Field(default=None, pattern=r"^[A-Z_][A-Z0-9_]*$")
    run_directory: str = "/run/flotilla"
    listen_family: ListenFamily = ListenFamily.DUAL
    port: int = PORT_ROUTER
    internal_port: int = PORT_ROUTER_INTERNAL
    metrics_port: int = PORT_ROUTER_METRICS
    agent_port: int = PORT_ROUTER_AGENT
    engine_port: int = PORT_ENGINE


class ServerState(StrEnum):
    """What HAProxy does with a server: sends it requests, lets it finish, or nothing yet."""

    READY = "Ready"
    DRAINING = "Draining"
    ABSENT = "Absent"


class RouterServer(_WireModel):
    """One replica as one router sees it.

    `acknowledged_drain_epoch` is the epoch of the drain this router has applied: it sends the replica nothing
    new, and `in_flight` is all that is left of it here. `idle_looks` counts how often in a row, since that
    drain began, the engine itself had nothing running or waiting. `answers`, `failed` (500 and above) and
    `kept` (within the promised times) are those of the last half hour, `sessions` the conversations of the
    last ten minutes: levels and no counters, which outlive the agent as far as HAProxy's ring of lines goes.
    """

    name: str
    id: int
    address: str
    state: ServerState
    in_flight: int
    queued: int
    acknowledged_drain_epoch: int | None = None
    idle_looks: int = 0
    answers: int = 0
    failed: int = 0
    kept: int = 0
    sessions: int = 0


class RouterStatus(_WireModel):
    """Answer of GET /v1/status on PORT_ROUTER_AGENT, which the operator scrapes from every router pod.

    `synced` says that every replica's state has been applied at least once since HAProxy started. `waiting`
    is every request in a queue, `held` those that wait for a first replica, `in_flight` those a replica works
    on. `idle_seconds` is how long there has been none of them, the agent's start at the earliest. `refused`
    counts by reason since then. `unusable` are pods that cannot be servers, each with the problem.
    """

    name: str
    synced: bool
    draining: bool
    live_routers: int
    waiting: int
    held: int = 0
    in_flight: int
    idle_seconds: float = 0
    max_connections_per_replica: int
    queue_limit: int
    servers: tuple[RouterServer, ...]
    refused: dict[str, int]
    unusable: dict[str, str]


# Agent fleet: tasks in Redis, the gateway and the workers ---------------------------------------------------

ENV_REDIS_URL: Final = "FLOTILLA_REDIS_URL"  # the whole URL, where the fleet's Redis is the user's own
ENV_MODEL_KEY_PREFIX: Final = "FLOTILLA_MODEL_KEY_"  # followed by the model's role in capitals
ENV_POD_NAME: Final = "FLOTILLA_POD_NAME"

REDIS_SECRET_DIRECTORY: Final = "/var/run/flotilla/redis"  # noqa: S105
REDIS_PASSWORD_KEY: Final = "password"  # noqa: S105
CALLERS_DIRECTORY: Final = "/var/run/flotilla/callers"
CLUSTER_CA_DIRECTORY: Final = "/var/run/flotilla/cluster"
CLUSTER_CA_PATH: Final = f"{CLUSTER_CA_DIRECTORY}/ca.crt"
CLUSTER_CA_CONFIG_MAP: Final = "kube-root-ca.crt"  # Kubernetes writes it into every namespace


DEFAULT_ROLE: Final = "Default"


def caller_entry(kind: str, name: str) -> str:
    """The entry of a model's `authSecretRef` that is the key of this fleet or index build."""
    return f"{kind.lower()}-{name}"


class Priority(StrEnum):
    """How soon a task wants to run; the values are also those of HEADER_PRIORITY."""

    INTERACTIVE = "Interactive"
    BATCH = "Batch"


class GatewayAuth(StrEnum):
    """How callers of the task API prove who they are."""

    KUBERNETES = "Kubernetes"
    SECRET = "Secret"  # noqa: S105
    NONE = "None"


class TaskLimits(_Section):
    """What one task may use at most; a step is one turn of the loop, whatever it does at once."""

    max_steps: int = 24
    max_tokens: int = 200_000
    max_wall_seconds: float = 600


class QueueConfig(_Section):
    """Where a fleet's tasks stand.

    `fleet` is `namespace/name` and starts every key, so fleets may share a Redis. Without `url` the whole URL
    is in ENV_REDIS_URL; with it, the password is in the file `password_path`, read anew for each connection.
    """

    fleet: str
    url: str | None = None
    password_path: str | None = None
    max_waiting: int = 100_000
    result_ttl_seconds: int = 86_400
    lease_seconds: float = 5
    max_attempts: int = 5


class ModelConnection(_Section):
    """A model a fleet calls: `url` ends in /v1, `context_tokens` is what prompt and answer may hold.

    `key_environment` names the environment variable that holds its API key, where it asks for one.
    """

    role: str
    name: str
    url: str
    model: str
    context_tokens: int = 4096
    key_environment: str | None = None


class IndexConnection(_Section):
    """An index a fleet retrieves from; `url` is that of POST /v1/retrieve, the deadline the index's own."""

    name: str
    url: str
    deadline_milliseconds: int = 500


class WorkerConfig(_Section):
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


class GatewayConfig(_Section):
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


class FleetStatus(_WireModel):
    """Answer of GET /v1/status on the gateway's PORT_METRICS, which the operator scrapes.

    Every gateway reads the same Redis, so any one's answer is the fleet's. Figures without a time are of now;
    the others are of the tasks that ended in the last hour, and None when there was none. `busy_seconds` is
    where these tasks spent their time: `Queue`, `Model/<name>`, `Index/<name>`.
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

    All of a fleet's keys carry one hash tag, so a Redis Cluster keeps them on one shard: taking a task off
    the queue and granting its lease is one script, and so is submitting it.
    """

    def __init__(self, fleet: str) -> None:
        self.prefix: Final = f"flotilla:{{{fleet}}}:"

    def queue(self, priority: Priority) -> str:
        """The stream of the ids of waiting tasks."""
        return f"{self.prefix}queue:{priority}"

    @property
    def leases(self) -> str:
        """Sorted set of the running tasks by the time their lease ends."""
        return f"{self.prefix}leases"

    @property
    def tasks(self) -> str:
        """Sorted set of all task ids; ids sort by time."""
        return f"{self.prefix}tasks"

    def tasks_of(self, caller: str) -> str:
        """Sorted set of one caller's task ids."""
        return f"{self.prefix}tasks-of:{caller}"

    @property
    def ended(self) -> str:
        """Sorted set of ended tasks by the time they ended."""
        return f"{self.prefix}ended"

    def task(self, task_id: str) -> str:
        """The hash of one task."""
        return f"{self.prefix}task:{task_id}"

    def journal(self, task_id: str) -> str:
        """The append-only list of one task's journal."""
        return f"{self.prefix}journal:{task_id}"

    def window(self, minute: int) -> str:
        """The hash of what ended in one minute since the epoch."""
        return f"{self.prefix}window:{minute}"
