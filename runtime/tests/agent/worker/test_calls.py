"""The calls over HTTP: what is tried again, what is not, and what the journal is told."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest

from agent_support.memory import MemoryStore
from agent_support.running import program_of, run
from flotilla_runtime.agent.budgets import Amount, Budget
from flotilla_runtime.agent.engine.context import Context, Task
from flotilla_runtime.agent.engine.run import RunOutcome
from flotilla_runtime.agent.journal import CallKind, CallOutcome, Done, Intended, TaskStatus
from flotilla_runtime.agent.models import ModelRequest, prompt_bound
from flotilla_runtime.agent.protocols import Call, SearchRequest, Session
from flotilla_runtime.agent.retries import RetryPolicy
from flotilla_runtime.agent.worker.calls import Caller
from flotilla_runtime.backoff import Backoff
from flotilla_runtime.contract import (
    IndexConnection,
    ModelConnection,
    Pricing,
    Priority,
    QueueConfig,
    TaskLimits,
    WorkerConfig,
)
from leaks.planted import MARK, planted

HUSH = planted("hush").encode()
OLD, NEW, NEWER = planted("old"), planted("new"), planted("newer")
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
REQUEST = ModelRequest(
    session_id="t1",
    priority=Priority.BATCH,
    messages=({"role": "user", "content": "why?"},),
    max_tokens=64,
)
ASK = Call(id="answer/1", kind=CallKind.MODEL, target="smollm2", request=REQUEST, key="k1")
SESSION = Session(task_id="t1", tenant="ann", priority=Priority.BATCH)


def look(query: str = "why?", index: str = "manual") -> Call:
    request = SearchRequest(query=query)
    return Call(id=f"retrieve/{index}", kind=CallKind.RETRIEVE, target=index, request=request, key="k2")


def streamed(*events: Any, text: str = "Because.", finish_reason: str = "stop") -> httpx2.Response:
    """An answer as vLLM streams it."""
    chunks: list[Any] = [
        {"choices": [{"index": 0, "delta": {"role": "assistant", "content": text}}]},
        *events,
        {"choices": [{"index": 0, "delta": {}, "finish_reason": finish_reason}]},
        {"choices": [], "usage": {"prompt_tokens": 12, "completion_tokens": 3}},
    ]
    lines = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks]
    return answering(200, "".join([*lines, "data: [DONE]\n\n"]))


def answering(status: int, text: str = "") -> httpx2.Response:
    """An answer that is read while it arrives."""

    async def pieces() -> AsyncIterator[bytes]:
        yield text.encode()

    return httpx2.Response(status, content=pieces(), headers={"Content-Type": "text/event-stream"})


PASSAGES = {
    "passages": [{"id": "p", "document": "a", "title": "A", "heading": "", "text": "t", "score": 1.0}],
    "generation": "g-1",
    "tookMilliseconds": 3.0,
}

Handler = Callable[[httpx2.Request], httpx2.Response]


def caller(handler: Any, config: WorkerConfig = CONFIG) -> Caller:
    return calling(httpx2.AsyncClient(transport=httpx2.MockTransport(handler)), config)


def calling(client: httpx2.AsyncClient, config: WorkerConfig) -> Caller:
    quick = RetryPolicy(tries=3, backoff=Backoff(base_seconds=0.001, limit_seconds=0.002))
    return Caller(
        client,
        config,
        environment={"K": planted("k")},
        model_retries=quick,
        index_retries=quick,
        draw=lambda low, high: high,
    )


@pytest.mark.holds("router.md", "Fleets send the priority of the task, index builds send Batch")
async def test_a_model_is_asked_with_session_priority_and_temperature_zero() -> None:
    seen: list[httpx2.Request] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return streamed()

    reply = await caller(handler).make(ASK, SESSION)
    assert (reply.outcome, reply.value) == (CallOutcome.SUCCEEDED, "Because.")
    assert (reply.input_tokens, reply.output_tokens, reply.tries) == (12, 3, 1)
    assert str(seen[0].url) == "http://model/v1/chat/completions"
    assert seen[0].headers["X-Session-Id"] == "t1"
    assert seen[0].headers["X-Flotilla-Priority"] == "Batch"
    assert seen[0].headers["Authorization"] == f"Bearer {planted('k')}"
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

    def handler(_: httpx2.Request) -> httpx2.Response:
        status = left.pop(0)
        if status is None:
            raise httpx2.ReadError("reset")
        return streamed() if status == 200 else answering(status)

    reply = await caller(handler).make(ASK, SESSION)
    assert (reply.outcome, reply.tries, left) == (outcome, tries, [])
    assert (reply.problem is None) == (outcome is CallOutcome.SUCCEEDED)


async def test_a_prompt_that_the_model_finds_too_long_is_told_apart() -> None:
    message = "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens"
    refused = answering(400, json.dumps({"error": {"message": message}}))
    reply = await caller(lambda _: refused).make(ASK, SESSION)
    assert reply.outcome is CallOutcome.PROMPT_TOO_LONG


def with_key(path: Path, url: str = "http://index/v1/retrieve") -> WorkerConfig:
    """The fleet's key of the index is in this file."""
    index = IndexConnection(name="manual", url=url, key_path=str(path))
    return CONFIG.model_copy(update={"indexes": (index,)})


