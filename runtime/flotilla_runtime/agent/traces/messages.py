"""Messages of OpenAI's chat completions in the form of OpenTelemetry's GenAI conventions. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from flotilla_runtime.agent.models.journal_form import is_cut, text_of, tool_calls_of


def message_documents(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The messages of a request to a model, in the form of the conventions."""
    return [{"role": str(message.get("role", "")), "parts": _parts(message)} for message in messages]


def answer_document(value: Any) -> dict[str, Any]:
    """The answer of a model, as it stands in the journal, in the form of the conventions."""
    text, calls = text_of(value), tool_calls_of(value)
    parts: list[dict[str, Any]] = [{"type": "text", "content": text}] if text else []
    parts += [_call(call.id, call.name, call.arguments_text) for call in calls]
    ended = "length" if is_cut(value) else "tool_call" if calls else "stop"
    return {"role": "assistant", "parts": parts, "finish_reason": ended}


def _parts(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    content = message.get("content")
    if message.get("role") == "tool":
        return [
            {"type": "tool_call_response", "id": message.get("tool_call_id"), "response": content},
        ]
    parts: list[dict[str, Any]] = [{"type": "text", "content": content}] if content else []
    for call in message.get("tool_calls") or ():
        function = call.get("function", {})
        parts.append(_call(call.get("id"), function.get("name"), function.get("arguments")))
    return parts


def _call(call: Any, name: Any, arguments: Any) -> dict[str, Any]:
    return {"type": "tool_call", "id": call, "name": name, "arguments": arguments}
