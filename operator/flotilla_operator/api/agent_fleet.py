"""The kind AgentFleet: an agent behind a task API."""

from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field

from flotilla_operator.api.base import ApiModel, MapList, NotYet, NotYetReported, Rule, rules
from flotilla_operator.api.parts import (
    ApiKeySecretRef,
    ApiObject,
    Conditions,
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
from flotilla_operator.api.pods import PodOptions, PodOptionsWithResources, PodRules

ROLE = r"^[A-Z][A-Za-z0-9]*$"
PYTHON_REFERENCE = r"^[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_.]*$"


class ToolEffect(StrEnum):
    """Whether a call of a tool may be repeated."""

    PURE = "Pure"
    IDEMPOTENT = "Idempotent"
    UNSAFE = "Unsafe"


class RedisMode(StrEnum):
    """Which Redis stores the tasks."""

    MANAGED = "Managed"
    EXTERNAL = "External"


class Fsync(StrEnum):
    """When Redis writes to disk."""

    ALWAYS = "Always"
    EVERY_SECOND = "EverySecond"


class AuthMode(StrEnum):
    """How callers authenticate."""

    KUBERNETES = "Kubernetes"
    SECRET = "Secret"  # noqa: S105 (a mode, not a secret)
    NONE = "None"


PythonReference = Annotated[str, Field(max_length=256, pattern=PYTHON_REFERENCE)]


class Agent(ApiModel):
    """The agent that runs the tasks."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                rule="[has(self.prompt), has(self.entrypoint), has(self.graph)].filter(g, g).size() == 1",
                message="spec.agent needs exactly one of prompt, entrypoint and graph; set prompt, because "
                "the others are not yet supported",
            )
        )
    )

    prompt: Annotated[str, Field(min_length=1, max_length=32_768)] | None = None
    """System prompt of the built-in agent. For each task that agent searches every index with the task's
    input, asks the model of role Default with the passages that it found, and answers with their sources.
    Required, because `entrypoint` and `graph` are not yet supported."""
    entrypoint: Annotated[PythonReference | None, NotYet("set spec.agent.prompt instead")] = None
    """Runs a Python function from `spec.image`, named as `module:function`, instead of the built-in agent."""
    graph: Annotated[PythonReference | None, NotYet("set spec.agent.prompt instead")] = None
    """Runs a LangGraph graph from `spec.image`, named as `module:attribute`, instead of the built-in
    agent."""


class ModelEndpoint(ApiModel):
    """A model at an API like OpenAI's that is not a ModelReplicaSet."""

    url: HttpUrl
    """Base URL of the API, ending in /v1."""
    model: Annotated[str, Field(min_length=1, max_length=253)]
    """Name of the model, which is sent as `model` in requests."""
    api_key_secret_ref: ApiKeySecretRef | None = None
    """Secret with the API key. Absent: no key is sent."""


class FleetModel(ApiModel):
    """A model that the agent calls."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                rule="has(self.modelRef) != has(self.endpoint)",
                message="each entry of spec.models needs exactly one of modelRef and endpoint; set one "
                "of them and remove the other",
            )
        )
    )

    role: Annotated[str, Field(min_length=1, max_length=63, pattern=ROLE)]
    """Role of the model. This release calls only the model of role Default; models of other roles, for
    example Routine or Judge, have no effect yet."""
    model_ref: ObjectRef | None = None
    """A ModelReplicaSet with task Generate in the same namespace. Exactly one of `modelRef` and `endpoint` is
    required."""
    endpoint: ModelEndpoint | None = None
    """A model at an API like OpenAI's that is not a ModelReplicaSet. Exactly one of `modelRef` and `endpoint`
    is required."""
    context_tokens: Annotated[int, Field(ge=16, le=10_000_000)] | None = None
    """How many tokens a prompt and its answer may have together. Absent: for a ModelReplicaSet its
    `spec.engine.maxModelLen`, or what its model was made for (`status.capacity.model.maxModelLen`); for an
    endpoint what its list of models says. Where nothing says it, 4096; the condition ModelsReady tells so."""
    rate_limit: Annotated[PartName | None, NotYet()] = None
    """Name of the entry of `spec.rateLimits` that limits calls of this model."""


class FleetIndex(ApiModel):
    """An index that the agent searches."""

    name: PartName
    """Name of the index for the agent. The sources of an answer show it."""
    index_ref: ObjectRef
    """A VectorIndex in the same namespace."""


class HttpTool(ApiModel):
    """A tool that is called over HTTP."""

    url: HttpUrl
    """URL to which calls are posted."""
    headers_secret_ref: SecretRef | None = None
    """A secret whose entries are sent as headers."""


class McpTool(ApiModel):
    """The tools of a Model Context Protocol (MCP) server."""

    url: HttpUrl
    """URL of the server."""
    tools: Annotated[tuple[ShortText, ...], Field(max_length=64)] = ()
    """Names of the server's tools that the agent may call. Empty: all."""
    headers_secret_ref: SecretRef | None = None
    """A secret whose entries are sent as headers."""


class Tool(ApiModel):
    """A tool that the agent may call."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                rule="[has(self.http), has(self.mcp), has(self.python)].filter(g, g).size() == 1",
                message="each entry of spec.tools needs exactly one of http, mcp and python; set one of them",
            )
        )
    )

    name: PartName
    """Name of the tool for the agent."""
    http: HttpTool | None = None
    """Calls the tool over HTTP."""
    mcp: McpTool | None = None
    """Calls the tools of a Model Context Protocol (MCP) server."""
    python: PythonReference | None = None
    """Calls a Python function from `spec.image`, named as `module:function`."""
    effect: ToolEffect = ToolEffect.UNSAFE
    """Whether a call may be repeated. Pure: yes, and its result may be cached. Idempotent: yes, with the same
    idempotency key. Unsafe: no."""
    timeout_seconds: Annotated[float, Field(gt=0, le=3600)] = 30
    """How long a call may take, in seconds."""
    rate_limit: PartName | None = None
    """Name of the entry of `spec.rateLimits` that limits calls of this tool."""


class Limits(ApiModel):
    """The limits of one task."""

    max_steps: Annotated[int, Field(ge=1, le=1000)] = 24
    """How many steps a task may take. A step is one round of calls that are made at the same time: to all
    indexes, or to the model."""
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000_000)] = 200_000
    """How many tokens a task may use, in prompts and answers together."""
    max_cost_usd: Annotated[
        Annotated[float, Field(gt=0, le=1_000_000)] | None, NotYet("limit the task by maxTokens")
    ] = None
    """How much a task may cost, in USD."""
    max_wall_seconds: Annotated[int, Field(ge=1, le=604_800)] = 600
    """How long a task may run, in seconds. Time counts from when a worker first takes the task, so time in
    the queue does not count."""
    max_depth: Annotated[Annotated[int, Field(ge=0, le=16)] | None, NotYet()] = None
    """How many levels of sub-agents a task may start."""
    max_fan_out: Annotated[Annotated[int, Field(ge=1, le=1000)] | None, NotYet()] = None
    """How many sub-agents of a task may run at the same time."""


class Workers(ApiModel):
    """The pods that run tasks."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                rule="self.minReplicas <= self.maxReplicas",
                message="spec.workers.minReplicas must not be greater than spec.workers.maxReplicas; lower "
                "minReplicas, or raise maxReplicas",
            )
        )
    )

    min_replicas: Annotated[int, Field(ge=0, le=1000)] = 0
    """Lowest number of worker pods. With 0, no worker runs while there is no task."""
    max_replicas: Annotated[int, Field(ge=1, le=1000)] = 20
    """Highest number of worker pods."""
    concurrency: Annotated[int, Field(ge=1, le=10_000)] = 200
    """How many tasks one worker pod runs at the same time."""
    resources: ResourceRequirements = ResourceRequirements()
    """Resource requests and limits (core/v1) of each worker pod. Absent: 100m CPU and 128Mi memory are
    requested."""
    pod: Annotated[PodOptions, PodRules("spec.workers.pod")] = PodOptions()
    """Options of the worker pods, beside `resources`. A change replaces them one after another; their tasks
    go over to other workers."""