@pytest.mark.holds("search.md", "Retrievers and workers read a changed key without a restart")
async def test_a_search_sends_the_key_that_its_file_has_now(tmp_path: Path) -> None:
    sent: list[bytes] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        sent.append(dict(request.headers.raw).get(b"Authorization", b""))
        return httpx2.Response(200, json=PASSAGES)

    key = tmp_path / "manual"
    asking = caller(handler, with_key(key))
    for content in (f"{OLD}\n", NEW, f"\t{NEWER} \r\n"):
        key.write_bytes(content.encode())
        assert (await asking.make(look(), SESSION)).outcome is CallOutcome.SUCCEEDED
    assert sent == [f"Bearer {one}".encode() for one in (OLD, NEW, NEWER)]


async def test_without_a_file_for_its_key_a_search_sends_none() -> None:
    sent: list[httpx2.Headers] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        sent.append(request.headers)
        return httpx2.Response(200, json=PASSAGES)

    await caller(handler).make(look(), SESSION)
    assert "Authorization" not in sent[0]


async def test_a_key_that_cannot_be_read_fails_the_search_with_its_path(tmp_path: Path) -> None:
    reply = await caller(lambda _: httpx2.Response(200), with_key(tmp_path / "gone")).make(look(), SESSION)
    assert (reply.outcome, reply.tries) == (CallOutcome.FAILED, 1)
    assert "the key of the index cannot be read" in (reply.problem or "")


@pytest.mark.holds("security.md", "Nobody searches without a key, and keys are in no log, message or metric")
@pytest.mark.parametrize(
    "key",
    [
        pytest.param(HUSH + b"\r\nX-Evil: 1", id="two lines"),
        pytest.param(HUSH + b"\0", id="NUL"),
        pytest.param(HUSH + " é".encode(), id="no ASCII"),
        pytest.param(HUSH + b"\xff", id="no UTF-8"),
        pytest.param(HUSH * 2**16, id="too long"),
    ],
)
async def test_a_key_that_no_header_may_have_is_not_quoted(tmp_path: Path, key: bytes) -> None:
    (tmp_path / "manual").write_bytes(key)
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server, httpx2.AsyncClient() as client:
        config = with_key(tmp_path / "manual", f"http://127.0.0.1:{port}/v1/retrieve")
        reply = await calling(client, config).make(look(), SESSION)
    assert (reply.outcome, reply.tries) == (CallOutcome.FAILED, 1)
    assert "the key of the index cannot be sent: the file" in (reply.problem or "")
    assert MARK not in (reply.problem or "")


