"""The contract for agent fleets: tasks in Redis, the gateway and the workers."""

from enum import StrEnum
from typing import Any, Final

from pydantic import Field

from flotilla_runtime.contract.admission import CAPACITY_PATH, Admission
from flotilla_runtime.contract.names import CONFIG_DIRECTORY, DOMAIN, PORT_GATEWAY, PORT_METRICS
from flotilla_runtime.contract.sections import Section, WireModel
from flotilla_runtime.contract.telemetry import TelemetryConfig

ENV_REDIS_URL: Final = "FLOTILLA_REDIS_URL"  # the whole URL of an external Redis
ENV_MODEL_KEY_PREFIX: Final = "FLOTILLA_MODEL_KEY_"  # followed by the model's role in capitals
ENV_POD_NAME: Final = "FLOTILLA_POD_NAME"

REDIS_SECRET_DIRECTORY: Final = "/var/run/flotilla/redis"  # noqa: S105
REDIS_PASSWORD_KEY: Final = "password"  # noqa: S105
SENTINEL_DIRECTORY: Final = "/var/run/flotilla/sentinel"
SENTINEL_PASSWORD_PATH: Final = f"{SENTINEL_DIRECTORY}/password"
PAYLOADS_DIRECTORY: Final = "/var/run/flotilla/payloads"
PAYLOADS_KEY_ENTRY: Final = "accessKeyId"
PAYLOADS_SECRET_ENTRY: Final = "secretAccessKey"  # noqa: S105
TOOLS_DIRECTORY: Final = "/var/run/flotilla/tools"  # below it, a folder for each tool's secrets
ADOPTED_FILE: Final = "adopted.json"
ADOPTED_PATH: Final = f"{CONFIG_DIRECTORY}/{ADOPTED_FILE}"
INDEX_KEYS_DIRECTORY: Final = "/var/run/flotilla/index-keys"  # of workers: a file for each index
LABEL_INDEX_KEYS: Final = f"{DOMAIN}/index-keys"  # on a worker that sends a key with each search
INDEX_KEYS_SENT: Final = "sent"
CALLERS_DIRECTORY: Final = "/var/run/flotilla/callers"
CLUSTER_CA_DIRECTORY: Final = "/var/run/flotilla/cluster"
CLUSTER_CA_PATH: Final = f"{CLUSTER_CA_DIRECTORY}/ca.crt"
CLUSTER_CA_CONFIG_MAP: Final = "kube-root-ca.crt"  # Kubernetes writes it into every namespace
API_TOKEN_DIRECTORY: Final = "/var/run/flotilla/api-token"  # noqa: S105 - of a gateway's own token
API_TOKEN_FILE: Final = "token"  # noqa: S105
API_TOKEN_PATH: Final = f"{API_TOKEN_DIRECTORY}/{API_TOKEN_FILE}"

DEFAULT_ROLE: Final = "Default"
EMBED_ROLE: Final = "Embed"

# How finished calls are counted besides by part of the fleet.
CACHE_HIT: Final = "Cache/Hit"
CACHE_MISS: Final = "Cache/Miss"


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
    """The most that a task and the tasks that it spawns may use together.

    A step is one call of a model, or the first search of all indexes. `max_wall_seconds` does not count the
    time suspended. `max_depth` is how many levels of spawned tasks there may be, `max_fan_out` how many
    spawned tasks of one task may be under way at once. `max_cost_usd` needs a price for every model.
    """

    max_steps: int = 24
    max_tokens: int = 200_000
    max_cost_usd: float | None = None
    max_wall_seconds: float = 600
    max_depth: int = 2
    max_fan_out: int = 5


class Approval(StrEnum):
    """Whether a person must agree to a call of a tool."""

    NEVER = "Never"
    ALWAYS = "Always"


class Effect(StrEnum):
    """Whether a call may be repeated: always, with the same key, or never."""

    PURE = "Pure"
    IDEMPOTENT = "Idempotent"
    UNSAFE = "Unsafe"


class Retrieval(StrEnum):
    """When the built-in agent searches: each index before the first turn, or when the model asks to."""

    FIRST = "First"
    TOOL = "Tool"


class RedisTopology(StrEnum):
    """How a Redis is run: one server, primaries watched by Sentinel, or a Cluster."""

    SINGLE = "Single"
    SENTINEL = "Sentinel"
    CLUSTER = "Cluster"


