"""Agent of an AgentFleet, and the models, indexes and tools that it calls."""

from enum import StrEnum
from typing import Annotated, Any

from pydantic import ConfigDict, Field, WithJsonSchema

from flotilla_operator.api.base import ApiModel, MapList, Rule, rules
from flotilla_operator.api.parts import (
    ApiKeySecretRef,
    HttpUrl,
    ObjectRef,
    PartName,
    SecretRef,
    UrlSecretRef,
)

ROLE = r"^[A-Z][A-Za-z0-9]*$"
PYTHON_REFERENCE = r"^[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_.]*$"

Role = Annotated[str, Field(min_length=1, max_length=63, pattern=ROLE)]
PythonReference = Annotated[str, Field(max_length=256, pattern=PYTHON_REFERENCE)]
Prompt = Annotated[str, Field(min_length=1, max_length=32_768)]
Description = Annotated[str, Field(max_length=4096)]
Price = Annotated[float, Field(ge=0, le=100_000)]
JsonSchemaOfArguments = Annotated[
    dict[str, Any],
    WithJsonSchema(
        {
            "type": "object",
            "properties": {
                "type": {"type": "string", "enum": ["object"], "description": "Always `object`."},
            },
            "required": ["type"],
            "x-kubernetes-preserve-unknown-fields": True,
        }
    ),
]


class ToolEffect(StrEnum):
    """Whether a call of a tool may be repeated."""

    PURE = "Pure"
    IDEMPOTENT = "Idempotent"
    UNSAFE = "Unsafe"


class Retrieval(StrEnum):
    """When the built-in agent searches the indexes."""

    FIRST = "First"
    TOOL = "Tool"


class HttpMethod(StrEnum):
    """The methods with which tools are called."""

    POST = "POST"
    PUT = "PUT"
    PATCH = "PATCH"
    GET = "GET"
    DELETE = "DELETE"


class Approval(StrEnum):
    """Whether a person must agree to a call."""

    NEVER = "Never"
    ALWAYS = "Always"


class Agent(ApiModel):
    """The agent that runs the tasks."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                rule="[has(self.prompt), has(self.entrypoint), has(self.graph)].filter(g, g).size() == 1",
                message="spec.agent needs exactly one of prompt, entrypoint and graph; set one of them and "
                "remove the others",
            )
        )
    )

    prompt: Prompt | None = None
    """System prompt of the built-in agent. It plans, calls tools, and answers with the sources that it used.
    Exactly one of `prompt`, `entrypoint` and `graph` is required."""
    entrypoint: PythonReference | None = None
    """Runs a coroutine from `spec.image`, named as `module:function`, instead of the built-in agent. Exactly
    one of `prompt`, `entrypoint` and `graph` is required."""
    graph: PythonReference | None = None
    """Runs a LangGraph graph from `spec.image`, named as `module:attribute`, instead of the built-in agent.
    Exactly one of `prompt`, `entrypoint` and `graph` is required."""
    retrieval: Retrieval = Retrieval.FIRST
    """When the built-in agent searches. First: every index with the task's input, before the first turn.
    Tool: when the model asks to; each index is a tool to it. With `entrypoint` or `graph` it has no
    effect."""


class ModelEndpoint(ApiModel):
    """A model at an API like OpenAI's that is not a ModelReplicaSet."""

    url: HttpUrl
    """Base URL of the API, ending in /v1."""
    model: Annotated[str, Field(min_length=1, max_length=253)]
    """Name of the model, which is sent as `model` in requests."""
    api_key_secret_ref: ApiKeySecretRef | None = None
    """Secret with the API key. Absent: no key is sent."""


class ModelPricing(ApiModel):
    """Prices of a model, from which the costs of tasks are computed."""

    input_per_million_usd: Price | None = None
    """Price of a million tokens of prompts, in USD. Absent: unknown."""
    cached_input_per_million_usd: Price | None = None
    """Price of a million tokens of prompts that the server had cached, in USD. Absent: that of the other
    tokens of prompts."""
    output_per_million_usd: Price | None = None
    """Price of a million tokens of answers, in USD. Absent: unknown."""


