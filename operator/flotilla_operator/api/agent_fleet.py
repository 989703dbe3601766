"""AgentFleet: agents as durable workers with a task API."""

from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field

from flotilla_operator.api.base import ApiModel, MapList, NotYet, Rule, rules
from flotilla_operator.api.common import (
    ApiKeySecretRef,
    ApiObject,
    DeletionPolicy,
    HttpUrl,
    ImageReference,
    LongText,
    ObjectRef,
    PartName,
    Quantity,
    ResourceRequirements,
    SecretRef,
    ServiceOptions,
    ShortText,
    Status,
    Storage,
    Tls,
    UrlSecretRef,
)

ROLE = r"^[A-Z][A-Za-z0-9]*$"
PYTHON_REFERENCE = r"^[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_.]*$"


class ToolEffect(StrEnum):
    """What a call of a tool does to the world."""

    PURE = "Pure"
    IDEMPOTENT = "Idempotent"
    UNSAFE = "Unsafe"


class RedisMode(StrEnum):
    """Whose Redis holds the tasks."""

    MANAGED = "Managed"
    EXTERNAL = "External"


class Fsync(StrEnum):
    """When Redis writes to the disk."""

    ALWAYS = "Always"
    EVERY_SECOND = "EverySecond"


class AuthMode(StrEnum):
    """How callers prove who they are."""

    KUBERNETES = "Kubernetes"
    SECRET = "Secret"  # noqa: S105 (a mode, not a secret)
    NONE = "None"


PythonReference = Annotated[str, Field(max_length=256, pattern=PYTHON_REFERENCE)]


class Agent(ApiModel):
    """What the agent is."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                rule="[has(self.prompt), has(self.entrypoint), has(self.graph)].filter(g, g).size() == 1",
                message="spec.agent needs exactly one of prompt, entrypoint and graph",
            )
        )
    )

    prompt: Annotated[str, Field(min_length=1, max_length=32_768)] | None = None
    """What the agent is told first. The built-in loop plans, retrieves, acts and answers with sources."""
    entrypoint: Annotated[
        PythonReference | None, NotYet("runs a function of yours, from `image`, on the runtime's API")
    ] = None
    """`module:function` on the runtime's API, in `image`."""
    graph: Annotated[PythonReference | None, NotYet("runs a LangGraph graph of yours, from `image`")] = None
    """`module:attribute`, a LangGraph graph, in `image`."""


class ModelEndpoint(ApiModel):
    """A model outside, at an API like OpenAI's."""

    url: HttpUrl
    """Where it is; ends in /v1."""
    model: Annotated[str, Field(min_length=1, max_length=253)]
    """The name sent as `model`."""
    api_key_secret_ref: ApiKeySecretRef | None = None
    """Its API key. The default key of the secret is `apiKey`."""


class FleetModel(ApiModel):
    """A model that the agent calls, in a role."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                rule="has(self.modelRef) != has(self.endpoint)",
                message="each of spec.models needs exactly one of modelRef and endpoint",
            )
        )
    )

    role: Annotated[str, Field(min_length=1, max_length=63, pattern=ROLE)]
    """Default is called where no other role is named; further ones (Routine, Judge) are for your own code."""
    model_ref: ObjectRef | None = None
    """A ModelReplicaSet with task Generate in the same namespace."""
    endpoint: ModelEndpoint | None = None
    """A model outside."""
    rate_limit: Annotated[PartName | None, NotYet("makes calls of this model keep one of `rateLimits`")] = (
        None
    )
    """The name of one of `rateLimits`."""


class FleetIndex(ApiModel):
    """An index that the agent searches."""

    name: PartName
    """The name that the agent knows it by."""
    index_ref: ObjectRef
    """A VectorIndex in the same namespace."""


class HttpTool(ApiModel):
    """A tool behind HTTP."""

    url: HttpUrl
    """Where calls are posted."""
    headers_secret_ref: SecretRef | None = None
    """A secret whose entries are sent as headers."""


class McpTool(ApiModel):
    """Tools of a Model Context Protocol server."""

    url: HttpUrl
    """Where the server is."""
    tools: Annotated[tuple[ShortText, ...], Field(max_length=64)] = ()
    """Those of its tools that the agent may call; all where empty."""
    headers_secret_ref: SecretRef | None = None
    """A secret whose entries are sent as headers."""


class Tool(ApiModel):
    """Something that the agent may do."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                rule="[has(self.http), has(self.mcp), has(self.python)].filter(g, g).size() == 1",
                message="each of spec.tools needs exactly one of http, mcp and python",
            )
        )
    )

    name: PartName
    """The name that the agent knows it by."""
    http: HttpTool | None = None
    """A tool behind HTTP."""
    mcp: McpTool | None = None
    """Tools of a Model Context Protocol server."""
    python: PythonReference | None = None
    """`module:function`, in `image`."""
    effect: ToolEffect = ToolEffect.UNSAFE
    """Pure: may be repeated and cached. Idempotent: is repeated with the same key. Unsafe: is never blindly
    repeated."""
    timeout_seconds: Annotated[float, Field(gt=0, le=3600)] = 30
    """How long a call may take."""
    rate_limit: PartName | None = None
    """The name of one of `rateLimits`."""


