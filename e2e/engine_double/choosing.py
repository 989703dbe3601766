"""Chooses what the double says to a chat: a script's reply, a plan's turn, what is asked for, or filler."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from engine_double import text
from engine_double.bodies import ChatRequest
from engine_double.constrained import document
from engine_double.plans import Plan, UnknownPlanError, planned, reply_of
from engine_double.refusals import RefusedError
from engine_double.replies import Reply, Script, ToolCall, scripted


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """A reply or a refusal, and how long it is delayed. Without either, filler text is said.

    `is_forced` if the caller named the tool: the answer then ends with `stop`, as in vLLM.
    """

    reply: Reply | None = None
    refused: RefusedError | None = None
    delay_seconds: float = 0.0
    is_forced: bool = False


def chosen(body: ChatRequest, session: str, script: Script, plans: Mapping[str, Plan]) -> Chosen:
    """Answer to this request: a script goes before a plan, a plan before what the request asks for."""
    found = from_script(script, [text.message_text(message) for message in body.messages])
    return found or _from_plan(body, session, plans) or _asked_for(body)


def from_script(script: Script, texts: list[str]) -> Chosen | None:
    """The script's reply to a conversation with these messages."""
    entry = script.take(texts)
    if entry is None:
        return None
    refused = None
    if entry.status is not None:
        refused = RefusedError(
            entry.status, "InternalServerError", "scripted error", retry_after=entry.retry_after
        )
    return Chosen(reply=scripted(entry), refused=refused, delay_seconds=entry.delay_seconds)


def rest_of(reply: Reply, body: ChatRequest) -> Reply:
    """Rest of a reply whose beginning is the last message."""
    begun = text.message_text(body.messages[-1]) if body.continue_final_message else ""
    return replace(reply, content=reply.content.removeprefix(begun))


def _from_plan(body: ChatRequest, session: str, plans: Mapping[str, Plan]) -> Chosen | None:
    try:
        found = planned(body.messages, plans, is_continued=body.continue_final_message)
    except UnknownPlanError as problem:
        raise RefusedError(400, "BadRequestError", str(problem), "messages") from problem
    if found is None:
        return None
    turn, number = found
    may_call = bool(body.tools) and body.tool_choice != "none"
    reply = reply_of(turn, number, session, may_call=may_call)
    return Chosen(reply=reply, delay_seconds=turn.delay_seconds)


def _asked_for(body: ChatRequest) -> Chosen:
    name = body.forced_tool
    if name is not None or body.tool_choice == "required":
        declared = [tool.get("function", {}) for tool in body.tools or ()]
        tools = [tool for tool in declared if name in (None, tool.get("name"))]
        if not tools:
            raise RefusedError(
                400, "BadRequestError", f"tool_choice names no tool of the request: {name}", "tool_choice"
            )
        arguments = json.dumps(document(tools[0].get("parameters", {"type": "object"})))
        reply = Reply(content="", tool_calls=(ToolCall(name=tools[0]["name"], arguments=arguments),))
        return Chosen(reply=reply, is_forced=name is not None)
    if body.response_format is None:
        return Chosen()
    return Chosen(reply=_formatted(body.response_format))


def _formatted(wanted: Mapping[str, Any]) -> Reply | None:
    match wanted.get("type"):
        case "json_schema":
            schema = wanted.get("json_schema", {}).get("schema", {})
            return Reply(content=json.dumps(document(schema), ensure_ascii=False))
        case "json_object":
            return Reply(content="{}")
        case _:
            return None
