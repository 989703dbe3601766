"""The kind AgentFleet: an agent behind a task API."""

from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field

from flotilla_operator.api.base import ApiModel, MapList, Rule, rules
from flotilla_operator.api.fleet_agent import (
    Agent,
    Description,
    FleetIndex,
    FleetModel,
    Tool,
)
from flotilla_operator.api.fleet_delegates import DELEGATE_RULES, SubAgent, Validator
from flotilla_operator.api.fleet_queue import Queue, Recovery, Update
from flotilla_operator.api.fleet_status import AgentFleetStatus
from flotilla_operator.api.parts import (
    ApiObject,
    HttpUrl,
    ImageReference,
    ObjectRef,
    PartName,
    ResourceRequirements,
    SecretRef,
    ServiceOptions,
    Tls,
    VolumeMounts,
    Volumes,
)
from flotilla_operator.api.pods import PodOptions, PodOptionsWithResources, PodRules

CallerName = Annotated[str, Field(min_length=1, max_length=253)]
Callers = Annotated[tuple[CallerName, ...], Field(max_length=64)]


class AuthMode(StrEnum):
    """How callers authenticate."""

    KUBERNETES = "Kubernetes"
    SECRET = "Secret"  # noqa: S105 (a mode, not a secret)
    NONE = "None"


class Limits(ApiModel):
    """The limits of one task and of the tasks that it starts, together."""

    max_steps: Annotated[int, Field(ge=1, le=1000)] = 24
    """How many steps a task may take. A step is one call of a model, the first search of all indexes, or a
    message to an actor."""
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000_000)] = 200_000
    """How many tokens a task may use, in prompts and answers together."""
    max_cost_usd: Annotated[float, Field(gt=0, le=1_000_000)] | None = None
    """How much a task may cost, in USD. Every model needs a price then. Absent: no limit."""
    max_wall_seconds: Annotated[int, Field(ge=1, le=604_800)] = 600
    """How long a task may run, in seconds. Time counts from when a worker first takes the task. Time in the
    queue and time suspended do not count."""
    max_depth: Annotated[int, Field(ge=0, le=16)] = 2
    """How many levels of tasks a task may start below itself."""
    max_fan_out: Annotated[int, Field(ge=1, le=1000)] = 5
    """How many tasks that a task has started may be under way at the same time."""


class WorkerPodOptions(PodOptions):
    """Options of the worker pods."""

    image_pull_secrets: Annotated[tuple[ObjectRef, ...], MapList("name"), Field(max_length=16)] = ()
    """Secrets with credentials of image registries (core/v1), in addition to the chart's."""
    volumes: Volumes = ()
    """Additional volumes (core/v1), passed on unchanged."""
    volume_mounts: VolumeMounts = ()
    """Where the worker's container mounts volumes (core/v1), passed on unchanged."""


def _volumes_rule(path: str) -> Rule:
    return Rule(
        rule="!has(self.volumes) || !self.volumes.exists(volume, volume.name in ['config', 'redis'] || "
        "volume.name.startsWith('flotilla-'))",
        message=f"{path}.volumes must not be named config or redis, or begin with flotilla-, "
        "because Flotilla's own volumes are; choose another name",
    )


def _mounts_rule(path: str) -> Rule:
    return Rule(
        rule="!has(self.volumeMounts) || !self.volumeMounts.exists(mount, "
        "mount.mountPath.startsWith('/etc/flotilla') || mount.mountPath.startsWith('/var/run/flotilla'))",
        message=f"{path}.volumeMounts must not be below /etc/flotilla or /var/run/flotilla, "
        "where Flotilla mounts its own; choose another path",
    )


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
    pod: Annotated[
        WorkerPodOptions,
        PodRules("spec.workers.pod"),
        _volumes_rule("spec.workers.pod"),
        _mounts_rule("spec.workers.pod"),
    ] = WorkerPodOptions()
    """Options of the worker pods, beside `resources`. A change replaces them one after another; their tasks
    go over to other workers."""