class Limits(ApiModel):
    """What one task may use; a task that reaches one ends with that reason and what it has so far."""

    max_steps: Annotated[int, Field(ge=1, le=1000)] = 24
    """Turns of the loop."""
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000_000)] = 200_000
    """Tokens read and written."""
    max_cost_usd: Annotated[
        Annotated[float, Field(gt=0, le=1_000_000)] | None, NotYet("ends a task that has cost this much")
    ] = None
    """What it may cost."""
    max_wall_seconds: Annotated[int, Field(ge=1, le=604_800)] = 600
    """How long it may take, from when a worker first took it; waiting in the queue does not count."""
    max_depth: Annotated[
        Annotated[int, Field(ge=0, le=16)] | None, NotYet("bounds how deep sub-agents may go")
    ] = None
    """How deep sub-agents may go."""
    max_fan_out: Annotated[
        Annotated[int, Field(ge=1, le=1000)] | None, NotYet("bounds how many sub-agents work at once")
    ] = None
    """How many sub-agents work at once."""


class Workers(ApiModel):
    """The pods that run tasks."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                rule="self.minReplicas <= self.maxReplicas",
                message="spec.workers.minReplicas must not be greater than maxReplicas",
            )
        )
    )

    min_replicas: Annotated[int, Field(ge=0, le=1000)] = 0
    """The least."""
    max_replicas: Annotated[int, Field(ge=1, le=1000)] = 20
    """The most."""
    concurrency: Annotated[int, Field(ge=1, le=10_000)] = 200
    """How many tasks one pod runs at once."""
    resources: ResourceRequirements = ResourceRequirements()
    """What one pod asks for (core/v1)."""


class RedisStorage(Storage):
    """The claim that holds the tasks."""

    size: Quantity = "1Gi"
    """How much is asked for. Growing it works where the storage class can grow; shrinking is refused by
    Kubernetes."""


class Redis(ApiModel):
    """The Redis that holds the tasks."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                rule="(self.mode == 'External') == has(self.urlSecretRef)",
                message="spec.queue.redis.urlSecretRef goes with mode External, and mode External needs it",
            )
        )
    )

    mode: RedisMode = RedisMode.MANAGED
    """Managed: one of the fleet's own, with a claim. External: one you have, without eviction."""
    storage: RedisStorage = RedisStorage()
    """The claim of mode Managed."""
    fsync: Fsync = Fsync.ALWAYS
    """Always: an accepted task survives a crash. EverySecond: faster, and the last second may be lost."""
    url_secret_ref: UrlSecretRef | None = None
    """The URL of mode External, with its password. The default key is `url`."""
    deletion_policy: DeletionPolicy = DeletionPolicy.RETAIN
    """Retain: the claim outlives the fleet. Delete: it goes with it."""


class Queue(ApiModel):
    """Where tasks wait and are kept."""

    redis: Redis = Redis()
    """The Redis that holds them."""
    max_waiting: Annotated[int, Field(ge=1, le=100_000_000)] = 100_000
    """How many tasks may wait; the next is answered with 429 and Retry-After."""
    result_ttl_seconds: Annotated[int, Field(ge=60, le=31_536_000)] = 86_400
    """How long a task can be looked up after it ended."""


class Recovery(ApiModel):
    """What happens when a worker is lost."""

    lease_seconds: Annotated[int, Field(ge=1, le=300)] = 5
    """After how long without a sign of life another worker goes on with its tasks."""
    max_attempts: Annotated[int, Field(ge=1, le=100)] = 5
    """How many workers a task may outlive before it ends with reason Infrastructure."""


class RateLimit(ApiModel):
    """A limit that all workers of the fleet keep together."""

    name: PartName
    """The name that models and tools refer to."""
    requests_per_minute: Annotated[int, Field(ge=1, le=100_000_000)] | None = None
    """Calls."""
    tokens_per_minute: Annotated[int, Field(ge=1, le=100_000_000_000)] | None = None
    """Tokens."""


class Cache(ApiModel):
    """What need not be done twice."""

    retrieval: bool = True
    """Keep the passages of searches."""
    pure_tools: bool = True
    """Keep the results of tools whose effect is Pure."""
    semantic_threshold: Annotated[float, Field(gt=0, le=1)] | None = None
    """How alike two searches must be to count as one; absent: equal."""


class GatewayAuthentication(ApiModel):
    """How callers prove who they are."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                rule="(self.mode == 'Secret') == has(self.secretRef)",
                message="spec.gateway.auth.secretRef goes with mode Secret, and mode Secret needs it",
            )
        )
    )

    mode: AuthMode = AuthMode.KUBERNETES
    """Kubernetes: the caller's own token, and RBAC on agentfleets/tasks. Secret: keys you hand out. None:
    whoever reaches the service."""
    secret_ref: SecretRef | None = None
    """For mode Secret: the entry's name is the caller, its value the bearer token."""


