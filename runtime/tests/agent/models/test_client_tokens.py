"""Costs of calls and their bounds, lengths of prompts, and answers that have a schema."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from flotilla_runtime.agent.models import (
    Endpoint,
    FinishReason,
    ModelOutcome,
    ModelProblemReason,
    ModelRequest,
    Usage,
    Withdrawn,
)
from model_support.calls import ASK, KEY, QUICK, asked, client, endpoint
from model_support.raw_server import (
    END,
    FOR_EVER,
    STREAM,
    Part,
    chunk,
    counted,
    event,
    plain,
    said,
    serving,
    whole,
)

Why = ModelProblemReason
Outcome = ModelOutcome
DONE = b"data: [DONE]\n\n"
BEGUN: list[Part] = [STREAM, chunk(event(said("Once ")))]
CITY: dict[str, Any] = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


def broken(*parts: Part) -> list[Part]:
    """A stream that begins and then ends with the connection."""
    return [*BEGUN, *parts]


@pytest.mark.parametrize(
    "ending",
    [
        pytest.param([], id="the connection breaks"),
        pytest.param([END], id="without counts"),
        pytest.param([chunk(event({"error": {"message": "x"}})), END], id="with an error behind it"),
        pytest.param([chunk(b"data: nonsense\n\n"), END], id="with nonsense behind it"),
        pytest.param([chunk(DONE), FOR_EVER], id="the connection stays open"),
    ],
)
async def test_an_answer_that_has_ended_counts_whatever_comes_behind_it(ending: list[Part]) -> None:
    async with serving([*BEGUN, chunk(event(said("more.", "stop"))), *ending]) as server:
        reply, _ = await asked(server.url)
    assert (reply.outcome, reply.text, reply.tries) == (Outcome.SUCCEEDED, "Once more.", 1)
    assert reply.usage == Usage(input_tokens=10, output_tokens=len("Once more."), is_measured=False)


@pytest.mark.holds(
    "decisions/0018-model-calls.md", "A dead try counts what vLLM counted along, else its bounds"
)
@pytest.mark.parametrize(
    ("answer", "used"),
    [
        pytest.param(plain(429), Usage(), id="a refusal before the prompt was read"),
        pytest.param(plain(503), Usage(), id="a router without a replica"),
        pytest.param(plain(500), Usage(input_tokens=10, is_measured=False), id="an engine that failed"),
        pytest.param([], Usage(input_tokens=10, is_measured=False), id="a connection that was lost"),
        pytest.param(
            broken(), Usage(input_tokens=10, output_tokens=5, is_measured=False), id="a broken stream"
        ),
        pytest.param(
            [STREAM, chunk(event({**said("Once "), "usage": counted(9, 2)["usage"]}))],
            Usage(input_tokens=9, output_tokens=2),
            id="a broken stream that counted along",
        ),
    ],
)
async def test_the_tokens_of_a_try_that_failed_count(answer: Sequence[Part], used: Usage) -> None:
    async with serving(answer, whole("Because.")) as server:
        reply, _ = await asked(server.url)
    assert reply.usage == used + Usage(input_tokens=12, output_tokens=3)


async def test_no_try_goes_beyond_the_allowance() -> None:
    request = replace(ASK, prompt_tokens=10, max_tokens=64, allowance_tokens=74)
    async with serving(*[broken()] * 4, whole("Never asked.")) as server:
        reply, _ = await asked(server.url, request, retries=replace(QUICK, tries=9))
    # Each dead try may have cost its prompt of 10 tokens and the 5 bytes that it wrote.
    assert [heard.body["max_tokens"] for heard in server.requests] == [64, 49, 34, 19]
    assert reply.problem is not None
    assert (reply.outcome, reply.problem.reason) == (Outcome.FAILED, Why.ALLOWANCE_SPENT)
    assert reply.usage.tokens <= 74


async def test_a_call_whose_allowance_is_spent_says_after_what() -> None:
    request = replace(ASK, prompt_tokens=10, max_tokens=20, allowance_tokens=40)
    async with serving(broken(), whole("Never asked.")) as server:
        reply, _ = await asked(server.url, request)
    assert reply.problem is not None
    assert reply.problem.reason is Why.ALLOWANCE_SPENT
    assert "RemoteProtocolError" in reply.problem.message
    assert reply.tries == 1


@pytest.mark.holds(
    "decisions/0018-model-calls.md",
    "When too little of it is left, more is reserved, up to the call's tries and time",
)
async def test_a_call_whose_allowance_is_spent_goes_on_with_more() -> None:
    """The caller settles the tokens spent so far: the reply tells what was used since."""
    request = replace(ASK, prompt_tokens=10, max_tokens=20, allowance_tokens=40)
    told: list[tuple[int, int]] = []

    async def allow_more(asked: ModelRequest, used: Usage, until: float) -> ModelRequest:
        told.append((used.tokens, round(until - asyncio.get_running_loop().time())))
        return replace(asked, allowance_tokens=30)

    async with serving(broken(), broken(), whole("Because.")) as server, client() as models:
        reply = await models.complete(endpoint(server.url), request, allow_more=allow_more)
    assert (reply.outcome, reply.text, reply.tries) == (Outcome.SUCCEEDED, "Because.", 3)
    assert told == [(15, 120), (15, 120)], "each dead try has read its prompt and written five bytes"
    assert reply.usage == Usage(input_tokens=12, output_tokens=3)


@pytest.mark.holds(
    "decisions/0018-model-calls.md",
    "When too little of it is left, more is reserved, up to the call's tries and time",
)
async def test_a_call_that_is_allowed_ever_more_keeps_to_its_tries() -> None:
    async def allow_more(asked: ModelRequest, used: Usage, until: float) -> ModelRequest:
        return replace(asked, allowance_tokens=30)

    request = replace(ASK, prompt_tokens=10, max_tokens=20, allowance_tokens=30)
    async with serving(*[broken()] * 9) as server, client() as models:
        reply = await models.complete(endpoint(server.url), request, allow_more=allow_more)
    assert reply.problem is not None
    assert (reply.tries, reply.problem.reason) == (QUICK.tries, Why.BROKEN_STREAM)


async def test_a_correction_that_the_allowance_does_not_cover_is_asked_for_with_more() -> None:
    async def allow_more(asked: ModelRequest, used: Usage, until: float) -> ModelRequest:
        assert len(asked.messages) == 3
        return replace(asked, allowance_tokens=2000)

    request = replace(ASK, response_schema=CITY, allowance_tokens=200)
    answers = whole("Oslo!"), whole('{"city": "Oslo"}', 40, 5)
    async with serving(*answers) as server, client() as models:
        reply = await models.complete(endpoint(server.url), request, allow_more=allow_more)
    assert (reply.value, reply.usage.tokens) == ({"city": "Oslo"}, 45)


async def test_an_answer_that_was_cut_off_is_told() -> None:
    answer = [STREAM, chunk(event(said("{", "length")) + event(counted(12, 1)) + DONE), END]
    async with serving(answer) as server:
        reply, _ = await asked(server.url, replace(ASK, response_schema=CITY))
    assert (reply.outcome, reply.finish_reason) == (Outcome.SUCCEEDED, FinishReason.LENGTH)
    assert (reply.text, reply.value, reply.tries) == ("{", None, 1)


async def test_a_structured_answer_has_a_value() -> None:
    async with serving(whole('{"city": "Oslo"}')) as server:
        reply, _ = await asked(server.url, replace(ASK, response_schema=CITY))
    assert (reply.outcome, reply.value) == (Outcome.SUCCEEDED, {"city": "Oslo"})


@pytest.mark.holds("decisions/0018-model-calls.md", "A structured answer is checked, and corrected once")
async def test_an_answer_that_does_not_fit_is_corrected_once_and_both_are_paid_for() -> None:
    async with serving(whole("Oslo!"), whole('{"city": "Oslo"}', 40, 5)) as server:
        reply, seen = await asked(server.url, replace(ASK, response_schema=CITY))
    assert (reply.outcome, reply.value, reply.tries) == (Outcome.SUCCEEDED, {"city": "Oslo"}, 2)
    assert reply.usage == Usage(input_tokens=52, output_tokens=8)
    (taken_back,) = seen.withdrawn
    assert isinstance(taken_back, Withdrawn)
    assert taken_back.problem.reason is Why.NOT_JSON
    first, answer, correction = server.requests[1].body["messages"]
    assert (first, answer) == (ASK.messages[0], {"role": "assistant", "content": "Oslo!"})
    assert correction["role"] == "user"
    assert taken_back.problem.message in correction["content"]


@pytest.mark.holds("decisions/0018-model-calls.md", "A structured answer is checked, and corrected once")
@pytest.mark.parametrize(
    ("second", "reason", "tries"),
    [
        pytest.param([whole('{"city": 1}')], Why.SCHEMA_VIOLATED, 2, id="the correction does not fit"),
        pytest.param([plain(400)], Why.NOT_JSON, 2, id="the correction is refused"),
        pytest.param([broken()] * 3, Why.NOT_JSON, 4, id="the correction never comes"),
    ],
)
async def test_there_is_one_correction(second: list[list[Part]], reason: Why, tries: int) -> None:
    async with serving(whole("Oslo!"), *second, whole('{"city": "Oslo"}')) as server:
        reply, _ = await asked(server.url, replace(ASK, response_schema=CITY))
    assert reply.problem is not None
    assert (reply.outcome, reply.problem.reason, reply.tries) == (Outcome.FAILED, reason, tries)
    assert reply.value is None


async def test_a_correction_that_the_allowance_does_not_cover_is_not_asked_for() -> None:
    request = replace(ASK, response_schema=CITY, allowance_tokens=200)
    async with serving(whole("Oslo!"), whole('{"city": "Oslo"}')) as server:
        reply, seen = await asked(server.url, request)
    assert reply.problem is not None
    assert (reply.problem.reason, reply.text, reply.tries) == (Why.NOT_JSON, "Oslo!", 1)
    assert seen.withdrawn == []


async def test_vllm_counts_a_prompt() -> None:
    counted_prompt = plain(200, b'{"count": 31, "max_model_len": 4096, "tokens": [1]}')
    async with serving(counted_prompt) as server, client() as models:
        prompt = await models.count_prompt(endpoint(server.url), ASK)
    assert (prompt.tokens, prompt.is_measured) == (31, True)
    (heard,) = server.requests
    assert heard.path == "/tokenize"
    assert heard.headers["authorization"] == f"Bearer {KEY}"
    assert heard.headers["x-session-id"] == "task-1"
    assert heard.body == {"model": "smol", "messages": list(ASK.messages)}


@pytest.mark.holds(
    "decisions/0018-model-calls.md",
    "Prompts are counted by `/tokenize`, also behind the router; without an answer the bound holds",
)
@pytest.mark.parametrize(
    "answer",
    [
        pytest.param([], id="no answer"),
        pytest.param(plain(404), id="no such path"),
        pytest.param(plain(307, Location="http://169.254.169.254/"), id="a redirect"),
        pytest.param(plain(200, b"[]"), id="a list"),
        pytest.param(plain(200, b'{"count": -1}'), id="a number that cannot be"),
        pytest.param(plain(200, b'{"count": "7"}'), id="a text"),
        pytest.param([FOR_EVER], id="no answer in time"),
    ],
)
async def test_without_a_count_the_bound_holds(answer: Sequence[Part]) -> None:
    async with serving(answer) as server, client() as models:
        prompt = await models.count_prompt(endpoint(server.url), replace(ASK, prompt_tokens=None))
    assert not prompt.is_measured
    assert prompt.tokens > len("why?") + 32


async def test_only_vllm_is_asked_for_a_count() -> None:
    other = Endpoint(url="http://nowhere/v1", model="gpt", is_vllm=False)
    async with client() as models:
        assert not (await models.count_prompt(other, ASK)).is_measured
