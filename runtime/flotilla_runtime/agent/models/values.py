"""Requests to a model, its replies, and the events in between. Pure values.

A reply never mixes the texts of two tries. What a try gave before it died is taken back by `Withdrawn`, so
whoever acts on an event before `Finished` must be able to take that back too.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from flotilla_runtime.contract import Priority

MOST_SHOWN: Final = 300  # characters of a received text that a problem's message quotes


class ModelOutcome(StrEnum):
    """How a call ended. `Refused` would be refused again; `Failed` and `TimedOut` may pass."""

    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    TIMED_OUT = "TimedOut"
    PROMPT_TOO_LONG = "PromptTooLong"
    REFUSED = "Refused"


class FinishReason(StrEnum):
    """Why the model stopped writing. An answer with tool calls that ends by itself has `ToolCalls`."""

    STOP = "Stop"
    LENGTH = "Length"
    TOOL_CALLS = "ToolCalls"
    CONTENT_FILTER = "ContentFilter"
    OTHER = "Other"


class ModelProblemReason(StrEnum):
    """Why a call has no answer, or an answer or a tool call no value."""

    NO_CONNECTION = "NoConnection"
    RATE_LIMITED = "RateLimited"  # 429
    UNAVAILABLE = "Unavailable"  # 408, 409, 425 and 5xx
    BROKEN_STREAM = "BrokenStream"  # the connection broke, or the engine reported a failure in the stream
    UNFINISHED_STREAM = "UnfinishedStream"  # it ended in good order, but without a finish reason
    NO_FIRST_TOKEN = "NoFirstToken"  # noqa: S105 - timeouts.firstTokenSeconds
    STALLED = "Stalled"  # timeouts.betweenTokensSeconds
    OUT_OF_TIME = "OutOfTime"  # timeouts.totalSeconds
    ANSWER_TOO_LARGE = "AnswerTooLarge"
    NOT_A_COMPLETION = "NotACompletion"  # the answer is no stream of a chat completion
    ALLOWANCE_SPENT = "AllowanceSpent"  # another try would go beyond `allowance_tokens`
    PROMPT_TOO_LONG = "PromptTooLong"
    REQUEST_REFUSED = "RequestRefused"  # any other 4xx
    UNAUTHORIZED = "Unauthorized"  # 401 and 403, or the key is missing
    REDIRECTED = "Redirected"
    BAD_ENDPOINT = "BadEndpoint"  # its URL is none
    MODEL_REFUSED = "ModelRefused"
    CONTENT_FILTERED = "ContentFiltered"
    BAD_SCHEMA = "BadSchema"  # `response_schema` is no JSON Schema
    NOT_JSON = "NotJSON"
    NOT_AN_OBJECT = "NotAnObject"  # of the arguments of a tool call
    CUT_SHORT = "CutShort"  # JSON that ends too early
    SCHEMA_VIOLATED = "SchemaViolated"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelProblem:
    """A problem: for code in `reason`, for people in `message`; `status` is HTTP's, if it had one."""

    reason: ModelProblemReason
    message: str
    status: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """How long a call may take, in seconds. `total_seconds` is for all tries and the pauses between them."""

    first_token_seconds: float = 120
    between_tokens_seconds: float = 30
    total_seconds: float = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where a model is served. `url` ends in /v1; `key_environment` names the variable with the API key.

    Of an `is_vllm` it is known that it counts tokens at /tokenize, says with each token how many there were,
    and goes on with the last message. Every ModelReplicaSet is one.
    """

    url: str
    model: str
    is_vllm: bool
    key_environment: str | None = None
    timeouts: Timeouts = Timeouts()


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolDeclaration:
    """A function that the model may call; `parameters` is a JSON Schema.

    The arguments of one that `is_strict` satisfy the schema, also those of a forced call, which else are any
    JSON. An endpoint refuses a schema that it cannot hold the model to.
    """

    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=lambda: {"type": "object", "properties": {}})
    is_strict: bool = False

    @property
    def document(self) -> dict[str, Any]:
        """The declaration in OpenAI's form."""
        function: dict[str, Any] = {"name": self.name, "parameters": dict(self.parameters)}
        if self.description:
            function["description"] = self.description
        if self.is_strict:
            function["strict"] = True
        return {"type": "function", "function": function}


class ToolChoice(StrEnum):
    """Whether the model calls tools: if it wants to, never, or at least one."""

    AUTO = "auto"
    NONE = "none"
    REQUIRED = "required"


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedTool:
    """The model must call this tool."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRequest:
    """One call. `messages` are those of OpenAI's chat completions.

    `prompt_tokens` is what the prompt has at most; without it, `prompt_bound` says. All tries together use at
    most `allowance_tokens`, prompts and answers, until more is allowed; a try after a failed one may write
    only what is left. With `continues` the model goes on with the last message, which is its own. With
    `answers` its text is the answer to the task, or a part of it. `traceparent` names the trace of the call.
    What a model caches of a prompt with a `cache_salt` is found by requests of the same salt alone.
    """

    session_id: str
    priority: Priority
    messages: tuple[Mapping[str, Any], ...]
    max_tokens: int
    tools: tuple[ToolDeclaration, ...] = ()
    tool_choice: ToolChoice | NamedTool | None = None
    response_schema: Mapping[str, Any] | None = None
    temperature: float = 0
    prompt_tokens: int | None = None
    allowance_tokens: int | None = None
    continues: bool = False
    answers: bool = False
    traceparent: str | None = None
    cache_salt: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens of all tries; `cached_input_tokens` are among `input_tokens`.

    A server counts the tokens of a try that it answers. Of another try these are bounds: its prompt's, if the
    server may have read it, and one for each byte that was streamed. `is_measured` is False if they are among
    the figures. What a server writes after its connection broke is in none of them.
    """

    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0
    is_measured: bool = True

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            cached_input_tokens=self.cached_input_tokens + other.cached_input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            is_measured=self.is_measured and other.is_measured,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A call that the model wants; without a problem, `arguments` are what `arguments_text` says."""

    id: str
    name: str
    arguments_text: str
    arguments: Mapping[str, Any] | None = None
    problem: ModelProblem | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelReply:
    """How a call ended. There is a problem unless it succeeded. `usage` is of the last allowance.

    An answer that was cut off is a success with the finish reason `Length`. `value` is that of an answer with
    a schema that was not cut off. `first_token_ms` counts from the start of the try that was answered.
    `replica` is the one that answered the last try, as the router says.
    """

    outcome: ModelOutcome
    tries: int
    usage: Usage = Usage()
    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: FinishReason | None = None
    value: Any = None
    first_token_ms: int | None = None
    problem: ModelProblem | None = None
    replica: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TextDelta:
    """The model wrote this."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCallComplete:
    """A tool call is complete, or as complete as it gets; further calls and text may follow.

    A call whose text goes on after its end is given once more, with its problem.
    """

    call: ToolCall


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawn:
    """All text and calls so far are taken back; the next try begins anew."""

    problem: ModelProblem


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The call has ended; the last event."""

    reply: ModelReply


ModelEvent = TextDelta | ToolCallComplete | Withdrawn | Finished
OnEvent = Callable[[ModelEvent], None]
# Asked for a new allowance when the tries have spent one. It is told what they used of it, and by the event
# loop's clock how long the call can wait; it gives the request with the new allowance, or None.
AllowMore = Callable[[ModelRequest, Usage, float], Awaitable[ModelRequest | None]]


def shown(text: str) -> str:
    """As much of a received text as a problem's message quotes; half a character becomes a question mark."""
    quoted = text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}…"
    return quoted.encode(errors="replace").decode()
