"""The embedding of a query: one try, little time, and whatever goes wrong gives none."""

import json
from typing import Any

import httpx2
import pytest
from prometheus_client import CollectorRegistry

from agent_support.buckets import MemoryBuckets
from flotilla_runtime.agent.budgets import Amount
from flotilla_runtime.agent.levers.buckets import Turns
from flotilla_runtime.agent.levers.cached_calls import Embedding
from flotilla_runtime.agent.levers.guards import Circuits
from flotilla_runtime.agent.levers.metrics import LeverMetrics
from flotilla_runtime.agent.protocols import Session
from flotilla_runtime.agent.worker.embedder import LONGEST_ANSWER_BYTES, QueryEmbedder
from flotilla_runtime.contract import ModelConnection, Pricing, Priority, RateLimit
from leaks.planted import planted

MODEL = ModelConnection(
    role="Embed",
    name="minilm",
    url="http://embed/v1",
    model="mini",
    key_environment="K",
    pricing=Pricing(input_per_million_usd=1000, output_per_million_usd=0),
)
SESSION = Session(task_id="t", tenant="ann", priority=Priority.BATCH)
ANSWER = {"data": [{"embedding": [3.0, 4.0]}], "usage": {"prompt_tokens": 2}}


def answering(body: Any) -> httpx2.Response:
    """An answer that is read while it arrives."""
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return httpx2.Response(200, stream=httpx2.ByteStream(text))


def embedder(handler: Any, model: ModelConnection = MODEL) -> QueryEmbedder:
    limits = {"r": RateLimit(name="r", requests_per_minute=1)}
    return QueryEmbedder(
        httpx2.AsyncClient(transport=httpx2.MockTransport(handler)),
        model,
        environment={"K": planted("embedder")},
        turns=Turns(MemoryBuckets(limits, lambda: 0.0), monotonic_seconds=lambda: 0.0, draw=lambda a, _: a),
        circuits=Circuits(LeverMetrics(CollectorRegistry()), lambda: 0.0),
    )


async def test_a_query_is_embedded_with_key_and_priority() -> None:
    seen: list[httpx2.Request] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return answering(ANSWER)

    one = embedder(handler)
    embedded = await one.embed("why?", SESSION)
    assert embedded == Embedding(vector=[0.6, 0.8], tokens=2, nano_usd=2_000_000)
    assert str(seen[0].url) == "http://embed/v1/embeddings"
    assert json.loads(seen[0].content) == {"model": "mini", "input": ["why?"], "encoding_format": "float"}
    assert seen[0].headers["Authorization"] == f"Bearer {planted('embedder')}"
    assert seen[0].headers["X-Flotilla-Priority"] == "Batch"
    assert one.most("why?") == Amount(tokens=4, nano_usd=4_000_000)


def refused(_: httpx2.Request) -> httpx2.Response:
    raise httpx2.ConnectError("refused")


@pytest.mark.holds(
    "agents.md", "With `semanticThreshold` a similar search answers; its embedding is a part of the budget"
)
@pytest.mark.parametrize(
    "handler",
    [
        pytest.param(refused, id="no connection"),
        pytest.param(lambda _: httpx2.Response(503), id="no answer"),
        pytest.param(lambda _: httpx2.Response(302, headers={"Location": "http://meta/"}), id="a redirect"),
        pytest.param(lambda _: answering(b"no JSON"), id="no JSON"),
        pytest.param(lambda _: answering(b"[" * 100_000), id="JSON without an end"),
        pytest.param(lambda _: answering({"data": []}), id="no vector"),
        pytest.param(lambda _: answering({"data": [{"embedding": [0, 0]}]}), id="no direction"),
        pytest.param(lambda _: answering(b" " * (LONGEST_ANSWER_BYTES + 1)), id="no end"),
    ],
)
async def test_whatever_goes_wrong_gives_no_vector_and_then_the_model_is_left_alone(handler: Any) -> None:
    asked: list[httpx2.Request] = []

    def counted(request: httpx2.Request) -> httpx2.Response:
        asked.append(request)
        answer: httpx2.Response = handler(request)
        return answer

    one = embedder(counted)
    assert [await one.embed("why?", SESSION) for _ in range(7)] == [Embedding()] * 7
    assert len(asked) == 5


@pytest.mark.holds(
    "agents.md", "With `semanticThreshold` a similar search answers; its embedding is a part of the budget"
)
async def test_it_waits_for_no_rate_limit() -> None:
    one = embedder(lambda _: answering(ANSWER), limited("r"))
    assert (await one.embed("why?", SESSION)).vector is not None
    assert await one.embed("why?", SESSION) == Embedding()


def limited(name: str) -> ModelConnection:
    return MODEL.model_copy(update={"rate_limit": name})
