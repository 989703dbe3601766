"""The calls over HTTP: what is tried again, what is not, and what the journal is told."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from flotilla_runtime.agent.calls import Caller, Session
from flotilla_runtime.agent.journal import CallOutcome
from flotilla_runtime.agent.loop import ModelCall, RetrieveCall
from flotilla_runtime.agent.retries import RetryPolicy
from flotilla_runtime.backoff import Backoff
from flotilla_runtime.contract import (
    IndexConnection,
    ModelConnection,
    Priority,
    QueueConfig,
    WorkerConfig,
)

CONFIG = WorkerConfig(
    queue=QueueConfig(fleet="default/support"),
    prompt="Answer.",
    models=(
        ModelConnection(
            role="Default",
            name="smollm2",
            url="http://model/v1",
            model="smol",
            key_environment="K",
        ),
    ),
    indexes=(
        IndexConnection(name="manual", url="http://index/v1/retrieve"),
        IndexConnection(name="slow", url="http://slow/v1/retrieve", deadline_milliseconds=10_000),
    ),
)
ASK = ModelCall(
    id="answer/1",
    target="smollm2",
    messages=[{"role": "user", "content": "why?"}],
    max_tokens=64,
    reserved_tokens=100,
)
LOOK = RetrieveCall(id="retrieve/manual", target="manual", query="why?")
SESSION = Session(task_id="t1", priority=Priority.BATCH)
ANSWER = {
    "choices": [{"message": {"role": "assistant", "content": "Because."}}],
    "usage": {"prompt_tokens": 12, "completion_tokens": 3},
}
PASSAGES = {
    "passages": [{"id": "p", "document": "a", "title": "A", "heading": "", "text": "t", "score": 1.0}],
    "generation": "g-1",
    "tookMilliseconds": 3.0,
}

Handler = Callable[[httpx.Request], httpx.Response]


def caller(handler: Any, config: WorkerConfig = CONFIG) -> Caller:
    return calling(httpx.AsyncClient(transport=httpx.MockTransport(handler)), config)


def calling(client: httpx.AsyncClient, config: WorkerConfig) -> Caller:
    quick = RetryPolicy(tries=3, backoff=Backoff(base_seconds=0.001, limit_seconds=0.002))
    return Caller(
        client,
        config,
        environment={"K": "k"},
        model_retries=quick,
        index_retries=quick,
        draw=lambda low, high: high,
    )


async def test_a_model_is_asked_with_session_priority_and_temperature_zero() -> None:
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json=ANSWER)

    reply = await caller(handler).make(ASK, SESSION)
    assert (reply.outcome, reply.value) == (CallOutcome.SUCCEEDED, "Because.")
    assert (reply.input_tokens, reply.output_tokens, reply.tries) == (12, 3, 1)
    assert str(seen[0].url) == "http://model/v1/chat/completions"
    assert seen[0].headers["X-Session-Id"] == "t1"
    assert seen[0].headers["X-Flotilla-Priority"] == "Batch"
    assert seen[0].headers["Authorization"] == "Bearer k"
    body = json.loads(seen[0].content)
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("smol", 0, 64)


@pytest.mark.parametrize(
    ("responses", "outcome", "tries"),
    [
        pytest.param([503, 200], CallOutcome.SUCCEEDED, 2, id="a model that comes back"),
        pytest.param([429, 429, 200], CallOutcome.SUCCEEDED, 3, id="a model that is busy"),
        pytest.param([503, 503, 503], CallOutcome.FAILED, 3, id="a model that stays away"),
        pytest.param([404], CallOutcome.FAILED, 1, id="a model of another name"),
        pytest.param([401], CallOutcome.FAILED, 1, id="a key that is wrong"),
        pytest.param([None, 200], CallOutcome.SUCCEEDED, 2, id="a connection that breaks"),
    ],
)
async def test_what_may_pass_is_tried_again(
    responses: list[int | None], outcome: CallOutcome, tries: int
) -> None:
    left = list(responses)

    def handler(_: httpx.Request) -> httpx.Response:
        status = left.pop(0)
        if status is None:
            raise httpx.ReadError("reset")
        return httpx.Response(status, json=ANSWER)

    reply = await caller(handler).make(ASK, SESSION)
    assert (reply.outcome, reply.tries, left) == (outcome, tries, [])
    assert (reply.problem is None) == (outcome is CallOutcome.SUCCEEDED)


async def test_a_prompt_that_the_model_finds_too_long_is_told_apart() -> None:
    message = "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens"
    refused = httpx.Response(400, json={"error": {"message": message}})
    reply = await caller(lambda _: refused).make(ASK, SESSION)
    assert reply.outcome is CallOutcome.PROMPT_TOO_LONG


@pytest.mark.parametrize("body", ["", "[]", '{"choices": []}', '{"choices": [{"message": null}]}'])
async def test_an_answer_that_is_none_is_a_failure_with_words(body: str) -> None:
    reply = await caller(lambda _: httpx.Response(200, text=body)).make(ASK, SESSION)
    assert reply.outcome is CallOutcome.FAILED
    assert "not a chat completion" in (reply.problem or "")


def with_key(path: Path, url: str = "http://index/v1/retrieve") -> WorkerConfig:
    """The fleet's key of the index is in this file."""
    index = IndexConnection(name="manual", url=url, key_path=str(path))
    return CONFIG.model_copy(update={"indexes": (index,)})