class Pricing(Section):
    """USD for a million tokens; None is unknown. Cached input without a price costs what input costs."""

    input_per_million_usd: float | None = None
    cached_input_per_million_usd: float | None = None
    output_per_million_usd: float | None = None

    @property
    def is_known(self) -> bool:
        """Whether the cost of each call can be told."""
        return None not in (self.input_per_million_usd, self.output_per_million_usd)


class ModelTimeouts(Section):
    """How long a call of a model may take to the first token, between two tokens, and as a whole."""

    first_token_seconds: float = 120
    between_tokens_seconds: float = 30
    total_seconds: float = 300


class PayloadsConfig(Section):
    """A bucket for large texts. The files of `credentials_directory` are the entries of a mounted secret."""

    endpoint: str
    bucket: str
    prefix: str = ""
    region: str = "us-east-1"
    credentials_directory: str | None = None


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
    topology: RedisTopology = RedisTopology.SINGLE
    sentinel_master: str | None = None
    sentinel_password_path: str | None = None
    user: str | None = None  # of the managed Redis; None: the user of the URL, or its default one
    max_stored_mib: float | None = None  # None: three quarters of Redis' maxmemory
    queue_percent: float = 80  # of places and bytes that one caller may hold
    journal_ttl_seconds: int = 3600
    conversation_ttl_seconds: int = 86_400  # after the last task
    dead_letter_ttl_seconds: int = 604_800
    unknown_effect_seconds: int = 86_400
    payloads: PayloadsConfig | None = None  # None: large texts are in Redis


class ModelConnection(Section):
    """A model that a fleet calls. `url` ends in /v1; `context_tokens` limits prompt and answer together.

    An answer may have `max_output_tokens`; None is what the context and the task's budget leave.

    With `asks_context` the endpoint's list of models is asked, and may say another length. Calls for which
    `rate_limit` has no room, or which the model does not take at the moment, go to the role `overflow_to`.

    With `isolate_tenants` requests have a `cache_salt`, of the task's tenant.

    `key_environment` names the environment variable with the API key, if the model needs one. With
    `tokenizes` the server counts tokens at `/tokenize`, as vLLM does.
    """

    role: str
    name: str
    url: str
    model: str
    context_tokens: int = 4096
    max_output_tokens: int | None = None
    asks_context: bool = False
    key_environment: str | None = None
    tokenizes: bool = False
    pricing: Pricing = Pricing()
    timeouts: ModelTimeouts = ModelTimeouts()
    rate_limit: str | None = None
    overflow_to: str | None = None
    isolate_tenants: bool = False


class IndexConnection(Section):
    """An index that a fleet searches; `url` is that of POST /v1/retrieve, and the deadline is the index's.

    The fleet's key is in the file `key_path`, which is read for each search.
    """

    name: str
    url: str
    deadline_milliseconds: int = 500
    key_path: str | None = None


class HttpMethod(StrEnum):
    """The methods of tools over HTTP: arguments go as JSON with the first three, else as a query."""

    POST = "POST"
    PUT = "PUT"
    PATCH = "PATCH"
    GET = "GET"
    DELETE = "DELETE"


class HttpEndpoint(Section):
    """A URL to call. Each file of `headers_directory`, a mounted secret, is a header."""

    url: str
    method: HttpMethod = HttpMethod.POST
    headers_directory: str | None = None


class Reconcile(Section):
    """Tells whether an Unsafe call happened; exactly one of both is given. `python` is `module:function`."""

    http: HttpEndpoint | None = None
    python: str | None = None


class OpenApiOperation(Section):
    """An operation of the OpenAPI document at `document_url`, which is read by the workers.

    `url` is that of the server; None: the one that the document names, if it is the document's own host. Each
    file of `headers_directory` is a header of its calls, and of the document's request to the same host.
    """

    document_url: str
    operation_id: str
    url: str | None = None
    headers_directory: str | None = None


class McpToolChoice(Section):
    """A tool of an MCP server that the agent may call; `effect` None is that of the server's entry."""

    name: str
    effect: Effect | None = None


class McpServer(Section):
    """A Model Context Protocol server, over streamable HTTP. Without `tools`, all of its tools."""

    url: str
    headers_directory: str | None = None
    tools: tuple[McpToolChoice, ...] = ()


class SqlQuery(Section):
    """A statement for the PostgreSQL whose URL is in the file `url_path`, which is read for each call.

    Its arguments stand in it as `:name`.
    """

    url_path: str
    query: str
    max_rows: int = 100