class RedisStorage(Storage):
    """The PersistentVolumeClaim on which Redis stores the tasks."""

    size: Quantity = "1Gi"
    """Size of the claim, of which Redis uses 40 % for tasks. It can be raised later if the storage class
    allows expansion; Kubernetes refuses to lower it."""


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
        )
    )

    mode: RedisMode = RedisMode.MANAGED
    """Managed: Flotilla runs a Redis for this fleet, with a PersistentVolumeClaim. External: tasks are stored
    in an existing Redis, which must not evict keys."""
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
    """Secret with the URL of the existing Redis, including its password. Required with mode External."""
    deletion_policy: DeletionPolicy = DeletionPolicy.RETAIN
    """What happens to the claim of mode Managed when the fleet is deleted. Retain: it is kept. Delete: it is
    deleted."""


class Queue(ApiModel):
    """Where tasks are stored, and for how long."""

    redis: Redis = Redis()
    """The Redis that stores the tasks."""
    max_waiting: Annotated[int, Field(ge=1, le=100_000_000)] = 100_000
    """How many tasks may wait. Further tasks are refused with 429 and Retry-After."""
    result_ttl_seconds: Annotated[int, Field(ge=60, le=31_536_000)] = 86_400
    """How long a task can be read after it ended, in seconds."""


