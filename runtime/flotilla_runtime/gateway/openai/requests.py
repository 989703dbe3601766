"""Reads the requests of OpenAI's clients. What a task cannot heed is refused by its parameter's name.

The fleet has its own prompt, models, tools and limits, so parameters that would set them are refused.
Parameters that are null count as absent.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic_core import from_json

from flotilla_runtime.agent.conversations import Message, Role
from flotilla_runtime.contract import Priority
from flotilla_runtime.gateway.numbers import NO_NUMBER, not_finite
from flotilla_runtime.gateway.openai.errors import no_model, refusal
from flotilla_runtime.gateway.problems import ProblemError
from flotilla_runtime.gateway.requests import SubmitRequest, submission_of

MOST_MESSAGES: Final = 1000
HEEDED: Final = frozenset({"model", "stream", "metadata", "service_tier", "store"})
CHAT: Final = HEEDED | {"messages", "stream_options"}
RESPONSES: Final = HEEDED | {"input", "instructions", "background", "previous_response_id", "conversation"}
HINTS: Final = frozenset({"user", "safety_identifier", "prompt_cache_key"})  # change no answer
# Values that say what a task does in any case.
NEUTRAL: Final[Mapping[str, Any]] = {
    "n": 1,
    "response_format": {"type": "text"},
    "text": {"format": {"type": "text"}},
    "tools": [],
    "tool_choice": "auto",
    "truncation": "disabled",
    "include": [],
}
TIERS: Final = {"auto": Priority.INTERACTIVE, "default": Priority.INTERACTIVE, "flex": Priority.BATCH}
INSTRUCTING: Final = ("system", "developer")
TEXT_PARTS: Final = ("text", "input_text", "output_text")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The request of a client."""

    submission: SubmitRequest
    history: tuple[Message, ...]
    streams: bool
    counts: bool = False  # with `stream`: whether the last chunk tells the usage
    in_background: bool = False
    is_stored: bool = True
    previous: str | None = None


def asked_chat(body: bytes, fleet: str, idempotency_key: str | None, agents: Sequence[str] = ()) -> Asked:
    """A request for a chat completion."""
    told = _document(body, CHAT, models_of(fleet, agents))
    messages = told.get("messages")
    if not isinstance(messages, list):
        raise refusal("messages must be a list of messages", "messages")
    options = _object(told, "stream_options")
    if unknown := options.keys() - {"include_usage", "include_obfuscation"}:
        raise _unsupported(f"stream_options.{min(unknown)}")
    instructions, history, question = _conversation(messages, "messages")
    return Asked(
        submission=_submission(told, instructions, question, idempotency_key),
        history=history,
        streams=_flag(told, "stream"),
        counts=bool(options.get("include_usage")),
        is_stored=False,
    )


def asked_response(body: bytes, fleet: str, idempotency_key: str | None, agents: Sequence[str] = ()) -> Asked:
    """A request for a response."""
    told = _document(body, RESPONSES, models_of(fleet, agents))
    items = told.get("input")
    if isinstance(items, str):
        items = [{"role": "user", "content": items}]
    if not isinstance(items, list):
        raise refusal("input must be a text or a list of messages", "input")
    instructions, history, question = _conversation(items, "input")
    told_instructions = told.get("instructions") or ""
    if not isinstance(told_instructions, str):
        raise refusal("instructions must be a text", "instructions")
    previous, conversation = _text(told, "previous_response_id"), told.get("conversation")
    if isinstance(conversation, dict):
        conversation = conversation.get("id")
    if previous is not None and conversation is not None:
        raise refusal("name either previous_response_id or conversation", "conversation")
    is_stored = _flag(told, "store", default=True)
    if not is_stored and (previous is not None or conversation is not None):
        raise refusal(
            "a response that goes on with a conversation is kept in it; leave store out, or send what was "
            "said before as messages of input",
            "store",
        )
    parts = [told_instructions, *instructions]
    return Asked(
        submission=_submission(told, parts, question, idempotency_key, conversation),
        history=history,
        streams=_flag(told, "stream"),
        in_background=_flag(told, "background"),
        is_stored=is_stored,
        previous=previous,
    )


def models_of(fleet: str, agents: Sequence[str]) -> dict[str, str | None]:
    """The names of the models, each with the agent that it stands for; None for the fleet's own."""
    return {fleet: None, **{f"{fleet}/{agent}": agent for agent in agents}}


