"""docs/search.md against the application, without a server: a plain `curl -d` works, and the metrics.

The fields of the request and of the answer are in operator/tests/house/test_quotes.py.
"""

import json
import re
from http import HTTPStatus
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import httpx2
import pytest
from prometheus_client import generate_latest

from flotilla_runtime.contract import MilvusConnection, RetrieverConfig, RetrieveRequest, RetrieveResponse
from flotilla_runtime.retrieval.application import Figures, RetrieverApplication
from flotilla_runtime.retrieval.generations import Generations
from flotilla_runtime.retrieval.retriever import Retriever
from slow_bodies import arriving

PAGE = Path(__file__).parents[3] / "docs" / "search.md"


class Queries:
    """Answers every search with nothing, and keeps its query."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def retrieve(
        self, request: RetrieveRequest, *, top_k: int, deadline_seconds: float
    ) -> RetrieveResponse:
        self.asked.append(request.query)
        return RetrieveResponse(passages=(), generation="g-one", took_milliseconds=1.0)


@pytest.mark.holds("search.md", "A body is read as JSON whatever its `Content-Type`, so `curl -d` works")
@pytest.mark.parametrize(
    "content_type",
    [
        pytest.param("application/json", id="JSON"),
        pytest.param("application/x-www-form-urlencoded", id="what curl -d says"),
        pytest.param(None, id="none"),
    ],
)
async def test_the_body_is_json_whatever_its_content_type(content_type: str | None) -> None:
    retriever = Queries()
    config = RetrieverConfig(index="handbook", milvus=MilvusConnection(uri="http://milvus"), alias="handbook")
    application = RetrieverApplication(config, cast("Retriever", retriever), cast("Generations", None))
    headers = {} if content_type is None else {"Content-Type": content_type}
    transport = httpx2.ASGITransport(app=application.build())
    async with httpx2.AsyncClient(transport=transport, base_url="http://retriever") as client:
        answer = await client.post("/v1/retrieve", content=b'{"query": "fog"}', headers=headers)
    assert answer.status_code == HTTPStatus.OK
    assert answer.json() == {"passages": [], "generation": "g-one", "tookMilliseconds": 1.0}
    assert retriever.asked == ["fog"]


@pytest.mark.holds("search.md", "400 and 408 for a body that is broken off or too slow")
@pytest.mark.parametrize(
    ("parts", "status", "code"),
    [
        pytest.param([b'{"query"'], HTTPStatus.REQUEST_TIMEOUT, "too-slow", id="it stops"),
        pytest.param([b'{"query"', None], HTTPStatus.BAD_REQUEST, "cut-short", id="it is broken off"),
    ],
)
async def test_a_body_that_does_not_arrive_is_refused_with_a_problem(
    parts: list[bytes | None], status: HTTPStatus, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flotilla_runtime.retrieval.application.BODY_WITHIN_SECONDS", 0.1)
    config = RetrieverConfig(index="handbook", milvus=MilvusConnection(uri="http://milvus"), alias="handbook")
    retriever = RetrieverApplication(config, cast("Retriever", Queries()), cast("Generations", None))
    answer = await retriever.retrieve(arriving(parts))
    assert (answer.status_code, json.loads(bytes(answer.body))["code"]) == (status, code)


@pytest.mark.holds("search.md", "Every metric of a retriever is on the page")
def test_every_metric_is_on_the_page() -> None:
    figures = Figures(cast("Generations", SimpleNamespace(live=None)))
    names = re.findall(r"^# TYPE (\S+) ", generate_latest(figures.registry).decode(), re.MULTILINE)
    ours = [name for name in names if not name.endswith("_created")]
    assert ours
    assert [name for name in ours if f"| `{name}` |" not in PAGE.read_text()] == []
