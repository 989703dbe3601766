"""Requests as they are sent, and the messages with which a conversation goes on."""

from dataclasses import replace
from typing import Any

import pytest

from flotilla_runtime.agent.models import (
    Endpoint,
    ModelOutcome,
    ModelProblem,
    ModelProblemReason,
    ModelReply,
    ModelRequest,
    NamedTool,
    ToolCall,
    ToolChoice,
    ToolDeclaration,
    assistant_message,
    bound_of,
    continuation,
    tool_message,
)
from flotilla_runtime.agent.models.requests import body_of
from flotilla_runtime.contract import Priority

USER = {"role": "user", "content": "why?"}
VLLM = Endpoint(url="http://model/v1", model="smol", is_vllm=True)
OTHER = replace(VLLM, is_vllm=False)
ASK = ModelRequest(session_id="t1", priority=Priority.BATCH, messages=(USER,), max_tokens=64)
WEATHER = ToolDeclaration(name="weather", description="How it is.", parameters={"type": "object"})
SCHEMA = {"type": "object"}


def test_a_plain_request_is_streamed_with_its_counts_and_greedy() -> None:
    assert body_of(OTHER, ASK, 32) == {
        "model": "smol",
        "messages": [USER],
        "max_tokens": 32,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_vllm_counts_along() -> None:
    assert body_of(VLLM, ASK, 32)["stream_options"] == {
        "include_usage": True,
        "continuous_usage_stats": True,
    }


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        pytest.param(None, None, id="none is the endpoint's default"),
        pytest.param(ToolChoice.AUTO, "auto", id="if it wants to"),
        pytest.param(ToolChoice.NONE, "none", id="never"),
        pytest.param(ToolChoice.REQUIRED, "required", id="at least one"),
        pytest.param(
            NamedTool(name="weather"), {"type": "function", "function": {"name": "weather"}}, id="this one"
        ),
    ],
)
def test_tools_and_their_choice(choice: ToolChoice | NamedTool | None, sent: Any) -> None:
    body = body_of(OTHER, replace(ASK, tools=(WEATHER, ToolDeclaration(name="now")), tool_choice=choice), 32)
    assert body.get("tool_choice") == sent
    function = {"name": "weather", "description": "How it is.", "parameters": {"type": "object"}}
    assert body["tools"][0] == {"type": "function", "function": function}
    assert body["tools"][1]["function"] == {"name": "now", "parameters": {"type": "object", "properties": {}}}
    assert replace(WEATHER, is_strict=True).document["function"] == {**function, "strict": True}
    assert "tool_choice" not in body_of(OTHER, replace(ASK, tool_choice=choice), 32)


def test_a_schema_is_sent_as_the_format() -> None:
    body = body_of(OTHER, replace(ASK, response_schema=SCHEMA), 32)
    assert body["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": SCHEMA},
    }


def test_vllm_goes_on_with_the_last_message_and_others_are_asked_to() -> None:
    once = continuation(replace(ASK, response_schema=SCHEMA, prompt_tokens=9), "Because the ")
    begun = {"role": "assistant", "content": "Because the "}
    assert (once.response_schema, once.prompt_tokens) == (None, None)
    body = body_of(VLLM, once, 32)
    assert body["messages"] == [USER, begun]
    assert (body["continue_final_message"], body["add_generation_prompt"]) == (True, False)
    body = body_of(OTHER, once, 32)
    assert body["messages"][:2] == [USER, begun]
    assert body["messages"][2]["role"] == "user"
    assert "continue_final_message" not in body
    assert bound_of(once) >= sum(len(message["content"]) for message in body["messages"])


def test_a_continuation_can_be_continued() -> None:
    twice = continuation(continuation(ASK, "Because "), "the wind")
    assert body_of(VLLM, twice, 32)["messages"] == [
        USER,
        {"role": "assistant", "content": "Because the wind"},
    ]


def test_a_conversation_goes_on_with_the_reply_and_the_results_of_its_calls() -> None:
    problem = ModelProblem(reason=ModelProblemReason.NOT_JSON, message="no JSON")
    calls = (
        ToolCall(id="a", name="weather", arguments_text='{"n": 1}', arguments={"n": 1}),
        ToolCall(id="b", name="weather", arguments_text="{oh", problem=problem),
        ToolCall(id="c", name="now", arguments_text="", arguments={}),
    )
    reply = ModelReply(outcome=ModelOutcome.SUCCEEDED, tries=1, text="Let me see.", tool_calls=calls)
    message = assistant_message(reply)
    assert (message["role"], message["content"]) == ("assistant", "Let me see.")
    assert [call["id"] for call in message["tool_calls"]] == ["a", "b", "c"]
    # Engines read the arguments again, and refuse the whole conversation for one that is no JSON.
    assert [call["function"]["arguments"] for call in message["tool_calls"]] == ['{"n": 1}', "{}", "{}"]
    assert tool_message(calls[1], "no JSON") == {"role": "tool", "tool_call_id": "b", "content": "no JSON"}
    assert "tool_calls" not in assistant_message(replace(reply, tool_calls=()))
