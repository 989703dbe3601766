"""The levers of a configuration before a worker's calls, in a real Redis, each on its simplest way."""

import json
import secrets
from typing import Any

import httpx2
import pytest
from prometheus_client import CollectorRegistry

from agent_support.running import PASSAGE, tool_of
from flotilla_runtime.agent.budgets import Amount, Budget
from flotilla_runtime.agent.journal import CallKind
from flotilla_runtime.agent.models import ModelRequest
from flotilla_runtime.agent.programs import stated_context
from flotilla_runtime.agent.protocols import Call, Reply, SearchRequest, Session
from flotilla_runtime.agent.store.connections import connect
from flotilla_runtime.agent.worker.calls import Caller
from flotilla_runtime.agent.worker.levers import under_levers
from flotilla_runtime.contract import (
    CacheConfig,
    Effect,
    IndexConnection,
    ModelConnection,
    Priority,
    QueueConfig,
    RateLimit,
    WorkerConfig,
)

pytestmark = pytest.mark.services

ANN = Session(task_id="t", tenant="ann", priority=Priority.INTERACTIVE)
BOB = Session(task_id="u", tenant="bob", priority=Priority.INTERACTIVE)
PLENTY = Budget(used=Amount(), reserved=Amount(), most_steps=9, most_tokens=10_000, most_nano_usd=None)
REQUEST = ModelRequest(
    session_id="t",
    priority=Priority.INTERACTIVE,
    messages=({"role": "user", "content": "why?"},),
    max_tokens=10,
)


def answered(request: httpx2.Request) -> httpx2.Response:
    """Models and an index that answer; the vectors of all queries are alike."""
    if request.url.path.endswith("/embeddings"):
        return _streamed(json.dumps({"data": [{"embedding": [1.0, 0.1]}]}))
    if request.url.path.endswith("/retrieve"):
        return httpx2.Response(
            200, json={"passages": [PASSAGE], "generation": "g-1", "tookMilliseconds": 1.0}
        )
    text = {"choices": [{"index": 0, "delta": {"content": request.url.host}, "finish_reason": "stop"}]}
    return _streamed(f"data: {json.dumps(text)}\n\ndata: [DONE]\n\n")


def _streamed(text: str) -> httpx2.Response:
    return httpx2.Response(200, stream=httpx2.ByteStream(text.encode()))


@pytest.mark.holds(
    "agents.md",
    "Searches and Pure tools are answered from the cache for the same tenant, and only while it holds",
)
async def test_the_levers_of_a_configuration_stand_before_its_calls(redis_server: Any) -> None:
    config = WorkerConfig(
        queue=QueueConfig(
            fleet=f"default/{secrets.token_hex(8)}",
            url=redis_server.url,
            password_path=redis_server.password_path,
        ),
        models=(
            ModelConnection(
                role="Default",
                name="large",
                url="http://large/v1",
                model="l",
                rate_limit="r",
                overflow_to="S",
            ),
            ModelConnection(role="S", name="small", url="http://small/v1", model="s"),
            ModelConnection(role="Embed", name="embed", url="http://embed/v1", model="e"),
        ),
        indexes=(IndexConnection(name="manual", url="http://index/v1/retrieve"),),
        rate_limits=(RateLimit(name="r", requests_per_minute=1),),
        cache=CacheConfig(semantic_threshold=0.9),
    )
    redis = connect(config.queue)
    client = httpx2.AsyncClient(transport=httpx2.MockTransport(answered))
    calls = under_levers(
        Caller(client, config, environment={}),
        config,
        redis,
        client,
        environment={},
        tools={"weather": tool_of("weather", Effect.PURE)},
        context_of=stated_context,
        registry=CollectorRegistry(),
    )

    async def made(call: Call, session: Session = ANN) -> Reply:
        reserved, _ = await calls.reservation(call, session, PLENTY)
        return await calls.make(reserved, session)

    def search(query: str) -> Call:
        return Call(
            id="s", kind=CallKind.RETRIEVE, target="manual", request=SearchRequest(query=query), key="k"
        )

    ask = Call(id="m", kind=CallKind.MODEL, target="large", request=REQUEST, key="k")
    assert [(await made(ask)).answered_by for _ in range(2)] == [None, "small"]
    found = [await made(search(query)) for query in ("why?", "why?", "why so?")]
    assert [reply.cached for reply in found] == [False, True, True]
    assert [reply.value for reply in found] == [found[0].value] * 3
    assert (await made(search("why?"), BOB)).cached is False
    await redis.aclose()
