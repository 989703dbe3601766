"""Rights to search: the keys of the mounted secret, and searches without one; over HTTP, without Milvus."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import cast

import httpx2
import pytest
import structlog

from flotilla_runtime.contract import MilvusConnection, RetrieverConfig, RetrieveRequest, RetrieveResponse
from flotilla_runtime.mounted_keys import MountedKeys
from flotilla_runtime.retrieval.access import KeyHolders
from flotilla_runtime.retrieval.application import RetrieverApplication
from flotilla_runtime.retrieval.generations import Generations
from flotilla_runtime.retrieval.retriever import Retriever
from flotilla_runtime.serving import serving
from leaks.planted import planted
from router_support.waiting import until_told

QUESTION = {"query": "fog"}


class Place:
    """The folders that the retriever reads: the mounted secret, and the ConfigMap's `keyless`."""

    def __init__(self, folder: Path) -> None:
        self.keys = folder / "keys"
        self.keyless = folder / "keyless"
        self.keys.mkdir()

    def holds(self, **entries: str) -> "Place":
        for path in self.keys.iterdir():
            path.unlink()
        for name, key in entries.items():
            (self.keys / name).write_text(key)
        return self

    def lets_in_without(self, text: str = "true") -> "Place":
        self.keyless.write_text(text)
        return self


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


class Passages:
    """Answers every search with nothing."""

    async def retrieve(
        self, request: RetrieveRequest, *, top_k: int, deadline_seconds: float
    ) -> RetrieveResponse:
        return RetrieveResponse(passages=(), generation="g-one", took_milliseconds=1.0)


class NoGenerations:
    """Nothing is live."""

    live = None
    problem = None

    async def keep_fresh(self) -> None:
        await asyncio.Event().wait()


@asynccontextmanager
async def retriever(place: Place | None) -> AsyncIterator[httpx2.AsyncClient]:
    """The retriever on a port of its own; without a place it was made by an operator that mounts no keys."""
    config = RetrieverConfig(
        index="handbook",
        milvus=MilvusConnection(uri="http://milvus"),
        alias="handbook",
        caller_keys_directory=str(place.keys) if place is not None else None,
        **({"keyless_path": str(place.keyless)} if place is not None else {}),
    )
    application = RetrieverApplication(
        config, cast("Retriever", Passages()), cast("Generations", NoGenerations())
    )
    async with (
        serving(application.build(), 0) as port,
        httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client,
    ):
        yield client


async def status_of(client: httpx2.AsyncClient, authorization: str | None) -> int:
    headers = {} if authorization is None else {"Authorization": authorization}
    return (await client.post("/v1/retrieve", json=QUESTION, headers=headers)).status_code


@pytest.mark.holds(
    "search.md",
    "Whoever sends a key of the Secret may search, everybody else gets 401 with `WWW-Authenticate` "
    "and the code `unauthorized`",
)
@pytest.mark.parametrize(
    ("keyless", "authorization", "status"),
    [
        pytest.param(None, f"Bearer {planted('a')}", 200, id="a key"),
        pytest.param(None, f"bearer  {planted('b')}", 200, id="a key of another caller, written otherwise"),
        pytest.param(None, None, 401, id="no key"),
        pytest.param(None, f"Bearer {planted('c')}", 401, id="a wrong key"),
        pytest.param(None, "Bearer", 401, id="an empty key"),
        pytest.param(None, "Basic YTpi", 401, id="another scheme"),
        pytest.param(None, planted("a"), 401, id="no scheme"),
        pytest.param(None, "Bearer ann", 401, id="the name of an entry"),
        pytest.param("true", None, 200, id="no key, while workers send none"),
        pytest.param("true", f"Bearer {planted('a')}", 200, id="a key, while workers send none"),
        pytest.param("true", f"Bearer {planted('c')}", 401, id="a wrong key is refused even then"),
        pytest.param("true", "Bearer", 401, id="an empty key is refused even then"),
        pytest.param("false", None, 401, id="the file says no"),
        pytest.param("", None, 401, id="the file says nothing"),
    ],
)
async def test_who_may_search(
    place: Place, keyless: str | None, authorization: str | None, status: int
) -> None:
    place.holds(ann=planted("a") + "\n", bob=planted("b"), nobody="\n")
    if keyless is not None:
        place.lets_in_without(keyless)
    async with retriever(place) as client:
        assert await status_of(client, authorization) == status


