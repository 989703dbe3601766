"""Calls of the engine double: tool calls cut anywhere, broken streams, structured and continued answers.

The double answers as vLLM does; e2e/tests/test_engine_contract_agents.py holds both to the same.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx2
import pytest
from aiohttp.test_utils import TestServer

from engine_double.configuration import Configuration
from engine_double.server import Server
from flotilla_runtime.agent.models import (
    FinishReason,
    ModelOutcome,
    ModelProblemReason,
    ModelReply,
    ModelRequest,
    NamedTool,
    TextDelta,
    Timeouts,
    ToolCallComplete,
    ToolDeclaration,
    assistant_message,
    continuation,
    tool_message,
)
from model_support.calls import ASK, Seen, asked, client, endpoint

Why = ModelProblemReason
FAST = {"model": "smol", "decode_step_seconds": 0.001, "prefill_tokens_per_second": 1e6}
SHORT = Timeouts(first_token_seconds=10, between_tokens_seconds=5, total_seconds=60)
ADD = ToolDeclaration(
    name="add",
    parameters={"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]},
)
TEXT = "The harbour 港口 is closed tonight, and it opens again at seven in the morning."


@asynccontextmanager
async def double(**settings: Any) -> AsyncIterator[str]:
    """The URL of a double with these settings."""
    configuration = Configuration.model_validate({**FAST, **settings})
    server = TestServer(Server(configuration).application())
    await server.start_server()
    try:
        yield str(server.make_url("/v1"))
    finally:
        await server.close()


def saying(text: str, **more: Any) -> ModelRequest:
    """A request whose answer is this text."""
    plan = json.dumps({"turns": [{"content": text}]})
    return replace(ASK, messages=({"role": "user", "content": f"[[plan {plan}]]"},), **more)


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("size", [1, 2, 7])
async def test_calls_that_are_cut_at_any_byte_and_interleaved_arrive_whole(
    interleaved: bool, size: int
) -> None:
    arguments = [{"text": 'a "quoted" {bracket} \\ and 港口', "n": number} for number in range(3)]
    calls = [{"name": f"tool{number}", "arguments": given} for number, given in enumerate(arguments)]
    faults = {"stream_bytes": size, "argument_characters": size, "interleave_calls": interleaved}
    script = [{"content": "Let me see.", "tool_calls": calls}]
    async with double(script=script, faults=faults) as url:
        reply, seen = await asked(url, replace(ASK, max_tokens=500))
    assert reply.finish_reason is FinishReason.TOOL_CALLS
    assert [(call.name, call.arguments) for call in reply.tool_calls] == [
        (f"tool{number}", given) for number, given in enumerate(arguments)
    ]
    assert reply.text == "Let me see."
    assert reply.usage.is_measured
    complete = [event for event in seen.events if isinstance(event, ToolCallComplete)]
    assert len(complete) == 3
    last_text = max(place for place, event in enumerate(seen.events) if isinstance(event, TextDelta))
    assert last_text < seen.events.index(complete[0])


@pytest.mark.holds(
    "decisions/0018-model-calls.md", "A dead try counts what vLLM counted along, else its bounds"
)
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        pytest.param({"cut_streams_after_tokens": 5}, Why.BROKEN_STREAM, id="cut"),
        pytest.param({"end_streams_after_tokens": 5}, Why.UNFINISHED_STREAM, id="ended too early"),
        pytest.param({"error_in_streams_after_tokens": 5}, Why.BROKEN_STREAM, id="an error in the stream"),
        pytest.param({"stall_streams_after_tokens": 5}, Why.STALLED, id="stalled, with comments"),
    ],
)
async def test_a_stream_that_dies_is_made_anew_and_never_mixed(fault: dict[str, Any], reason: Why) -> None:
    async with double(faults={**fault, "faulty_streams": 2}) as url:
        reply, seen = await asked(url, saying(TEXT), timeouts=SHORT)
    assert (reply.outcome, reply.text, reply.tries) == (ModelOutcome.SUCCEEDED, TEXT, 3)
    assert [event.problem.reason for event in seen.withdrawn] == [reason, reason]  # type: ignore[union-attr]
    # vLLM counts along, so that the tokens of the dead tries are known and not only bounded.
    once = len(TEXT) // 4 + 1
    assert reply.usage.is_measured
    assert reply.usage.output_tokens == 5 + 5 + once


@pytest.mark.holds(
    "decisions/0018-model-calls.md", "A dead try counts what vLLM counted along, else its bounds"
)
async def test_an_endpoint_that_does_not_count_along_is_charged_by_bytes() -> None:
    async with double(faults={"cut_streams_after_tokens": 5, "faulty_streams": 1}) as url:
        reply, _ = await asked(url, saying(TEXT), is_vllm=False)
    assert not reply.usage.is_measured
    cut = len(TEXT[: 5 * 4].encode())
    assert reply.usage.output_tokens == cut + len(TEXT) // 4 + 1


async def test_a_stream_without_end_ends_with_the_time_of_the_call() -> None:
    brief = Timeouts(first_token_seconds=10, between_tokens_seconds=10, total_seconds=0.7)
    async with double(faults={"endless_streams": True}) as url:
        # So many tokens may have more bytes than can come in this time.
        reply, seen = await asked(url, saying(TEXT, max_tokens=6000), timeouts=brief)
    assert reply.problem is not None
    assert (reply.outcome, reply.problem.reason) == (ModelOutcome.TIMED_OUT, Why.OUT_OF_TIME)
    assert len(seen.withdrawn) == 1


async def test_a_stream_without_end_ends_with_its_bytes() -> None:
    patient = Timeouts(first_token_seconds=60, between_tokens_seconds=60, total_seconds=600)
    async with double(faults={"endless_streams": True}) as url:
        reply, _ = await asked(url, saying(TEXT, max_tokens=40), timeouts=patient)
    assert reply.problem is not None
    assert (reply.outcome, reply.problem.reason) == (ModelOutcome.FAILED, Why.ANSWER_TOO_LARGE)


async def test_an_agent_calls_its_tool_and_answers() -> None:
    turns = [{"tool_calls": [{"name": "add", "arguments": {"n": "{turn}"}}], "times": 3}, {"content": "3"}]
    messages: tuple[Any, ...] = ({"role": "user", "content": f"[[plan {json.dumps({'turns': turns})}]]"},)
    replies: list[ModelReply] = []
    async with double() as url:
        while not replies or replies[-1].tool_calls:
            reply, _ = await asked(url, replace(ASK, messages=messages, tools=(ADD,)))
            replies.append(reply)
            results = (tool_message(call, "ok") for call in reply.tool_calls)
            messages = (*messages, assistant_message(reply), *results)
    assert [reply.tool_calls[0].arguments for reply in replies[:-1]] == [
        {"n": str(turn)} for turn in range(3)
    ]
    assert replies[-1].text == "3"


async def test_a_forced_call_is_a_call() -> None:
    request = replace(ASK, tools=(ADD,), tool_choice=NamedTool(name="add"))
    async with double() as url:
        reply, _ = await asked(url, request)
    assert reply.finish_reason is FinishReason.TOOL_CALLS
    assert reply.tool_calls[0].arguments == {"n": 0}


async def test_a_structured_answer_is_a_value_and_a_bad_one_is_corrected() -> None:
    schema = ADD.parameters
    async with double(script=[{"content": '{"n": "one"}', "matches": "wrong"}]) as url:
        good, _ = await asked(url, replace(ASK, response_schema=schema))
        wrong = ({"role": "user", "content": "wrong"},)
        corrected, seen = await asked(url, replace(ASK, messages=wrong, response_schema=schema))
    assert (good.value, good.tries) == ({"n": 0}, 1)
    assert (corrected.value, corrected.tries) == ({"n": 0}, 2)
    assert [event.problem.reason for event in seen.withdrawn] == [Why.SCHEMA_VIOLATED]  # type: ignore[union-attr]


async def test_an_answer_that_is_cut_off_is_continued_until_it_ends() -> None:
    async with double() as url:
        request, text = saying(TEXT, max_tokens=6), ""
        for _ in range(10):
            reply, _ = await asked(url, request)
            assert reply.outcome is ModelOutcome.SUCCEEDED
            text += reply.text
            if reply.finish_reason is not FinishReason.LENGTH:
                break
            request = continuation(request, reply.text)
    assert (text, reply.finish_reason) == (TEXT, FinishReason.STOP)


async def test_tokens_from_the_cache_are_counted() -> None:
    request = saying(TEXT + " " + "word " * 200, max_tokens=4)
    async with double(prompt_tokens_details=True) as url:
        first, second = [(await asked(url, request))[0].usage for _ in range(2)]
    assert first.cached_input_tokens == 0
    assert 0.8 * second.input_tokens < second.cached_input_tokens <= second.input_tokens


async def test_a_prompt_has_as_many_tokens_as_were_counted() -> None:
    request = replace(saying(TEXT), tools=(ADD,), prompt_tokens=None)
    async with double() as url, client() as models:
        counted = await models.count_prompt(endpoint(url), request)
        reply = await models.complete(endpoint(url), request, Seen().take)
    assert (counted.tokens, counted.is_measured) == (reply.usage.input_tokens, True)


async def test_a_cancelled_call_frees_the_engine() -> None:
    async with double(decode_step_seconds=0.05) as url, client() as models, httpx2.AsyncClient() as other:

        async def running() -> bool:
            text = (await other.get(url.removesuffix("/v1") + "/metrics")).text
            return 'vllm:num_requests_running{engine="0",model_name="smol"} 1.0' in text

        making = asyncio.create_task(models.complete(endpoint(url), saying("word " * 40)))
        async with asyncio.timeout(30):
            while not await running():  # noqa: ASYNC110 - it is in the server
                await asyncio.sleep(0.01)
            making.cancel()
            while await running():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    assert making.cancelled()