class Gateway(ApiModel):
    """The task API."""

    replicas: Annotated[int, Field(ge=1, le=100)] = 2
    """How many pods."""
    auth: GatewayAuthentication = GatewayAuthentication()
    """How callers prove who they are."""
    tls: Annotated[Tls | None, NotYet("serves HTTPS")] = None
    """The certificate to serve HTTPS with."""
    service: ServiceOptions = ServiceOptions()
    """The service `NAME-gateway`."""


class TaskSlo(ApiModel):
    """What callers are promised."""

    task_seconds: Annotated[float, Field(gt=0, le=604_800)] = 60
    """How long a task takes."""
    percentile: Annotated[float, Field(gt=0, lt=100)] = 95
    """For this many in a hundred."""
    success_rate: Annotated[float, Field(gt=0, le=1)] = 0.99
    """The share of tasks that succeed."""


class AgentFleetSpec(ApiModel):
    """What is wanted."""

    agent: Agent
    """What the agent is."""
    image: Annotated[
        ImageReference | None, NotYet("brings the code of `agent.entrypoint`, `agent.graph` and tools")
    ] = None
    """The image of the workers, with your own code in it."""
    models: Annotated[
        tuple[FleetModel, ...],
        MapList("role"),
        Field(min_length=1, max_length=16),
        Rule(
            rule="self.exists(model, model.role == 'Default')",
            message="spec.models needs one with role Default",
        ),
    ]
    """The models that the agent calls, by role; one has role Default."""
    indexes: Annotated[tuple[FleetIndex, ...], MapList("name"), Field(max_length=16)] = ()
    """The indexes that the agent searches."""
    tools: Annotated[
        Annotated[tuple[Tool, ...], MapList("name"), Field(max_length=64)] | None,
        NotYet("lets the agent act through HTTP, MCP or Python"),
    ] = None
    """What the agent may do."""
    limits: Limits = Limits()
    """What one task may use."""
    workers: Workers = Workers()
    """The pods that run tasks."""
    queue: Queue = Queue()
    """Where tasks wait and are kept."""
    recovery: Recovery = Recovery()
    """What happens when a worker is lost."""
    rate_limits: Annotated[
        Annotated[tuple[RateLimit, ...], MapList("name"), Field(max_length=32)] | None,
        NotYet("bounds calls of models and tools over all workers"),
    ] = None
    """Limits that all workers keep together."""
    cache: Annotated[Cache | None, NotYet("keeps what need not be done twice")] = None
    """What need not be done twice."""
    gateway: Gateway = Gateway()
    """The task API."""
    slo: Annotated[TaskSlo | None, NotYet("is measured and reported")] = None
    """What callers are promised."""
    paused: bool = False
    """While true the operator changes nothing of this object's and only reports."""


class WorkersStatus(ApiModel):
    """Worker pods."""

    desired: int | None = None
    """How many there should be."""
    ready: int | None = None
    """How many work."""


class TasksStatus(ApiModel):
    """Tasks, now and in the last hour."""

    waiting: int | None = None
    """In the queue."""
    running: int | None = None
    """In a worker."""
    succeeded_1h: int | None = None
    """Completed."""
    failed_1h: int | None = None
    """Ended otherwise, but for the cancelled."""
    recovered_1h: int | None = None
    """Gone on with after their worker was lost."""
    unknown_effects: int | None = None
    """Waiting for somebody to say whether a tool's call had its effect."""


class LatencyStatus(ApiModel):
    """Time of the tasks that ended in the last hour."""

    p50_seconds: float | None = None
    """Half took less."""
    p95_seconds: float | None = None
    """95 in a hundred took less."""
    wait_p95_seconds: float | None = None
    """95 in a hundred waited less for a worker."""


class AgentFleetStatus(Status):
    """What there is."""

    url: LongText | None = None
    """Where tasks are submitted."""
    ready: ShortText | None = None
    """Pods that are ready and pods there should be, for the column."""
    workers: WorkersStatus | None = None
    """Worker pods."""
    tasks: TasksStatus | None = None
    """Tasks, now and in the last hour."""
    latency: LatencyStatus | None = None
    """Time of the tasks that ended in the last hour."""
    goodput_per_minute: float | None = None
    """Tasks completed a minute."""
    success_rate: float | None = None
    """Share of the ended tasks that completed."""
    tokens_per_task: float | None = None
    """Tokens read and written by one task."""
    cost_per_task_usd: float | None = None
    """What one task cost."""
    bottleneck: ShortText | None = None
    """Where tasks spend their time: Workers, Model/x, Index/y, RateLimit/z or None."""


class AgentFleet(ApiObject):
    """Agents as durable workers behind a task API; a task survives the worker that runs it."""

    spec: AgentFleetSpec
    """What is wanted."""
    status: AgentFleetStatus = AgentFleetStatus()
    """What there is."""