class Recovery(ApiModel):
    """What happens to the tasks of a lost worker."""

    lease_seconds: Annotated[int, Field(ge=1, le=300)] = 5
    """How long a worker may be silent, in seconds, before other workers take over its tasks."""
    max_attempts: Annotated[int, Field(ge=1, le=100)] = 5
    """After how many lost workers a task ends with reason Infrastructure. Only workers that were lost while
    they ran the task count."""


class RateLimit(ApiModel):
    """A limit on calls of all workers of the fleet together."""

    name: PartName
    """Name of the limit. Models and tools refer to it."""
    requests_per_minute: Annotated[int, Field(ge=1, le=100_000_000)] | None = None
    """How many calls may be made in a minute. Absent: no limit."""
    tokens_per_minute: Annotated[int, Field(ge=1, le=100_000_000_000)] | None = None
    """How many tokens calls may use in a minute. Absent: no limit."""


class Cache(ApiModel):
    """Results that are kept, so that they are not computed twice."""

    retrieval: bool = True
    """Whether the passages of searches are kept."""
    pure_tools: bool = True
    """Whether the results of tools with effect Pure are kept."""
    semantic_threshold: Annotated[float, Field(gt=0, le=1)] | None = None
    """How similar two searches must be to share a result, from 0 to 1. Absent: they must be equal."""