class ToolExecutors(ApiModel):
    """Pods that run tools written in Python."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                rule="self.minReplicas <= self.maxReplicas",
                message="spec.toolExecutors.minReplicas must not be greater than "
                "spec.toolExecutors.maxReplicas; lower minReplicas, or raise maxReplicas",
            )
        )
    )

    min_replicas: Annotated[int, Field(ge=0, le=1000)] = 0
    """Lowest number of pods. With 0, none runs while no tool is called. A call then waits until one has
    started; the time of its task goes on, and the `timeoutSeconds` of the tool does not."""
    max_replicas: Annotated[int, Field(ge=1, le=1000)] = 10
    """Highest number of pods."""
    concurrency: Annotated[int, Field(ge=1, le=10_000)] = 50
    """How many calls one pod runs at the same time."""
    resources: ResourceRequirements = ResourceRequirements()
    """Resource requests and limits (core/v1) of each pod. Absent: 100m CPU and 128Mi memory are requested."""
    pod: Annotated[
        WorkerPodOptions,
        PodRules("spec.toolExecutors.pod"),
        _volumes_rule("spec.toolExecutors.pod"),
        _mounts_rule("spec.toolExecutors.pod"),
    ] = WorkerPodOptions()
    """Options of the pods, beside `resources`. What the functions need, such as secrets in `env`, belongs
    here: the workers need none of it. A change replaces the pods one after another."""


class RateLimit(ApiModel):
    """A limit on calls of all workers of the fleet together. A minute's worth may be used at once."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                rule="has(self.requestsPerMinute) || has(self.tokensPerMinute)",
                message="each entry of spec.rateLimits needs requestsPerMinute, tokensPerMinute or both; set "
                "one",
            )
        )
    )

    name: PartName
    """Name of the limit. Models and tools refer to it."""
    requests_per_minute: Annotated[int, Field(ge=1, le=100_000_000)] | None = None
    """How many calls may be made in a minute; each try is one. Absent: no limit."""
    tokens_per_minute: Annotated[int, Field(ge=1, le=100_000_000_000)] | None = None
    """How many tokens calls of models may use in a minute, in prompts and answers together. Absent: no
    limit."""


class Cache(ApiModel):
    """Results that are kept for other tasks of the same tenant, so that they are not computed twice."""

    retrieval: bool = True
    """Whether the passages of searches are kept: for an hour, as long as the index serves the same
    generation. A new generation is noticed within a minute."""
    pure_tools: bool = True
    """Whether the results of tools with effect Pure are kept, for five minutes."""
    semantic_threshold: Annotated[float, Field(gt=0, le=1)] | None = None
    """How similar two searches must be to share a result: the cosine of their embeddings, for example 0.95.
    It needs a model with role Embed. Absent: they must be equal."""


class CallerLimits(ApiModel):
    """Limits of each caller of the task API."""

    queue_percent: Annotated[int, Field(ge=1, le=100)] = 80
    """How much of `spec.queue.maxWaiting`, and of the bytes that Redis may hold, the tasks of one caller may
    take, in percent."""
    requests_per_minute: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """How many requests one caller may make in a minute, at all gateways together. Further ones are refused
    with 429 and Retry-After. Absent: no limit."""


class OpenAIFrontEnd(ApiModel):
    """The task API in the form of OpenAI's."""

    enabled: bool = False
    """Whether `/v1/chat/completions`, `/v1/responses` and `/v1/models` are served, to the same callers. The
    model has the fleet's name."""


class A2AFrontEnd(ApiModel):
    """The task API in the form of the Agent2Agent (A2A) protocol."""

    enabled: bool = False
    """Whether `/a2a` is served, to the same callers, and `/.well-known/agent-card.json`, to everybody."""
    description: Description | None = None
    """Description of the agent for other agents, in the agent's card: the work that it can do. Absent: the
    fleet's name."""