async def test_an_index_gives_passages_and_its_generation() -> None:
    def handler(request: httpx2.Request) -> httpx2.Response:
        assert request.headers["X-Flotilla-Tenant"] == "ann"
        return httpx2.Response(200, json=PASSAGES)

    reply = await caller(handler).make(look(), SESSION)
    assert (reply.outcome, reply.generation) == (CallOutcome.SUCCEEDED, "g-1")
    assert reply.value == PASSAGES["passages"]


@pytest.mark.holds(
    "observability.md",
    "The other side of a call gets its span; the replica that answered is in the span of the call",
)
async def test_models_and_indexes_are_told_the_span_of_a_call_and_the_replica_is_kept() -> None:
    seen: list[str | None] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        seen.append(request.headers.get("traceparent"))
        if "retrieve" in request.url.path:
            return httpx2.Response(200, json=PASSAGES)
        answer = streamed()
        answer.headers["X-Flotilla-Replica"] = "llama-0"
        return answer

    for call in (ASK, look()):
        await caller(handler).make(call, SESSION)
        await caller(handler).make(replace(call, traceparent="00-1-2-01"), SESSION)
    assert seen == [None, "00-1-2-01", None, "00-1-2-01"]
    assert (await caller(handler).make(ASK, SESSION)).replica == "llama-0"


@pytest.mark.parametrize("said", ["", "UPPER", "a b", "x" * 254, "-a", "ünder"])
async def test_a_replica_that_no_router_of_ours_names_is_none(said: str) -> None:
    def handler(_: httpx2.Request) -> httpx2.Response:
        answer = streamed()
        answer.headers = httpx2.Headers([*answer.headers.raw, (b"X-Flotilla-Replica", said.encode())])
        return answer

    assert (await caller(handler).make(ASK, SESSION)).replica is None


async def test_a_tenant_of_any_name_goes_along() -> None:
    def handler(request: httpx2.Request) -> httpx2.Response:
        assert request.headers["X-Flotilla-Tenant"] == "J%C3%BCrgen%0D%0AX-Evil%3A%201"
        return httpx2.Response(200, json=PASSAGES)

    session = replace(SESSION, tenant="Jürgen\r\nX-Evil: 1")
    assert (await caller(handler).make(look(), session)).outcome is CallOutcome.SUCCEEDED


async def test_a_long_question_is_cut_for_the_index() -> None:
    def handler(request: httpx2.Request) -> httpx2.Response:
        assert len(json.loads(request.content)["query"]) == 8192
        return httpx2.Response(200, json=PASSAGES)

    long = look("why? " * 5000)
    assert (await caller(handler).make(long, SESSION)).outcome is CallOutcome.SUCCEEDED


async def test_an_index_has_its_own_deadline_and_a_second() -> None:
    async def handler(_: httpx2.Request) -> httpx2.Response:
        await asyncio.sleep(60)
        return httpx2.Response(200, json=PASSAGES)

    started = asyncio.get_running_loop().time()
    reply = await caller(handler).make(look(), SESSION)
    assert (reply.outcome, reply.problem) == (CallOutcome.TIMED_OUT, "no answer within 1.5 s")
    assert asyncio.get_running_loop().time() - started >= 1.5


async def test_an_index_that_may_take_longer_is_waited_for() -> None:
    async def handler(_: httpx2.Request) -> httpx2.Response:
        await asyncio.sleep(1.6)  # longer than the index that names no deadline may take
        return httpx2.Response(200, json=PASSAGES)

    slow = look(index="slow")
    assert (await caller(handler).make(slow, SESSION)).outcome is CallOutcome.SUCCEEDED


async def test_an_index_that_answers_nonsense_is_a_failure() -> None:
    reply = await caller(lambda _: httpx2.Response(200, json={"hits": []})).make(look(), SESSION)
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
    def handler(_: httpx2.Request) -> httpx2.Response:
        raise httpx2.ReadError("a line that is too long")

    reply = await caller(handler).make(ASK, SESSION)
    assert reply.outcome is CallOutcome.FAILED