class GatewayAuthentication(ApiModel):
    """How callers authenticate."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                rule="(self.mode == 'Secret') == has(self.secretRef)",
                message="spec.gateway.auth.secretRef is required with spec.gateway.auth.mode Secret and not "
                "allowed with other modes; set secretRef with mode Secret, and remove it with any other mode",
            )
        )
    )

    mode: AuthMode = AuthMode.KUBERNETES
    """Kubernetes: callers send their token of the cluster, and RBAC on the resource `agentfleets/tasks`
    decides what they may do. Secret: callers send a key from the secret `secretRef`. None: everybody who
    reaches the service may do everything."""
    secret_ref: SecretRef | None = None
    """Secret with the keys of callers: the name of each entry is a caller, its value is the bearer token of
    that caller. Required with mode Secret."""


class Gateway(ApiModel):
    """The pods that serve the task API."""

    replicas: Annotated[int, Field(ge=1, le=100)] = 2
    """How many gateway pods run."""
    auth: GatewayAuthentication = GatewayAuthentication()
    """How callers authenticate, and what they may do."""
    tls: Tls | None = None
    """Certificate with which the task API speaks HTTPS (TLS 1.2 or newer) instead of HTTP."""
    service: ServiceOptions = ServiceOptions()
    """Options of the service `NAME-gateway`, at which callers reach the task API."""
    pod: Annotated[PodOptionsWithResources, PodRules("spec.gateway.pod")] = PodOptionsWithResources()
    """Options of the gateway pods. A change replaces them one after another."""


class TaskSlo(ApiModel):
    """The service level objective (SLO) of tasks."""

    task_seconds: Annotated[float, Field(gt=0, le=604_800)] = 60
    """How long a task may take, in seconds."""
    percentile: Annotated[float, Field(gt=0, lt=100)] = 95
    """Share of tasks, in percent, that must meet `taskSeconds`."""
    success_rate: Annotated[float, Field(gt=0, le=1)] = 0.99
    """Share of tasks, from 0 to 1, that must succeed."""


class AgentFleetSpec(ApiModel):
    """What the user wants."""

    agent: Agent
    """The agent that runs the tasks."""
    image: Annotated[ImageReference | None, NotYet()] = None
    """Container image of the workers, with the code of `agent.entrypoint`, `agent.graph` and Python tools."""
    models: Annotated[
        tuple[FleetModel, ...],
        MapList("role"),
        Field(min_length=1, max_length=16),
        Rule(
            rule="self.exists(model, model.role == 'Default')",
            message="spec.models needs an entry with role Default; add one",
        ),
    ]
    """The models that the agent calls, each with a role. One of them must have role Default."""
    indexes: Annotated[tuple[FleetIndex, ...], MapList("name"), Field(max_length=16)] = ()
    """The indexes that the agent searches for every task."""
    tools: Annotated[
        Annotated[tuple[Tool, ...], MapList("name"), Field(max_length=64)] | None,
        NotYet(),
    ] = None
    """Tools that the agent may call, over HTTP, MCP or as Python functions."""
    limits: Limits = Limits()
    """Limits of one task. A task that reaches a limit ends, and its result so far can be read as `partial`. A
    caller may ask for lower limits."""
    workers: Workers = Workers()
    """The pods that run tasks. Flotilla runs as many as the waiting and running tasks need at `concurrency`
    tasks a pod, between `minReplicas` and `maxReplicas`."""
    queue: Queue = Queue()
    """Where tasks are stored, and for how long."""
    recovery: Recovery = Recovery()
    """What happens to the tasks of a lost worker: another worker takes them over."""
    rate_limits: Annotated[
        Annotated[tuple[RateLimit, ...], MapList("name"), Field(max_length=32)] | None,
        NotYet(),
    ] = None
    """Limits on calls of models and tools, for all workers together."""
    cache: Annotated[Cache | None, NotYet()] = None
    """Keeps results of searches and tools, so that they are not computed twice."""
    gateway: Gateway = Gateway()
    """The pods that serve the task API, to which tasks are submitted."""
    slo: Annotated[TaskSlo | None, NotYet()] = None
    """Service level objective (SLO) of tasks."""
    paused: bool = False
    """While true, the operator changes nothing of this fleet and only updates its status."""


class WorkersStatus(ApiModel):
    """The number of worker pods."""

    desired: int | None = None
    """Desired number of worker pods."""
    ready: int | None = None
    """Number of ready worker pods."""


class TasksStatus(ApiModel):
    """Counts of tasks."""

    waiting: int | None = None
    """Tasks that wait in the queue."""
    running: int | None = None
    """Tasks that a worker runs, or whose worker was lost and not yet replaced."""
    succeeded_1h: int | None = None
    """Tasks that completed in the last hour."""
    failed_1h: int | None = None
    """Tasks that ended in the last hour without completing. Cancelled tasks do not count."""
    recovered_1h: int | None = None
    """Tasks that ended in the last hour and that another worker had taken over from a lost one."""
    unknown_effects: int | None = None
    """Tasks that wait until somebody says whether a call of a tool had its effect. 0 while `spec.tools` is
    not supported."""


class LatencyStatus(ApiModel):
    """The duration of tasks."""

    p50_seconds: float | None = None
    """Median of the time from the submission of a task to its end, in seconds."""
    p95_seconds: float | None = None
    """The 95th percentile of the time from the submission of a task to its end, in seconds: 95 % of the tasks
    took at most this long."""
    wait_p95_seconds: float | None = None
    """The 95th percentile of the time from the submission of a task until a worker took it, in seconds: 95 %
    of the tasks waited at most this long."""


class AgentFleetStatus(Status):
    """What the operator last saw."""

    conditions: Conditions = ()
    """State of the fleet, one condition for each aspect. SpecValid: the operator can act on the spec.
    ModelsReady: every model can be called. IndexesReady: every index can be searched. QueueReady: Redis takes
    tasks. GatewayReady: a gateway pod is ready. WorkersReady: a worker pod is ready, or none is needed.
    Paused: `spec.paused` is true; the condition is absent otherwise. Ready: the summary, True when all of
    these but Paused are. Reconciling: Ready is not True, and the operator expects it to become True without
    help. Stalled: Ready is not True, and a person must act."""
    url: LongText | None = None
    """URL of the task API."""
    ready: ShortText | None = None
    """Ready and desired pods of the fleet (gateway, workers and managed Redis) as one text, for example 4/4,
    for the column READY."""
    workers: WorkersStatus | None = None
    """Number of worker pods."""
    tasks: TasksStatus | None = None
    """Counts of tasks, now and over the last hour. Absent while no gateway reports."""
    latency: LatencyStatus | None = None
    """How long the tasks took that ended in the last hour. Empty when none ended."""
    goodput_per_minute: float | None = None
    """Tasks completed per minute, over the last hour."""
    success_rate: float | None = None
    """Of the tasks that ended in the last hour, the share that completed, from 0 to 1. Cancelled tasks do not
    count. Absent when none ended."""
    tokens_per_task: float | None = None
    """Mean number of tokens, in prompts and answers together, of the tasks that ended in the last hour.
    Absent when none ended."""
    cost_per_task_usd: Annotated[float | None, NotYetReported()] = None
    """Mean cost of the tasks that ended in the last hour, in USD."""
    bottleneck: ShortText | None = None
    """What slows tasks down most, over the last hour. None: no task waits, and hardly any has waited.
    Workers: all workers are busy, and `workers.maxReplicas` of them run. Model/NAME, Index/NAME: tasks spend
    most of their time with this model or index."""


class AgentFleet(ApiObject):
    """An agent to which you submit tasks over HTTP, at the URL in `status.url`. It answers with a model, and
    with the passages that it finds in indexes. Tasks are stored in Redis and run by workers: when a worker is
    lost, another one takes its tasks over."""

    spec: AgentFleetSpec
    """What you want: the agent, its models and indexes, and how its tasks are run."""
    status: AgentFleetStatus = AgentFleetStatus()
    """What the operator last saw: pods, tasks and conditions. The operator writes it."""