def _document(body: bytes, heeded: frozenset[str], models: Mapping[str, str | None]) -> dict[str, Any]:
    """The parameters; `agent` is added, by the model's name."""
    try:
        told = from_json(body, allow_inf_nan=False)
    except ValueError:
        raise refusal("the body is not JSON", None, "not_json") from None
    if not isinstance(told, dict):
        raise refusal("the body must be a JSON object", None, "not_json")
    for name in not_finite(told):  # 1e999 is infinite
        raise refusal(f"{name[:100]}: {NO_NUMBER}", name[:100], "not_json")
    told = {name: value for name, value in told.items() if value is not None}
    for name, value in told.items():
        if name not in heeded | HINTS and (name not in NEUTRAL or value != NEUTRAL[name]):
            raise _unsupported(name)
    model = told.get("model")
    if not isinstance(model, str) or model not in models:
        raise no_model(str(model), models)
    return {**told, "agent": models[model]}


def _unsupported(name: str) -> ProblemError:
    return refusal(
        f"{name[:100]} is not supported, since the fleet has its own prompt, models, tools and limits; leave "
        "it out",
        name[:100],
        "unsupported_parameter",
    )


def _submission(
    told: Mapping[str, Any],
    instructions: Sequence[str],
    question: str,
    idempotency_key: str | None,
    conversation: Any = None,
) -> SubmitRequest:
    """The task; what the client instructs stands before its question, and has no more weight than it."""
    tier = told.get("service_tier", "auto")
    if not isinstance(tier, str) or tier not in TIERS:
        raise refusal(f"service_tier must be one of {', '.join(TIERS)}", "service_tier")
    fields = {
        "input": "\n\n".join([*filter(None, instructions), question]),
        "priority": TIERS[tier],
        "metadata": _object(told, "metadata"),
        "idempotencyKey": idempotency_key,
        "conversationId": conversation,
        "agent": told["agent"],
    }
    return submission_of(fields)


def _conversation(messages: list[Any], name: str) -> tuple[list[str], tuple[Message, ...], str]:
    """Instructions, what was said before, and the question, which is what the user said last."""
    if len(messages) > MOST_MESSAGES:
        raise refusal(f"{name} may have {MOST_MESSAGES} messages at most", name)
    instructions: list[str] = []
    said: list[Message] = []
    for place, message in enumerate(messages):
        role, text = _message(message, f"{name}[{place}]")
        if role in INSTRUCTING:
            instructions.append(text)
        else:
            said.append(Message(role=Role(role), text=text))
    last = len(said)
    while last and said[last - 1].role is Role.USER:
        last -= 1
    question = "\n\n".join(message.text for message in said[last:]).strip()
    if not question:
        raise refusal(f"the last message of {name} must be of the user, and say something", name)
    return instructions, tuple(said[:last]), question


def _message(message: Any, name: str) -> tuple[str, str]:
    if not isinstance(message, dict) or message.get("type", "message") != "message":
        raise refusal(f"{name} must be a message with role and content", f"{name}.type")
    role = message.get("role")
    if role not in (*INSTRUCTING, *Role):
        raise refusal(f"{name}.role must be system, developer, user or assistant", f"{name}.role")
    if message.get("tool_calls"):
        raise _unsupported(f"{name}.tool_calls")
    content = message.get("content")
    if isinstance(content, str):
        return str(role), content
    if not isinstance(content, list):
        raise refusal(f"{name}.content must be a text or a list of texts", f"{name}.content")
    texts = []
    for place, part in enumerate(content):
        where = f"{name}.content[{place}]"
        if not isinstance(part, dict) or part.get("type") not in TEXT_PARTS:
            raise refusal(f"{where} is no text; only texts are supported", f"{where}.type")
        if not isinstance(part.get("text"), str):
            raise refusal(f"{where}.text must be a text", f"{where}.text")
        texts.append(part["text"])
    return str(role), "\n".join(texts)


def _flag(told: Mapping[str, Any], name: str, *, default: bool = False) -> bool:
    value = told.get(name, default)
    if not isinstance(value, bool):
        raise refusal(f"{name} must be true or false", name)
    return value


def _text(told: Mapping[str, Any], name: str) -> str | None:
    value = told.get(name)
    if value is not None and not isinstance(value, str):
        raise refusal(f"{name} must be a text", name)
    return value


def _object(told: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = told.get(name, {})
    if not isinstance(value, dict):
        raise refusal(f"{name} must be an object", name)
    return value
