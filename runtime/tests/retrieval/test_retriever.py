"""The retriever's HTTP face over a real Milvus Lite and the word embedder."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import httpx2
import pytest

from flotilla_runtime.contract import MilvusConnection, RetrieverConfig
from flotilla_runtime.indexing.store import Store
from flotilla_runtime.retrieval.addresses import address_of
from flotilla_runtime.retrieval.application import RetrieverApplication
from flotilla_runtime.retrieval.generations import Generations
from flotilla_runtime.retrieval.retriever import Retriever
from indexing_support.builds import Index
from indexing_support.embedder import REFUSED_WORD, EmbedderState
from indexing_support.milvus import MilvusServer
from leaks.planted import planted

# One process of pytest-xdist for all that use Milvus Lite: it takes seconds to start.
pytestmark = [pytest.mark.services, pytest.mark.xdist_group("milvus")]

LATE_SECONDS = 5.0  # a deadline of 0.3 s on a busy machine; other time-outs are of ten seconds and more


@asynccontextmanager
async def serving(
    index: Index, deadline_milliseconds: int = 5000, namespace: str | None = None
) -> AsyncIterator[tuple[httpx2.AsyncClient, Generations]]:
    config = RetrieverConfig(
        index="handbook",
        namespace=namespace,
        milvus=MilvusConnection(uri=index.milvus_uri),
        alias=index.alias,
        deadline_milliseconds=deadline_milliseconds,
    )
    store = Store(config.milvus)
    generations = Generations(store, index.alias)
    async with httpx2.AsyncClient(timeout=deadline_milliseconds / 1000) as outgoing:
        addressed = partial(address_of, config=config)
        retriever = Retriever(store, generations, outgoing, key=planted("embedder"), address_of=addressed)
        application = RetrieverApplication(config, retriever, generations).build()
        transport = httpx2.ASGITransport(app=application)
        async with httpx2.AsyncClient(transport=transport, base_url="http://retriever") as client:
            await generations.refresh()
            yield client, generations
    store.close()


async def ask(client: httpx2.AsyncClient, query: str, **more: object) -> httpx2.Response:
    return await client.post("/v1/retrieve", json={"query": query, **more})


def harbour(index: Index) -> None:
    index.write(
        "tides.md", "# Tides\n\nThe moon moves the sea twice a day.\n\n## Neap\n\nWeak tides are neap.\n"
    )
    index.write("sails.html", "<title>Sails</title><h1 id=top>Sails</h1><p>Wind fills the canvas.</p>")
    index.write("fog.txt", "Fog hides the lighthouse.")


@pytest.mark.holds(
    "search.md",
    "Passages come best first, with document, title, heading, anchor, text and score, and the generation",
)
@pytest.mark.holds("search.md", "`topK` is the number of passages")
async def test_the_passage_that_answers_comes_first_with_where_it_stands(
    index: Index, embedder: EmbedderState
) -> None:
    harbour(index)
    await index.build("b1")
    async with serving(index) as (client, _):
        answer = (await ask(client, "what moves the sea", topK=2)).json()
        sails = (await ask(client, "canvas and wind")).json()
    assert answer["generation"] == "g-one"
    assert len(answer["passages"]) == 2
    first = answer["passages"][0]
    assert (first["document"], first["title"], first["heading"], first["anchor"]) == (
        "tides.md",
        "Tides",
        "Tides",
        "tides",
    )
    assert first["text"] == "The moon moves the sea twice a day."
    assert first["score"] > answer["passages"][1]["score"]
    assert sails["passages"][0]["anchor"] == "top"
    assert embedder.authorizations[-1] == f"Bearer {planted('embedder')}"


@pytest.mark.holds("security.md", "Queries are embedded at no address that only Milvus names")
@pytest.mark.attack("Somebody writes another address of the embedding model into Milvus")
async def test_a_query_is_not_sent_to_an_address_that_only_milvus_names(
    index: Index, embedder: EmbedderState
) -> None:
    harbour(index)
    await index.build("b1")
    asked = len(embedder.authorizations)
    async with serving(index, namespace="team") as (client, _):
        refused = await ask(client, "what moves the sea")
    assert (refused.status_code, refused.json()["code"]) == (503, "embedder")
    assert "no ModelReplicaSet of this namespace" in refused.json()["detail"]
    assert len(embedder.authorizations) == asked, "the key of the embedder went nowhere"


@pytest.mark.holds("README.md", "An index is served one immutable generation at a time")
@pytest.mark.holds("search.md", "A new generation is served within seconds")
@pytest.mark.holds("search.md", "503 `no-generation` before the first build")
@pytest.mark.holds("search.md", "`/readyz`, `/v1/status` and `/metrics` are served")
async def test_it_is_ready_when_a_build_was_promoted_and_follows_the_alias(index: Index) -> None:
    harbour(index)
    async with serving(index) as (client, generations):
        assert (await client.get("/readyz")).status_code == 503
        unready = await ask(client, "fog")
        assert unready.status_code == 503
        assert unready.headers["content-type"] == "application/problem+json"
        assert unready.json()["code"] == "no-generation"
        await index.build("b1")
        await generations.refresh()
        assert (await client.get("/readyz")).status_code == 200
        index.generation = "g-two"
        await index.build("b2")
        await generations.refresh()
        assert (await ask(client, "fog")).json()["generation"] == "g-two"
        status = (await client.get("/v1/status")).json()
        metrics = (await client.get("/metrics")).text
    assert (status["generation"], status["build"], status["chunks"], status["embedder"]) == (
        "g-two",
        "b2",
        4,
        "words",
    )
    assert status["requests"] == 1
    assert 'flotilla_retriever_requests_total{caller="anonymous",outcome="no-generation"} 1.0' in metrics


@pytest.mark.holds("search.md", "503 `wrong-model` when another model answers under the name")
@pytest.mark.holds(
    "decisions/0007-index-builds.md", "A query is refused when another model stands behind the name"
)
async def test_a_query_is_never_embedded_by_another_model_than_the_index(
    index: Index, embedder: EmbedderState
) -> None:
    harbour(index)
    await index.build("b1")
    embedder.salt = "another model under the same name"
    async with serving(index) as (client, _):
        answer = await ask(client, "fog")
    assert answer.status_code == 503
    assert answer.json()["code"] == "wrong-model"


BAD_QUESTIONS = {
    "not JSON": (b"what", 400, "invalid"),
    "an empty question": (b'{"query": ""}', 400, "invalid"),
    "nothing wanted": (b'{"query": "fog", "topK": 0}', 400, "invalid"),
    "a body over the limit": (b"x" * 70_000, 413, "too-large"),
    "the model refuses": (b'{"query": "%s"}' % REFUSED_WORD.encode(), 422, "query-refused"),
}


@pytest.mark.holds("search.md", "400, 413 and 422 with the codes of the page")
async def test_a_bad_question_is_refused_with_a_problem(index: Index, subtests: pytest.Subtests) -> None:
    harbour(index)
    await index.build("b1")
    async with serving(index) as (client, _):
        for case, (body, status, code) in BAD_QUESTIONS.items():
            with subtests.test(case):
                answer = await client.post("/v1/retrieve", content=body)
                assert (answer.status_code, answer.json()["code"]) == (status, code)


@pytest.mark.holds("search.md", "A query that is too long for the model is searched by its beginning")
async def test_a_question_that_is_too_long_is_asked_by_its_beginning(
    index: Index, embedder: EmbedderState, capsys: pytest.CaptureFixture[str]
) -> None:
    harbour(index)
    await index.build("b1")
    question = "Which fog hides the lighthouse? " + "The weather report goes on and on. " * 200
    embedder.texts.clear()
    async with serving(index) as (client, _):
        answer = await ask(client, question)
    assert answer.status_code == 200
    assert answer.json()["passages"]
    asked, canary = embedder.texts[-2:]
    assert question.startswith(asked)
    assert len(asked) > 500
    assert canary == "flotilla", "the canary goes with the question that is answered"
    log = capsys.readouterr().out
    assert "query_shortened" in log
    assert "weather" not in log


async def timed(client: httpx2.AsyncClient) -> tuple[httpx2.Response, float]:
    """An answer and the seconds that it took."""
    began = time.monotonic()
    answer = await ask(client, "fog")
    return answer, time.monotonic() - began


@pytest.mark.holds("search.md", "Too slow a search ends at the deadline, with `Retry-After`")
@pytest.mark.holds(
    "decisions/0007-index-builds.md", "A query that takes too long ends at the retriever's deadline"
)
@pytest.mark.parametrize("silent", ["the embedder", "Milvus"])
async def test_what_takes_too_long_ends_at_the_deadline(
    index: Index, embedder: EmbedderState, milvus: MilvusServer, silent: str
) -> None:
    harbour(index)
    await index.build("b1")
    async with serving(index, deadline_milliseconds=300) as (client, _):
        if silent == "Milvus":
            with milvus.stopped():
                answer, took_seconds = await timed(client)
        else:
            embedder.hold_after(0)
            answer, took_seconds = await timed(client)
            embedder.let_go()
    assert (answer.status_code, answer.json()["code"]) == (504, "deadline")
    assert answer.headers["Retry-After"] == "2"
    assert 0.3 <= took_seconds < LATE_SECONDS


async def test_an_embedder_that_stays_busy_is_asked_no_longer_than_the_deadline(
    index: Index, embedder: EmbedderState
) -> None:
    """It is given up on when the next attempt would come too late, or at the deadline amid one."""
    harbour(index)
    await index.build("b1")
    embedder.failures += [503] * 50
    async with serving(index, deadline_milliseconds=300) as (client, _):
        answer, took_seconds = await timed(client)
    assert (answer.status_code, answer.json()["code"]) in {(503, "embedder"), (504, "deadline")}
    assert answer.headers["Retry-After"] == "2"
    assert took_seconds < LATE_SECONDS


async def test_an_embedder_that_refuses_the_key_is_not_asked_again(
    index: Index, embedder: EmbedderState
) -> None:
    harbour(index)
    await index.build("b1")
    embedder.failures += [401]
    async with serving(index) as (client, _):
        answer = await ask(client, "fog")
    assert (answer.status_code, answer.json()["code"]) == (503, "embedder")
    assert "refused the key" in answer.json()["detail"]


@pytest.mark.holds("search.md", "Milvus away is 503 or 504, and searches work again when it is back")
async def test_it_answers_again_after_milvus_was_killed(index: Index, milvus: MilvusServer) -> None:
    harbour(index)
    await index.build("b1")
    async with serving(index) as (client, generations):
        milvus.kill()
        assert (await ask(client, "fog")).status_code in (503, 504)
        milvus.start()
        deadline = time.monotonic() + 60
        while (answer := await ask(client, "fog")).status_code != 200 and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.5)
        await generations.refresh()
    assert answer.json()["passages"][0]["document"] == "fog.txt"
    assert generations.problem is None