class GatewayAuthentication(ApiModel):
    """How callers authenticate."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                rule="(self.mode == 'Secret') == has(self.secretRef)",
                message="spec.gateway.auth.secretRef is required with spec.gateway.auth.mode Secret and not "
                "allowed with other modes; set secretRef with mode Secret, and remove it with any other mode",
            ),
            Rule(
                rule="self.mode == 'Secret' || !has(self.trusted) || self.trusted.size() == 0",
                message="spec.gateway.auth.trusted is for spec.gateway.auth.mode Secret only; remove it, and "
                "with mode Kubernetes allow the verb act on agentfleets/tenants",
            ),
            Rule(
                rule="self.mode == 'Secret' || !has(self.approvers) || self.approvers.size() == 0",
                message="spec.gateway.auth.approvers is for spec.gateway.auth.mode Secret only; remove it, "
                "and with mode Kubernetes allow the verb approve on agentfleets/tasks",
            ),
        )
    )

    mode: AuthMode = AuthMode.KUBERNETES
    """Kubernetes: callers send a token with the audience `flotilla.dev/NAMESPACE/NAME`, and RBAC on the
    resource `agentfleets/tasks` decides what they may do. Secret: callers send a key from the secret
    `secretRef`. None: everybody who reaches the service may do everything."""
    secret_ref: SecretRef | None = None
    """Secret with the keys of callers: the name of each entry is a caller, its value is the bearer token of
    that caller. Required with mode Secret."""
    trusted: Callers = ()
    """Entries of the secret whose callers may name another tenant than themselves, for front ends that act
    for their users. With mode Secret only."""
    approvers: Callers = ()
    """Entries of the secret whose callers may decide on what waits for approval, and read it. With mode
    Secret only."""


class Gateway(ApiModel):
    """The pods that serve the task API."""

    replicas: Annotated[int, Field(ge=1, le=100)] = 2
    """How many gateway pods run."""
    auth: GatewayAuthentication = GatewayAuthentication()
    """How callers authenticate, and what they may do."""
    tls: Tls | None = None
    """Certificate with which the task API speaks HTTPS (TLS 1.2 or newer). Absent: HTTP."""
    caller_limits: CallerLimits = CallerLimits()
    """Limits of each caller, so that others are served too."""
    open_ai: OpenAIFrontEnd = OpenAIFrontEnd()
    """The task API in the form of OpenAI's."""
    a2a: A2AFrontEnd = A2AFrontEnd()
    """The task API in the form of the Agent2Agent (A2A) protocol."""
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


class Telemetry(ApiModel):
    """Where traces of tasks are sent."""

    otlp_endpoint: Annotated[
        HttpUrl,
        Rule(
            rule="!self.contains('?') && !self.contains('#')",
            message="spec.telemetry.otlpEndpoint must have no query and no fragment, because /v1/traces "
            "follows on it; remove them",
        ),
    ]
    """URL of an OpenTelemetry (OTLP) receiver over HTTP, without `/v1/traces`, which follows on it. With
    Langfuse it ends in `/api/public/otel`."""
    headers_secret_ref: SecretRef | None = None
    """Secret whose entries are sent as headers: an entry's name is the header, its value the header's. A
    change acts without a restart. Absent: none."""
    content: bool = False
    """Whether traces have the content of tasks too: input and result, prompts and answers, arguments and
    results of tools, found passages, and the messages of problems."""
    sample_percent: Annotated[float, Field(ge=0, le=100)] = 100
    """Share of tasks that are traced, in percent. The id of a trace decides, so what a task starts is traced
    with it."""