class ToolConfig(Section):
    """A tool of the agent; exactly one of `http`, `openapi`, `mcp`, `sql` and `python`.

    With `mcp` it stands for each tool of a server. `parameters` is the JSON Schema of the arguments. MCP
    servers, OpenAPI documents and Python functions bring their own, and their descriptions.
    """

    name: str
    description: str = ""
    parameters: dict[str, Any] | None = None
    http: HttpEndpoint | None = None
    openapi: OpenApiOperation | None = None
    mcp: McpServer | None = None
    sql: SqlQuery | None = None
    python: str | None = None
    effect: Effect = Effect.UNSAFE
    reconcile: Reconcile | None = None
    approval: Approval = Approval.NEVER
    timeout_seconds: float = 30
    max_result_kib: int = 256
    rate_limit: str | None = None


class RateLimit(Section):
    """A limit on the calls of all workers together; None is no limit."""

    name: str
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None


class CacheConfig(Section):
    """The kinds of results that are kept for other tasks of the same tenant.

    With `semantic_threshold` a search is also answered with what a similar one found.
    """

    retrieval: bool = True
    pure_tools: bool = True
    semantic_threshold: float | None = None


class SubAgentConfig(Section):
    """An agent that the fleet's own can give parts of its task to, and that takes tasks of its own.

    It has the tools and indexes of these names alone, and the model with this role in place of Default's.
    """

    name: str
    description: str
    prompt: str
    role: str = DEFAULT_ROLE
    tools: tuple[str, ...] = ()
    indexes: tuple[str, ...] = ()


class JudgeConfig(Section):
    """A model, by its role, that judges results by this prompt."""

    role: str = "Judge"
    prompt: str


class ValidatorConfig(Section):
    """A check of a task's result; exactly one of `http`, `python` and `judge`.

    The time-out is that of `http` and `python`; a judge has its model's.
    """

    name: str
    http: HttpEndpoint | None = None
    python: str | None = None
    judge: JudgeConfig | None = None
    timeout_seconds: float = 30


class WorkerConfig(Section):
    """`config.json` of the agent workers.

    Exactly one of `prompt`, for the built-in agent, `entrypoint` (`module:function`) and `graph`
    (`module:attribute`, of LangGraph) is set. A worker takes tasks of its own `revision`, and of those in the
    file `adopted_path`, a JSON list that is read anew every few seconds. Revision "" stands for tasks of
    workers that knew no revisions.
    """

    queue: QueueConfig
    prompt: str = ""
    entrypoint: str | None = None
    graph: str | None = None
    has_executors: bool = False  # they run the Python functions of tools and validators
    retrieval: Retrieval = Retrieval.FIRST
    tools: tuple[ToolConfig, ...] = ()
    agents: tuple[SubAgentConfig, ...] = ()
    validators: tuple[ValidatorConfig, ...] = ()
    revision: str = ""
    adopted_path: str | None = None
    models: tuple[ModelConnection, ...]
    indexes: tuple[IndexConnection, ...] = ()
    rate_limits: tuple[RateLimit, ...] = ()
    cache: CacheConfig | None = None  # None: nothing is kept
    limits: TaskLimits = TaskLimits()
    telemetry: TelemetryConfig | None = None  # None: no traces
    concurrency: int = 200
    model_timeout_seconds: float = 300
    handover_seconds: float = 45  # how long calls may still run after SIGTERM
    metrics_port: int = PORT_METRICS


class GatewayConfig(Section):
    """`config.json` of the gateway.

    `tls_directory` is the mount of the certificate and its key, as TLS_FILE and TLS_KEY_FILE. With it, `port`
    serves HTTPS.
    """

    queue: QueueConfig
    namespace: str
    name: str
    auth: GatewayAuth
    revision: str = ""  # of the tasks that are submitted from now on
    trusted: tuple[str, ...] = ()  # callers of mode Secret that may name another tenant
    approvers: tuple[str, ...] = ()  # callers of mode Secret that may decide on what waits for approval
    agents: tuple[str, ...] = ()  # those that a task may name in place of the fleet's own
    models: tuple[str, ...] = ()  # the names of the fleet's models
    unpriced_models: tuple[str, ...] = ()  # models without a price: with one, no task may limit its cost
    limits: TaskLimits = TaskLimits()
    isolates_tenants: bool = False  # each model does, so that callers may know what came from its cache
    requests_per_minute: int | None = None  # of one caller
    serves_openai: bool = False
    serves_a2a: bool = False
    description: str | None = None  # of the agent, in its card
    telemetry: TelemetryConfig | None = None  # None: no traces
    max_body_bytes: int = 1024 * 1024
    streams_per_caller: int = 200  # event streams of one caller at one gateway
    callers_directory: str = CALLERS_DIRECTORY
    cluster_ca_path: str = CLUSTER_CA_PATH
    api_token_path: str = API_TOKEN_PATH
    accepts_cluster_tokens: bool = False  # tokens of the API server's own audience too
    tls_directory: str | None = None
    capacity_path: str = CAPACITY_PATH  # of a FleetCapacity; without it nothing limits the tasks at work
    port: int = PORT_GATEWAY
    metrics_port: int = PORT_METRICS