class ModelTimeouts(ApiModel):
    """How long a call of a model may take."""

    first_token_seconds: Annotated[float, Field(gt=0, le=3600)] = 120
    """How long a call may wait for the first token, in seconds."""
    between_tokens_seconds: Annotated[float, Field(gt=0, le=3600)] = 30
    """How long the next token of an answer may take, in seconds."""
    total_seconds: Annotated[float, Field(gt=0, le=86_400)] = 300
    """How long a call may take as a whole, in seconds."""


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

    role: Role
    """Role of the model. Default: the model that plans and answers. Routine: the built-in agent's summaries
    are made by it; absent, by Default. An `entrypoint` calls each model by its role. A model of role Embed
    embeds; if it is a ModelReplicaSet, that has the task Embed."""
    model_ref: ObjectRef | None = None
    """A ModelReplicaSet in the same namespace, with task Generate, or Embed for role Embed. Exactly one of
    `modelRef` and `endpoint` is required."""
    endpoint: ModelEndpoint | None = None
    """A model at an API like OpenAI's that is not a ModelReplicaSet. Exactly one of `modelRef` and `endpoint`
    is required."""
    context_tokens: Annotated[int, Field(ge=16, le=10_000_000)] | None = None
    """How many tokens a prompt and its answer may have together. Absent: for a ModelReplicaSet its
    `spec.engine.maxModelLen`, or what its model was made for (`status.capacity.model.maxModelLen`); for an
    endpoint what its list of models says. Where nothing says it, 4096; the condition ModelsReady tells so."""
    max_output_tokens: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """How many tokens one answer may have, with what the built-in agent has the model add to one that was cut
    off. An answer that is not whole by then ends its task as MaxTokens, with the text in `partial`. Absent:
    what the context and the task's limits leave. With role Embed it has no effect."""
    pricing: ModelPricing | None = None
    """Prices of the model. Absent: for a ModelReplicaSet its `spec.pricing`, for an endpoint unknown. With
    `spec.limits.maxCostUSD` every model needs prices of input and output."""
    timeouts: ModelTimeouts = ModelTimeouts()
    """How long a call of the model may take. A call that takes longer is made again, as far as the limits
    of its task allow."""
    rate_limit: PartName | None = None
    """Name of the entry of `spec.rateLimits` that limits calls of this model, in all workers together. At the
    limit calls wait for their turn, or go to `overflowTo`. Absent: none."""
    overflow_to: Role | None = None
    """Role of the model that is called instead while calls of this one would wait for `rateLimit`, or while
    the worker leaves it alone because its last calls have failed. Absent: calls wait."""
    isolate_tenants: bool = False
    """Whether the model keeps what it caches of prompts apart by tenant: requests have vLLM's `cache_salt`.
    A beginning that several tenants share is then computed once for each. An endpoint must know the
    parameter. With role Embed it has no effect."""


class FleetIndex(ApiModel):
    """An index that the agent searches."""

    name: PartName
    """Name of the index for the agent. The sources of an answer show it."""
    index_ref: ObjectRef
    """A VectorIndex in the same namespace."""


class OpenApiOperation(ApiModel):
    """An operation of an OpenAPI document."""

    url: HttpUrl
    """URL of the document: version 3, as JSON. Workers read it, when they start and every minute."""
    operation_id: Annotated[str, Field(min_length=1, max_length=256)]
    """Identifier of the operation in the document."""


class HttpCall(ApiModel):
    """A URL that is called."""

    url: HttpUrl
    """URL that is called. It must not lead to a link-local address; no redirect to another host is
    followed."""
    method: HttpMethod = HttpMethod.POST
    """Method of the call. POST, PUT, PATCH: the arguments are sent as JSON. GET, DELETE: as the query."""
    headers_secret_ref: SecretRef | None = None
    """Secret whose entries are sent as headers, for example `Authorization`. Absent: none."""


class HttpTool(ApiModel):
    """A tool that is called over HTTP."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                rule="has(self.url) || has(self.openapi)",
                message="spec.tools[].http needs url, or openapi, whose document names the server; set one",
            )
        )
    )

    url: HttpUrl | None = None
    """URL that is called. It must not lead to a link-local address; no redirect is followed. With `openapi`:
    URL of the server, to which the path of the operation is added. Absent: the server that the document of
    `openapi` names, which must be the document's own host."""
    method: HttpMethod = HttpMethod.POST
    """Method of the call. POST, PUT, PATCH: the arguments are sent as JSON. GET, DELETE: as the query. With
    `openapi` it has no effect."""
    headers_secret_ref: SecretRef | None = None
    """Secret whose entries are sent as headers, for example `Authorization`. They go to the host that is
    called, also with the request for the document if it is on the same host. Absent: none."""
    openapi: OpenApiOperation | None = None
    """Operation of an OpenAPI document that says what the tool takes: an object with the parameters of path,
    query and header by their names, and the JSON that is sent as `body`. Absent: `description` and
    `parameters` say it."""


class McpServerTool(ApiModel):
    """One tool of a Model Context Protocol (MCP) server."""

    name: Annotated[str, Field(min_length=1, max_length=256)]
    """Name of the tool at the server."""
    effect: ToolEffect | None = None
    """Whether a call may be repeated: Pure, Idempotent or Unsafe. Absent: `effect` of the entry of
    `spec.tools`."""


class McpTool(ApiModel):
    """The tools of a Model Context Protocol (MCP) server."""

    url: HttpUrl
    """URL of the server, which speaks streamable HTTP. It must not lead to a link-local address; no redirect
    is followed."""
    tools: Annotated[tuple[McpServerTool, ...], MapList("name"), Field(max_length=64)] = ()
    """Tools of the server that the agent may call. Empty: all."""
    headers_secret_ref: SecretRef | None = None
    """Secret whose entries are sent as headers. Absent: none."""


