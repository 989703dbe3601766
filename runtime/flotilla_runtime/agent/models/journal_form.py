"""How the answer of a model stands in the journal, and how it is read back. Pure.

An answer without tool calls that ended by itself is its text alone, as in journals of version 0.1.0.
"""

from collections.abc import Mapping
from typing import Any

from flotilla_runtime.agent.models import FinishReason, ModelProblem, ModelProblemReason, ModelReply, ToolCall
from flotilla_runtime.agent.models.json_text import read_json


def value_of(reply: ModelReply) -> Any:
    """The value of a model call's result."""
    value: dict[str, Any] = {"text": reply.text}
    if reply.tool_calls:
        value["toolCalls"] = [_stored(call) for call in reply.tool_calls]
    if reply.finish_reason is FinishReason.LENGTH:
        value["isCut"] = True
    if reply.value is not None:
        value["value"] = reply.value
    return value if len(value) > 1 else reply.text


def text_of(value: Any) -> str:
    """The text of a stored answer."""
    return str(value.get("text", "") if isinstance(value, Mapping) else value or "")


def is_cut(value: Any) -> bool:
    """Whether the model stopped because it had no tokens left."""
    return isinstance(value, Mapping) and bool(value.get("isCut"))


def tool_calls_of(value: Any) -> tuple[ToolCall, ...]:
    """The tool calls of a stored answer."""
    if not isinstance(value, Mapping):
        return ()
    return tuple(_read(call) for call in value.get("toolCalls", ()))


def schema_value_of(value: Any) -> Any:
    """The value of a stored answer that was to fit a schema."""
    return value.get("value") if isinstance(value, Mapping) else None


def _stored(call: ToolCall) -> dict[str, Any]:
    stored: dict[str, Any] = {"id": call.id, "name": call.name, "arguments": call.arguments_text}
    if call.problem is not None:
        stored["problem"] = {"reason": str(call.problem.reason), "message": call.problem.message}
    return stored


def _read(stored: Mapping[str, Any]) -> ToolCall:
    text, told = str(stored["arguments"]), stored.get("problem")
    problem = (
        None
        if told is None
        else ModelProblem(reason=ModelProblemReason(told["reason"]), message=str(told["message"]))
    )
    arguments = read_json(text) if problem is None and text.strip() else {}
    return ToolCall(
        id=str(stored["id"]),
        name=str(stored["name"]),
        arguments_text=text,
        arguments=None if problem is not None else arguments,
        problem=problem,
    )