class ModelDemand(WireModel):
    """The demand of a fleet for one model, as the model's autoscaler counts it.

    `calls` are under way now. `waiting_tasks` wait in the queue, `tasks_between_calls` run and make no call
    of this model right now. A task makes `calls_per_task`, each takes `seconds_per_call`: means of the last
    hour, None when there was none. Index builds will report the same form.
    """

    calls: int = 0
    waiting_tasks: int = 0
    tasks_between_calls: int = 0
    calls_per_task: float | None = None
    seconds_per_call: float | None = None


class ToolTrouble(StrEnum):
    """Why what a server declares of a tool cannot be used."""

    NO_ANSWER = "NoAnswer"  # the MCP server or the OpenAPI document does not answer
    MISSING = "Missing"  # it does, and has no such tool or operation
    UNUSABLE = "Unusable"  # what it declares can be no tool


class ToolReport(WireModel):
    """A problem that workers found with the declaration of a tool of the spec, within the last minutes."""

    tool: str
    trouble: str  # ToolTrouble's values
    message: str


class RevisionTasks(WireModel):
    """How many tasks of one revision there are."""

    waiting: int = 0
    running: int = 0
    suspended: int = 0


class ToolRequestsOfRevision(WireModel):
    """How many calls of functions wait for an executor of one revision, and how many one runs."""

    waiting: int = 0
    running: int = 0


class ToolRequestFigures(WireModel):
    """The executors' queue now: by revision, and the calls that each executor runs, by its pod's name."""

    revisions: dict[str, ToolRequestsOfRevision] = Field(default_factory=dict)
    executors: dict[str, int] = Field(default_factory=dict)


class FleetStatus(WireModel):
    """The answer to GET /v1/status on the gateway's PORT_METRICS, which the operator scrapes.

    Every gateway reads the same Redis, so each one answers for the whole fleet. `waiting`, `in_flight`,
    `unknown_effects`, `waiting_for_approval`, `dead_letters` and `oldest_waiting_seconds` are current values.
    The other figures cover the tasks that ended in the last hour; percentiles are None when there was none.
    `busy_seconds` says where these tasks spent their time: `Queue`, `Model/<name>`, `Index/<name>`,
    `Tool/<name>`, and `RateLimit/<name>` for calls that waited for their turn. `waiting` includes suspended
    tasks whose timer has rung. `cost_usd` is None where a price is unknown. `certificate_problem` is of the
    pod that answers: why the certificate in its Secret cannot be used.
    """

    fleet: str
    waiting: int
    in_flight: int
    unknown_effects: int = 0
    waiting_for_approval: int = 0
    dead_letters: int = 0
    oldest_waiting_seconds: float | None = None
    ended: dict[str, int] = Field(default_factory=dict)  # by terminal reason
    recovered: int = 0
    steps: int = 0
    tokens: int = 0
    p50_seconds: float | None = None
    p95_seconds: float | None = None
    wait_p95_seconds: float | None = None
    took_ticks: dict[str, int] = Field(default_factory=dict)  # how many tasks took how long (durations.py)
    busy_seconds: dict[str, float] = Field(default_factory=dict)
    cache_hits: int = 0  # calls that the cache answered
    cache_misses: int = 0  # calls that it could have answered
    suspended: int = 0
    cost_usd: float | None = None
    models: dict[str, ModelDemand] = Field(default_factory=dict)  # by the model's name
    revisions: dict[str, RevisionTasks] = Field(default_factory=dict)
    workers: dict[str, int] = Field(default_factory=dict)  # tasks that each worker holds, by its pod's name
    used_mib: float | None = None
    limit_mib: float | None = None
    replicas: int | None = None  # of Redis
    store_problem: str | None = None  # what makes an external Redis unfit: StoreProblem's values
    certificate_problem: str | None = None
    tools: tuple[ToolReport, ...] = ()  # those that cannot be used, by their names
    admission: Admission | None = None  # None: of a gateway that knows no admission
    tool_requests: ToolRequestFigures = ToolRequestFigures()