class SqlTool(ApiModel):
    """A query of a PostgreSQL database."""

    url_secret_ref: UrlSecretRef
    """Secret with the URL of the database: `postgresql://user:password@host:5432/name`, perhaps with
    `?sslmode=verify-full&sslrootcert=system`. Workers read it for each call."""
    query: Annotated[str, Field(min_length=1, max_length=16_384)]
    """The statement: a `select`, `values` or `with` that gives rows, with its arguments as `:name`. Each of
    them is a property of `parameters`; one that is not given is null. It runs in a read-only transaction that
    is rolled back."""
    max_rows: Annotated[int, Field(ge=1, le=100_000)] = 100
    """How many rows a result may have. Where there are more, the agent gets the first ones and is told so."""


class Reconcile(ApiModel):
    """Source that knows whether an Unsafe call happened."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                rule="has(self.http) != has(self.python)",
                message="spec.tools[].reconcile needs exactly one of http and python; set one of them and "
                "remove the other",
            )
        )
    )

    http: HttpCall | None = None
    """Asks a URL with the call's key. Exactly one of `http` and `python` is required."""
    python: PythonReference | None = None
    """Asks a Python function from `spec.image`, named as `module:function`. Exactly one of `http` and
    `python` is required."""


class Tool(ApiModel):
    """A tool that the agent may call."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                rule="[has(self.http), has(self.mcp), has(self.python), has(self.sql)]"
                ".filter(g, g).size() == 1",
                message="each entry of spec.tools needs exactly one of http, mcp, python and sql; set one of "
                "them and remove the others",
            ),
            Rule(
                rule="!has(self.python) || !has(self.parameters)",
                message="spec.tools[].parameters must not be set beside python, because the function brings "
                "its own; remove it",
            ),
            Rule(
                rule="!has(self.http) || !has(self.http.openapi) || !has(self.parameters)",
                message="spec.tools[].parameters must not be set beside http.openapi, because the document "
                "brings its own; remove it",
            ),
            Rule(
                rule="!has(self.mcp) || !has(self.parameters)",
                message="spec.tools[].parameters must not be set beside mcp, because the server brings them; "
                "remove it",
            ),
            Rule(
                rule="!has(self.reconcile) || self.effect == 'Unsafe'",
                message="spec.tools[].reconcile is for tools with effect Unsafe only; remove it, or set "
                "effect Unsafe",
            ),
        )
    )

    name: PartName
    """Name of the tool for the agent."""
    description: Description | None = None
    """Description of the tool for the model. With `mcp` it stands before the server's own description of each
    tool. Absent: the description of a Python function, an OpenAPI document or an MCP server, else nothing."""
    parameters: JsonSchemaOfArguments | None = None
    """JSON Schema of the arguments, for example `{type: object, properties: {city: {type: string}}}`. A
    Python function, an OpenAPI document and an MCP server bring their own. Absent: the tool takes no
    arguments."""
    http: HttpTool | None = None
    """Calls the tool over HTTP. Exactly one of `http`, `mcp`, `python` and `sql` is required."""
    mcp: McpTool | None = None
    """Calls the tools of a Model Context Protocol (MCP) server. The agent knows each as NAME_TOOL, with the
    name of this entry. Exactly one of `http`, `mcp`, `python` and `sql` is required."""
    python: PythonReference | None = None
    """Calls a Python function from `spec.image`, named as `module:function`. A plain function runs in a
    thread. Exactly one of `http`, `mcp`, `python` and `sql` is required."""
    sql: SqlTool | None = None
    """Queries a PostgreSQL database. Exactly one of `http`, `mcp`, `python` and `sql` is required."""
    effect: ToolEffect = ToolEffect.UNSAFE
    """Whether a call may be repeated after its worker was lost. Pure: yes. Idempotent: yes, with the same
    key, which an HTTP tool gets as the header `Idempotency-Key`, a function as the argument
    `idempotency_key`, if it takes one, and an MCP tool as `flotilla.dev/idempotency-key` in `_meta`. Unsafe:
    no; the task waits until `reconcile` or a person says whether the call happened."""
    reconcile: Reconcile | None = None
    """Source that is asked whether an Unsafe call happened. Absent: a person resolves the call."""
    approval: Approval = Approval.NEVER
    """Whether a person must agree to a call. Never: no. Always: to each call, within a day; who may approve
    reads its arguments. Somebody who refuses, or nobody who agrees, is told to the agent."""
    timeout_seconds: Annotated[float, Field(gt=0, le=3600)] = 30
    """How long a call may take, in seconds."""
    max_result_kib: Annotated[int, Field(ge=1, le=16_384)] = 256
    """How many KiB a result may have. A call with a longer one fails, and the agent is told so.
    Of the rows of a query those are left out that do not fit."""
    rate_limit: PartName | None = None
    """Name of the entry of `spec.rateLimits` that limits calls of this tool, in all workers together. At the
    limit calls wait for their turn. Absent: none."""