class AgentFleetSpec(ApiModel):
    """Desired state of a fleet."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                rule="has(self.image) || !has(self.agent.entrypoint)",
                message="spec.agent.entrypoint needs spec.image, which brings the function; set it",
            ),
            Rule(
                rule="has(self.image) || !has(self.agent.graph)",
                message="spec.agent.graph needs spec.image, which brings the graph and LangGraph; set it",
            ),
            Rule(
                rule="has(self.image) || !has(self.tools) || !self.tools.exists(tool, has(tool.python) || "
                "(has(tool.reconcile) && has(tool.reconcile.python)))",
                message="spec.tools[].python and spec.tools[].reconcile.python need spec.image, which brings "
                "the function; set it",
            ),
            *DELEGATE_RULES,
            Rule(
                rule="!has(self.cache) || !has(self.cache.semanticThreshold) || "
                "self.models.exists(model, model.role == 'Embed')",
                message="spec.cache.semanticThreshold needs an entry of spec.models with role Embed; add "
                "one, or remove semanticThreshold",
            ),
            Rule(
                rule="self.models.all(model, !has(model.rateLimit) || (has(self.rateLimits) && "
                "self.rateLimits.exists(limit, limit.name == model.rateLimit)))",
                message="spec.models[].rateLimit must name an entry of spec.rateLimits; correct the name, or "
                "add the entry",
            ),
            Rule(
                rule="!has(self.tools) || self.tools.all(tool, !has(tool.rateLimit) || "
                "(has(self.rateLimits) && self.rateLimits.exists(limit, limit.name == tool.rateLimit)))",
                message="spec.tools[].rateLimit must name an entry of spec.rateLimits; correct the name, or "
                "add the entry",
            ),
        )
    )

    agent: Agent
    """The agent that runs the tasks."""
    image: ImageReference | None = None
    """Container image of the workers, built on Flotilla's runtime image. It brings the code of
    `agent.entrypoint`, `agent.graph` and Python tools. Absent: Flotilla's runtime image."""
    agents: Annotated[tuple[SubAgent, ...], MapList("name"), Field(max_length=16)] = ()
    """Agents to which the agent can give parts of its task: each is a tool to its model, and each call a task
    of its own, within the same limits. A task may also name one of them in place of `agent`."""
    models: Annotated[
        tuple[FleetModel, ...],
        MapList("role"),
        Field(min_length=1, max_length=16),
        Rule(
            rule="self.exists(model, model.role == 'Default')",
            message="spec.models needs an entry with role Default; add one",
        ),
        Rule(
            rule="self.all(model, self.exists_one(other, "
            "other.role.lowerAscii() == model.role.lowerAscii()))",
            message="spec.models must not have two roles that differ only in capitals; rename one",
        ),
        Rule(
            rule="self.all(model, !has(model.overflowTo) || (model.role != 'Embed' && model.overflowTo != "
            "'Embed' && self.exists(other, other.role == model.overflowTo)))",
            message="spec.models[].overflowTo must name the role of another entry of spec.models, and "
            "neither may be Embed; correct the name, or add the model",
        ),
        Rule(
            rule="self.all(model, !has(model.overflowTo) || self.all(one, one.role != model.overflowTo || "
            "!has(one.overflowTo) || self.all(two, two.role != one.overflowTo || !has(two.overflowTo) || "
            "self.all(three, three.role != two.overflowTo || !has(three.overflowTo)))))",
            message="spec.models[].overflowTo must not lead back to the same model, nor over more than three "
            "others; remove one of them",
        ),
    ]
    """The models that the agent calls, each with a role. One of them must have role Default."""
    indexes: Annotated[tuple[FleetIndex, ...], MapList("name"), Field(max_length=16)] = ()
    """The indexes that the agent searches. `agent.retrieval` says when."""
    tools: Annotated[tuple[Tool, ...], MapList("name"), Field(max_length=64)] = ()
    """Tools that the agent may call: over HTTP, of MCP servers, database queries, or Python functions."""
    validators: Annotated[tuple[Validator, ...], MapList("name"), Field(max_length=16)] = ()
    """Checks that the result of a task must pass, in this order. The built-in agent is told once why its
    answer was refused, and answers anew. A task whose result is refused then ends as Rejected."""
    tool_executors: ToolExecutors | None = None
    """Pods that run tools and checks written in Python, and the functions of `tools[].reconcile.python`.
    Flotilla runs as many as the calls that wait and run need at `concurrency` calls a pod, between
    `minReplicas` and `maxReplicas`. Absent: the workers run them."""
    limits: Limits = Limits()
    """Limits of one task and of the tasks that it starts, together. A task that reaches a limit ends, and its
    result so far can be read as `partial`. A caller may ask for lower limits."""
    workers: Workers = Workers()
    """The pods that run tasks. Flotilla runs as many as the waiting and running tasks need at `concurrency`
    tasks a pod, between `minReplicas` and `maxReplicas`."""
    queue: Queue = Queue()
    """Where tasks are stored, and for how long."""
    recovery: Recovery = Recovery()
    """Rules for the tasks of a lost worker: another worker takes them over."""
    update: Update = Update()
    """Rules for running tasks when something that makes a revision changes: agent, agents, image, tools,
    validators, models or indexes."""
    rate_limits: Annotated[tuple[RateLimit, ...], MapList("name"), Field(max_length=32)] = ()
    """Limits on calls of models and tools, for all workers together. Models and tools name them as
    `rateLimit`."""
    cache: Cache = Cache()
    """Keeps results of searches and of Pure tools for other tasks of the same tenant."""
    gateway: Gateway = Gateway()
    """The pods that serve the task API, to which tasks are submitted."""
    telemetry: Telemetry | None = None
    """Where traces of tasks are sent. No task waits for the receiver, or fails with it. Absent: nowhere."""
    slo: TaskSlo | None = None
    """Service level objective (SLO) of tasks, over the last hour. The condition MeetingSLO says whether it is
    kept; nothing else follows from it. Absent: none."""
    paused: bool = False
    """While true, the operator changes nothing of this fleet and only updates its status."""


class AgentFleet(ApiObject):
    """An agent to which you submit tasks over HTTP, at the URL in `status.url`. It answers with a model, and
    with the passages that it finds in indexes. Tasks are stored in Redis and run by workers: when a worker is
    lost, another one takes its tasks over."""

    spec: AgentFleetSpec
    """Desired state: the agent, its models and indexes, and how its tasks are run."""
    status: AgentFleetStatus = AgentFleetStatus()
    """State that the operator last saw: pods, tasks and conditions. The operator writes it."""