class StoreProblem(StrEnum):
    """Why a Redis is unfit to hold tasks."""

    EVICTS = "Evicts"
    NO_APPEND_ONLY_FILE = "NoAppendOnlyFile"
    TOO_OLD = "TooOld"
    NO_REPLICA_REQUIRED = "NoReplicaRequired"  # fails over without min-replicas-to-write
    NO_LIMIT = "NoLimit"  # no maxmemory and no maxStoredMiB: works, but nothing stops submissions


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

    def calls(self, revision: str = "") -> str:
        """The list from which an idle worker takes one call for each task that comes."""
        return f"{self.prefix}calls@{revision}" if revision else f"{self.prefix}calls"

    @property
    def leases(self) -> str:
        """The sorted set of the running tasks, by the time at which their lease ends."""
        return f"{self.prefix}held"

    @property
    def old_leases(self) -> str:
        """The same for tasks that workers of version 0.1.0 run: they take no task of a newer worker."""
        return f"{self.prefix}leases"

    @property
    def workers(self) -> str:
        """The sorted set of the workers, by the time until which they count as alive."""
        return f"{self.prefix}workers"

    def held_by(self, worker: str) -> str:
        """The set of the tasks that a worker holds."""
        return f"{self.prefix}held-by:{worker}"

    @property
    def admitted(self) -> str:
        """How many tasks may be at work; gone while nothing limits them, or no gateway says so."""
        return f"{self.prefix}admitted"

    @property
    def confirmations(self) -> str:
        """The number that is raised before a replica is asked whether it has everything up to there."""
        return f"{self.prefix}confirmations"

    def payloads(self, task_id: str) -> str:
        """The hash of the large texts of a task, by their own hashes."""
        return f"{self.prefix}payloads:{task_id}"

    @property
    def salt_key(self) -> str:
        """The key of the salts with which models keep their caches of tenants apart."""
        return f"{self.prefix}salt-key"

    @property
    def drops(self) -> str:
        """The set of the tasks of which the object store has something that is to be deleted."""
        return f"{self.prefix}drops"

    @property
    def tool_reports(self) -> str:
        """The sorted set of ToolReports as JSON, by the time until which they hold."""
        return f"{self.prefix}tool-reports"

    def events(self, task_id: str) -> str:
        """The sharded channel on which a task's journal is said to have grown."""
        return f"{self.prefix}events:{task_id}"

    def text(self, task_id: str) -> str:
        """The stream of what models write for a task now, and the sharded channel of who watches it."""
        return f"{self.prefix}text:{task_id}"

    def limit(self, name: str) -> str:
        """The hash with what a rate limit of the fleet has left."""
        return f"{self.prefix}limit:{name}"

    def limit_line(self, name: str) -> str:
        """The list of the calls that stand in line at a rate limit."""
        return f"{self.limit(name)}:line"

    def limit_place(self, name: str, call: str) -> str:
        """The key of a call in line: what it wants, or when its turn is."""
        return f"{self.limit(name)}:place:{call}"

    def cached(self, name: str) -> str:
        """A result that is kept for other tasks, or what the cache knows besides."""
        return f"{self.prefix}cache:{name}"

    def turns(self, conversation: str) -> str:
        """The list of what was said in a conversation."""
        return f"{self.prefix}turns:{conversation}"

    def checkpoints(self, space: str) -> str:
        """The hash of what a graph keeps for a task or a conversation, by the name of its space."""
        return f"{self.prefix}checkpoints:{space}"

    def rate(self, caller: str) -> str:
        """The hash with how many requests a caller may make now."""
        return f"{self.prefix}rate:{caller}"

    @property
    def tasks(self) -> str:
        """The sorted set of all task ids; ids sort by time."""
        return f"{self.prefix}tasks"

    def tasks_of(self, caller: str) -> str:
        """The sorted set of one caller's task ids."""
        return f"{self.prefix}tasks-of:{caller}"

    @property
    def approvals(self) -> str:
        """The sorted set of the tasks of which somebody may decide on a call; ids sort by time."""
        return f"{self.prefix}approvals"

    def asked(self, task_id: str) -> str:
        """The hash of the calls of a task that wait for somebody outside."""
        return f"{self.prefix}asked:{task_id}"

    def decided(self, task_id: str) -> str:
        """The hash of the decisions that were made on calls of a task."""
        return f"{self.prefix}decided:{task_id}"

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
