"""Limits of queries, their embedding and their search; no server."""

import json
from typing import cast

import httpx2
import pytest
from pydantic import ValidationError

from flotilla_runtime.contract import BuildReason, Embedder, RetrieveRequest
from flotilla_runtime.indexing.errors import BuildError
from flotilla_runtime.indexing.store import Descriptor, Hit, Store
from flotilla_runtime.retrieval.generations import Generations, LiveGeneration
from flotilla_runtime.retrieval.problems import ProblemError
from flotilla_runtime.retrieval.retriever import Retriever

CANARY_VECTOR = (1.0, 0.0)
EMBEDDER = Embedder(model_ref="m", url="http://m/v1", model="m", identity="m", dimension=2)


def generation(name: str) -> LiveGeneration:
    descriptor = Descriptor(
        generation=name, build="b", embedder=EMBEDDER, metric="COSINE", canary=CANARY_VECTOR
    )
    return LiveGeneration(collection=f"c_{name}", descriptor=descriptor, chunks=1)


class Collections:
    """A store whose searches find nothing, and fail in a collection that is gone."""

    def __init__(self) -> None:
        self.gone: set[str] = set()

    def search(self, collection: str, vector: object, limit: int, deadline_seconds: float) -> list[Hit]:
        if collection in self.gone:
            raise BuildError(BuildReason.MILVUS_UNREACHABLE, "collection not found")
        return []


class Live:
    """Generations with one that is live, and the one that the alias leads to when it is followed again."""

    problem = None

    def __init__(self) -> None:
        self.live = generation("one")
        self.newest = self.live

    async def refresh(self) -> None:
        self.live = self.newest


class Asked:
    """A retriever on these, and the requests that its embedder got."""

    def __init__(self) -> None:
        self.store, self.generations = Collections(), Live()
        self.requests: list[httpx2.Request] = []
        self.longest_characters = 100
        self.refusal: dict[str, str] = {}

    def embed(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        texts = json.loads(request.content)["input"]
        if max(map(len, texts)) > self.longest_characters:
            return httpx2.Response(400, json={"error": self.refusal})
        count = len(texts)
        data = [{"index": index, "embedding": CANARY_VECTOR} for index in range(count)]
        return httpx2.Response(200, json={"data": data})

    async def retrieve(self, query: str = "fog") -> str:
        """The generation that answers."""
        async with httpx2.AsyncClient(transport=httpx2.MockTransport(self.embed)) as http:
            retriever = Retriever(cast("Store", self.store), cast("Generations", self.generations), http)
            request = RetrieveRequest(query=query)
            return (await retriever.retrieve(request, top_k=5, deadline_seconds=30)).generation


@pytest.mark.holds("router.md", "Searches of an index send Interactive")
async def test_a_query_is_embedded_as_interactive() -> None:
    asked = Asked()
    assert await asked.retrieve() == "one"
    assert [request.headers["X-Flotilla-Priority"] for request in asked.requests] == ["Interactive"]


async def test_a_query_that_the_engine_finds_too_long_is_halved_until_it_fits() -> None:
    asked = Asked()
    asked.refusal = {"message": "The text is big.", "param": "input_tokens"}
    assert await asked.retrieve("x" * 350) == "one"
    assert json.loads(asked.requests[-1].content)["input"][0] == "x" * 87


async def test_a_query_that_is_refused_for_another_reason_is_not_halved() -> None:
    asked = Asked()
    asked.refusal = {"message": "The text has no words.", "param": "input"}
    with pytest.raises(ProblemError, match="no words") as problem:
        await asked.retrieve("x" * 350)
    assert (problem.value.problem.status, problem.value.problem.code) == (422, "query-refused")
    tried = {text for request in asked.requests for text in json.loads(request.content)["input"]}
    assert tried == {"x" * 350, "flotilla"}


@pytest.mark.holds("search.md", "503 `generation-gone` when the generation was replaced during the search")
async def test_a_generation_that_is_replaced_during_a_search_is_told() -> None:
    asked = Asked()
    asked.store.gone = {"c_one"}
    asked.generations.newest = generation("two")
    with pytest.raises(ProblemError) as problem:
        await asked.retrieve()
    assert (problem.value.problem.status, problem.value.problem.code) == (503, "generation-gone")
    assert await asked.retrieve() == "two"


async def test_a_search_that_fails_in_the_live_generation_is_told_as_milvus() -> None:
    asked = Asked()
    asked.store.gone = {"c_one"}
    with pytest.raises(ProblemError) as problem:
        await asked.retrieve()
    assert (problem.value.problem.status, problem.value.problem.code) == (503, "milvus")


@pytest.mark.holds("search.md", "A query may have 8,192 characters")
def test_a_query_has_8192_characters_at_most() -> None:
    assert len(RetrieveRequest(query="x" * 8192).query) == 8192
    with pytest.raises(ValidationError, match="at most 8192 characters"):
        RetrieveRequest(query="x" * 8193)
