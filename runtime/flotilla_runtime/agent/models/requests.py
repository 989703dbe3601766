"""Writes requests in OpenAI's form, and the messages that continue a conversation. Pure."""

from dataclasses import replace
from typing import Any, Final

from flotilla_runtime.agent.models.values import (
    Endpoint,
    ModelReply,
    ModelRequest,
    NamedTool,
    ToolCall,
    ToolChoice,
)

GO_ON: Final = (
    "Your answer was cut off. Go on exactly where it ends. Repeat nothing of it, and do not comment on this."
)
REPAIR: Final = (
    "Your answer does not fit the JSON Schema: {problem}. Answer again with the whole corrected JSON, and "
    "with nothing else."
)
SCHEMA_NAME: Final = "answer"


def body_of(endpoint: Endpoint, request: ModelRequest, max_tokens: int) -> dict[str, Any]:
    """The body of POST /v1/chat/completions."""
    usage = {"include_usage": True}
    body: dict[str, Any] = {
        "model": endpoint.model,
        **prompt_of(endpoint, request),
        "max_tokens": max_tokens,
        "temperature": request.temperature,
        "stream": True,
        "stream_options": usage | {"continuous_usage_stats": True} if endpoint.is_vllm else usage,
    }
    if request.cache_salt is not None:
        body["cache_salt"] = request.cache_salt
    if request.tools and request.tool_choice is not None:
        body["tool_choice"] = _choice(request.tool_choice)
    if request.response_schema is not None:
        schema = {"name": SCHEMA_NAME, "schema": dict(request.response_schema)}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    return body


def prompt_of(endpoint: Endpoint, request: ModelRequest) -> dict[str, Any]:
    """The fields that make the prompt. An endpoint that cannot go on with the last message is asked to."""
    prompt: dict[str, Any] = {"messages": list(request.messages)}
    if request.continues and endpoint.is_vllm:
        prompt |= {"continue_final_message": True, "add_generation_prompt": False}
    elif request.continues:
        prompt["messages"].append({"role": "user", "content": GO_ON})
    if request.tools:
        prompt["tools"] = [tool.document for tool in request.tools]
    return prompt


def _choice(choice: ToolChoice | NamedTool) -> Any:
    if isinstance(choice, NamedTool):
        return {"type": "function", "function": {"name": choice.name}}
    return choice.value


def continuation(request: ModelRequest, text: str) -> ModelRequest:
    """The request in which the model goes on with its text.

    It has no schema, which would make the answer begin anew: validate the whole text with
    `structured_value`. The caller sets `max_tokens` and `allowance_tokens`.
    """
    before = request.messages
    if request.continues:
        said = str(before[-1]["content"]) + text
        before = before[:-1]
    else:
        said = text
    return replace(
        request,
        messages=(*before, {"role": "assistant", "content": said}),
        continues=True,
        response_schema=None,
        prompt_tokens=None,
    )


def repair(request: ModelRequest, answer: str, problem: str) -> ModelRequest:
    """The request in which the model corrects its answer."""
    messages = (
        *request.messages,
        {"role": "assistant", "content": answer},
        {"role": "user", "content": REPAIR.format(problem=problem)},
    )
    return replace(request, messages=messages, prompt_tokens=None)


def assistant_message(reply: ModelReply) -> dict[str, Any]:
    """The reply as a message of the conversation."""
    message: dict[str, Any] = {"role": "assistant", "content": reply.text}
    if reply.tool_calls:
        message["tool_calls"] = [_call_document(call) for call in reply.tool_calls]
    return message


def tool_message(call: ToolCall, content: str) -> dict[str, Any]:
    """The result of a tool call as a message of the conversation."""
    return {"role": "tool", "tool_call_id": call.id, "content": content}


def _call_document(call: ToolCall) -> dict[str, Any]:
    """The call in OpenAI's form; engines refuse conversations with arguments that are no JSON object."""
    arguments = call.arguments_text if call.problem is None and call.arguments_text.strip() else "{}"
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}