async def test_an_index_that_the_fleet_lacks_is_no_call() -> None:
    reply = await caller(lambda _: httpx2.Response(500)).make(look(index="wiki"), SESSION)
    assert (reply.outcome, reply.problem) == (CallOutcome.INVALID, "the fleet has no index wiki")


async def test_a_call_that_breaks_in_our_own_code_is_a_failure_with_words() -> None:
    reply = await caller(lambda _: httpx2.Response(200)).make(replace(ASK, target="gone"), SESSION)
    assert (reply.outcome, reply.problem) == (CallOutcome.FAILED, "KeyError")


def budget(left: int, *, reserved: int = 0, most_nano_usd: int | None = None) -> Budget:
    return Budget(
        used=Amount(),
        reserved=Amount(tokens=reserved),
        most_steps=24,
        most_tokens=left + reserved,
        most_nano_usd=most_nano_usd,
    )


BOUND = prompt_bound(REQUEST.messages)


@pytest.mark.holds("tasks.md", "An answer may take what context and limits leave")
@pytest.mark.parametrize(
    ("asked", "left", "reserved", "max_tokens", "tokens"),
    [
        pytest.param(64, 9000, 0, 64, 3 * BOUND + 192, id="what is asked for, three times"),
        pytest.param(64, 3 * BOUND + 191, 0, 64, 2 * BOUND + 128, id="twice"),
        pytest.param(64, 2 * BOUND + 99, 0, 64, 2 * BOUND + 64, id="the prompt alone twice"),
        pytest.param(2**31, 900, 0, 900 - BOUND, 900, id="what the budget leaves"),
        pytest.param(2**31, BOUND + 10, 0, 32, BOUND + 32, id="too little is left, which the store refuses"),
        pytest.param(2**31, BOUND + 50, 500, 256, BOUND + 256, id="a decent answer, when others may settle"),
    ],
)
async def test_a_model_call_reserves_what_it_can_use(
    asked: int, left: int, reserved: int, max_tokens: int, tokens: int
) -> None:
    call = replace(ASK, request=replace(REQUEST, max_tokens=asked))
    one = caller(lambda _: httpx2.Response(404))
    cut, amount = await one.reservation(call, SESSION, budget(left, reserved=reserved))
    assert (cut.request.max_tokens, amount.tokens, amount.nano_usd) == (max_tokens, tokens, 0)
    assert cut.request.allowance_tokens == tokens


@pytest.mark.holds("tasks.md", "An answer may take what context and limits leave")
async def test_an_answer_ends_where_the_context_does() -> None:
    call = replace(ASK, request=replace(REQUEST, max_tokens=2**31))
    cut, _ = await caller(lambda _: httpx2.Response(404)).reservation(call, SESSION, budget(10**6))
    assert 4096 - BOUND <= cut.request.max_tokens < 4096


async def test_only_a_model_that_isolates_tenants_gets_a_salt_of_the_tenant() -> None:
    bodies: list[Any] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        bodies.append(json.loads(request.content))
        return streamed()

    async def salt_of(tenant: str) -> str:
        return f"salt of {tenant}"

    isolating = CONFIG.models[0].model_copy(update={"isolate_tenants": True})
    for config in (CONFIG, CONFIG.model_copy(update={"models": (isolating,)})):
        client = httpx2.AsyncClient(transport=httpx2.MockTransport(handler))
        await Caller(client, config, environment={"K": planted("k")}, salt_of=salt_of).make(ASK, SESSION)
    assert [body.get("cache_salt") for body in bodies] == [None, "salt of ann"]


async def test_a_model_that_isolates_tenants_is_not_asked_without_a_salt() -> None:
    asked: list[httpx2.Request] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        asked.append(request)
        return streamed()

    isolating = CONFIG.models[0].model_copy(update={"isolate_tenants": True})
    config = CONFIG.model_copy(update={"models": (isolating,)})
    reply = await caller(handler, config).make(ASK, SESSION)
    assert (reply.outcome, asked) == (CallOutcome.FAILED, [])