@pytest.mark.holds(
    "search.md",
    "Whoever sends a key of the Secret may search, everybody else gets 401 with `WWW-Authenticate` "
    "and the code `unauthorized`",
)
@pytest.mark.holds("security.md", "Nobody searches without a key, and keys are in no log, message or metric")
async def test_a_refusal_is_a_problem_that_says_what_to_send(place: Place) -> None:
    place.holds(ann=planted("a"))
    async with retriever(place) as client:
        refused = await client.post(
            "/v1/retrieve", json=QUESTION, headers={"Authorization": f"Bearer {planted('s')}"}
        )
    assert refused.status_code == HTTPStatus.UNAUTHORIZED
    assert refused.headers["WWW-Authenticate"] == 'Bearer realm="flotilla.dev"'
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.json()["code"] == "unauthorized"
    assert planted("s") not in refused.text
    assert planted("a") not in refused.text


async def test_without_a_mounted_secret_everybody_may_search() -> None:
    async with retriever(None) as client:
        assert await status_of(client, None) == 200
        assert await status_of(client, "Bearer whatever") == 200


@pytest.mark.holds("search.md", "Retrievers and workers read a changed key without a restart")
async def test_a_changed_secret_applies_without_a_restart(place: Place) -> None:
    place.holds(ann="old").lets_in_without()
    async with retriever(place) as client:
        assert await status_of(client, "Bearer old") == 200
        place.holds(ann="new")
        await until_told(lambda: is_status(client, "Bearer new", 200))
        assert await status_of(client, "Bearer old") == 401
        assert await status_of(client, None) == 200
        place.keyless.unlink()
        await until_told(lambda: is_status(client, None, 401))


async def is_status(client: httpx2.AsyncClient, authorization: str | None, status: int) -> bool:
    return await status_of(client, authorization) == status


@pytest.mark.holds("search.md", "`/healthz`, `/readyz`, `/v1/status` and `/metrics` need no key")
async def test_probes_scrapes_and_the_operator_need_no_key(place: Place) -> None:
    place.holds(ann=planted("a"))
    async with retriever(place) as client:
        for path in ("/healthz", "/metrics", "/v1/status"):
            assert (await client.get(path)).status_code == 200
        assert (await client.get("/readyz")).status_code == 503


@pytest.mark.holds(
    "search.md", "Metrics name the entry whose key was sent, and nothing that a stranger chose"
)
async def test_the_metrics_name_the_entry_and_nothing_that_a_stranger_chose(place: Place) -> None:
    place.holds(ann=planted("a")).lets_in_without()
    async with retriever(place) as client:
        for authorization in (f"Bearer {planted('a')}", None, "Bearer mallory", "mallory"):
            await status_of(client, authorization)
        metrics = (await client.get("/metrics")).text
    name = "flotilla_retriever_requests_total"
    assert f'{name}{{caller="ann",outcome="ok"}} 1.0' in metrics
    assert f'{name}{{caller="anonymous",outcome="ok"}} 1.0' in metrics
    assert f'{name}{{caller="unknown",outcome="unauthorized"}} 2.0' in metrics
    assert "mallory" not in metrics


class StumblingKeys(MountedKeys):
    """Keys whose second reading goes wrong in a way nobody thought of."""

    readings = 0

    async def refresh(self) -> None:
        self.readings += 1
        if self.readings == 2:
            raise RuntimeError("unthought of")
        await super().refresh()


async def test_a_reading_that_goes_wrong_is_logged_and_is_not_the_last(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flotilla_runtime.retrieval.access.READ_EVERY_SECONDS", 0.01)
    keys = StumblingKeys(place.keys)

    async def read_again() -> bool:
        return keys.readings >= 3

    with structlog.testing.capture_logs() as logged:
        following = asyncio.create_task(KeyHolders(keys, place.keyless).follow())
        await until_told(read_again)
        following.cancel()
    assert "access_not_read" in [line["event"] for line in logged]