async def test_a_search_sends_the_key_that_its_file_has_now(tmp_path: Path) -> None:
    sent: list[bytes] = []

    def handler(request: httpx.Request) -> httpx.Response:
        sent.append(dict(request.headers.raw).get(b"Authorization", b""))
        return httpx.Response(200, json=PASSAGES)

    key = tmp_path / "manual"
    asking = caller(handler, with_key(key))
    for content in (b"old\n", b"new", b"cl\xc3\xa9"):
        key.write_bytes(content)
        assert (await asking.make(LOOK, SESSION)).outcome is CallOutcome.SUCCEEDED
    assert sent == [b"Bearer old", b"Bearer new", b"Bearer cl\xc3\xa9"]


async def test_without_a_file_for_its_key_a_search_sends_none() -> None:
    sent: list[httpx.Headers] = []

    def handler(request: httpx.Request) -> httpx.Response:
        sent.append(request.headers)
        return httpx.Response(200, json=PASSAGES)

    await caller(handler).make(LOOK, SESSION)
    assert "Authorization" not in sent[0]


async def test_a_key_that_cannot_be_read_fails_the_search_with_its_path(tmp_path: Path) -> None:
    reply = await caller(lambda _: httpx.Response(200), with_key(tmp_path / "gone")).make(LOOK, SESSION)
    assert (reply.outcome, reply.tries) == (CallOutcome.FAILED, 1)
    assert "the key of the index cannot be read" in (reply.problem or "")


async def test_a_key_that_no_header_may_have_is_not_quoted(tmp_path: Path) -> None:
    (tmp_path / "manual").write_bytes(b"hush\r\nX-Evil: 1")
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, httpx.AsyncClient() as client:
        config = with_key(tmp_path / "manual", f"http://127.0.0.1:{port}/v1/retrieve")
        reply = await calling(client, config).make(LOOK, SESSION)
    assert (reply.outcome, reply.tries) == (CallOutcome.FAILED, 1)
    assert "characters that no header may have" in (reply.problem or "")
    assert "hush" not in (reply.problem or "")


async def test_an_index_gives_passages_and_its_generation() -> None:
    reply = await caller(lambda _: httpx.Response(200, json=PASSAGES)).make(LOOK, SESSION)
    assert (reply.outcome, reply.generation) == (CallOutcome.SUCCEEDED, "g-1")
    assert reply.value == PASSAGES["passages"]


async def test_a_long_question_is_cut_for_the_index() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        assert len(json.loads(request.content)["query"]) == 8192
        return httpx.Response(200, json=PASSAGES)

    long = RetrieveCall(id="retrieve/manual", target="manual", query="why? " * 5000)
    assert (await caller(handler).make(long, SESSION)).outcome is CallOutcome.SUCCEEDED


async def test_an_index_has_its_own_deadline_and_a_second() -> None:
    async def handler(_: httpx.Request) -> httpx.Response:
        await asyncio.sleep(60)
        return httpx.Response(200, json=PASSAGES)

    started = asyncio.get_running_loop().time()
    reply = await caller(handler).make(LOOK, SESSION)
    assert (reply.outcome, reply.problem) == (CallOutcome.TIMED_OUT, "no answer within 1.5 s")
    assert asyncio.get_running_loop().time() - started >= 1.5


async def test_an_index_that_may_take_longer_is_waited_for() -> None:
    async def handler(_: httpx.Request) -> httpx.Response:
        await asyncio.sleep(1.6)  # longer than the index that names no deadline may take
        return httpx.Response(200, json=PASSAGES)

    slow = RetrieveCall(id="retrieve/slow", target="slow", query="why?")
    assert (await caller(handler).make(slow, SESSION)).outcome is CallOutcome.SUCCEEDED


async def test_an_index_that_answers_nonsense_is_a_failure() -> None:
    reply = await caller(lambda _: httpx.Response(200, json={"hits": []})).make(LOOK, SESSION)
    assert reply.outcome is CallOutcome.FAILED


@pytest.mark.parametrize(
    ("asked_seconds", "shortest", "longest"),
    [
        pytest.param(None, 0, 2, id="a server that asks for nothing"),
        pytest.param(3.0, 3, 5, id="a server that asks for three seconds gets them, and jitter on top"),
        pytest.param(3600.0, 10, 12, id="a server that asks for an hour gets the limit"),
    ],
)
def test_a_pause_keeps_to_what_the_server_asks(
    asked_seconds: float | None, shortest: float, longest: float
) -> None:
    policy = RetryPolicy(tries=9, backoff=Backoff(base_seconds=1, limit_seconds=10))
    pauses = [policy.pause_seconds(2, asked_seconds, draw) for draw in (min, max)]
    assert pauses == [shortest, longest]


async def test_words_about_length_count_only_in_an_answer() -> None:
    def handler(_: httpx.Request) -> httpx.Response:
        raise httpx.ReadError("a line that is too long")

    reply = await caller(handler).make(ASK, SESSION)
    assert reply.outcome is CallOutcome.FAILED