@pytest.mark.holds(
    "tasks.md",
    "`maxOutputTokens` bounds each request for an answer, and an answer with all that continues it",
)
@pytest.mark.parametrize(
    ("asked", "most", "expected"),
    [
        pytest.param(2**31, 300, 300, id="all that is left is bounded"),
        pytest.param(2**31, 8, 8, id="below what answers get otherwise"),
        pytest.param(200, 300, 200, id="who asks for less gets less"),
        pytest.param(400, 300, 300, id="who asks for more does not get it"),
    ],
)
async def test_an_answer_takes_no_more_than_the_bound_of_its_model(
    asked: int, most: int, expected: int
) -> None:
    bounded = CONFIG.models[0].model_copy(update={"max_output_tokens": most})
    config = CONFIG.model_copy(update={"models": (bounded,)})
    call = replace(ASK, request=replace(REQUEST, max_tokens=asked))
    cut, amount = await caller(lambda _: httpx2.Response(404), config).reservation(
        call, SESSION, budget(10**6)
    )
    assert cut.request.max_tokens == expected
    assert amount.tokens == 3 * (BOUND + expected), "three tries of it are reserved, and no more"


async def test_an_answer_costs_no_more_than_the_money_that_is_left() -> None:
    priced = CONFIG.models[0].model_copy(
        update={"pricing": Pricing(input_per_million_usd=1, output_per_million_usd=10)}
    )
    config = CONFIG.model_copy(update={"models": (priced,)})
    call = replace(ASK, request=replace(REQUEST, max_tokens=2**31))
    money = 1000 * BOUND + 10_000 * 50
    one = caller(lambda _: streamed(), config)
    cut, amount = await one.reservation(call, SESSION, budget(10**6, most_nano_usd=money))
    assert (cut.request.max_tokens, amount.nano_usd) == (50, money)
    reply = await one.make(call, SESSION)
    assert reply.nano_usd == 12 * 1000 + 3 * 10_000


async def test_a_task_whose_model_dies_more_often_than_its_call_has_reserved_for_goes_on() -> None:
    """Five replicas die in the middle of an answer, and the call has reserved three tries."""
    deaths = 5
    left = iter([*[None] * deaths, "answers"])

    async def dying() -> AsyncIterator[bytes]:
        yield b'data: {"choices": [{"index": 0, "delta": {"content": "Bec"}}]}\n\n'
        raise httpx2.ReadError("reset")

    def handler(request: httpx2.Request) -> httpx2.Response:
        if request.url.path.endswith("/tokenize"):
            return httpx2.Response(404)
        headers = {"Content-Type": "text/event-stream"}
        return streamed() if next(left) else httpx2.Response(200, content=dying(), headers=headers)

    async def asks(ctx: Context, task: Task) -> str:
        return (await ctx.llm("why?", max_tokens=32)).text

    patient = RetryPolicy(tries=8, backoff=Backoff(base_seconds=0.001, limit_seconds=0.002))
    client = httpx2.AsyncClient(transport=httpx2.MockTransport(handler))
    calls = Caller(client, CONFIG, environment={"K": planted("k")}, model_retries=patient)
    store = MemoryStore()
    store.submit("t1", "go", TaskLimits())
    assert await run(store, program_of(asks, config=CONFIG), calls) is RunOutcome.ENDED
    task = store.tasks["t1"]
    assert task.finish is not None
    assert (task.finish.status, task.finish.result) == (TaskStatus.SUCCEEDED, "Because.")
    (result,) = [entry for entry in task.entries if isinstance(entry, Done)]
    assert result.tries == deaths + 1
    once = prompt_bound(REQUEST.messages) + len("Bec")
    spent = [entry.spent_tokens for entry in task.entries if isinstance(entry, Intended)]
    assert spent == [None, 3 * once], "the first three tries have spent what was reserved for them"
    assert task.tree.used == Amount(steps=1, tokens=deaths * once + 15)
    assert task.tree.reserved == Amount()
