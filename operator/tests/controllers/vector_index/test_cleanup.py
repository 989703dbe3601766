"""The farewell of an index against servers that answer anything but what Milvus would, or nothing."""

import asyncio
import gzip
import json
import socket
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from flotilla_operator.controllers.config import Proxy
from flotilla_operator.controllers.vector_index import cleanup
from flotilla_operator.controllers.vector_index.cleanup import (
    Cleanup,
    Cleanups,
    CleanupState,
    Remains,
    remove,
)
from flotilla_operator.controllers.vector_index.seen import FINALIZER, Leaving
from leaks.planted import planted
from tests.builders.vector_index import vector_index
from tests.controllers.vector_index.indexes import NOW, Stage
from tests.support.planned import plan_by
from tests.support.planned import plan_of_index as plan
from tests.support.waiting import until

HUSH = planted("hush")

MINUTE = timedelta(minutes=1)


@asynccontextmanager
async def server(body: bytes | None) -> AsyncIterator[str]:
    """Answers every request with 200 and this body; with None it accepts and never answers."""
    writers: list[asyncio.StreamWriter] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        await reader.readuntil(b"\r\n\r\n")
        if body is not None:
            head = f"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            writer.close()

    listening = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        for writer in writers:
            writer.close()
        listening.close()


here = partial(remove, allow_loopback=True)


def remains(uri: str) -> Remains:
    there = {"uri": uri, "database": "default", "token": None}
    return Remains(**there, alias="a", prefix="flotilla_a_g_", index_uid="uid-a")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"null", id="null"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b'"ok"', id="a string"),
        pytest.param(b"<html>", id="a page"),
        pytest.param(b"\xff", id="no text at all"),
        pytest.param(b'{"code": 0, "data": [1]}', id="collections that are numbers"),
    ],
)
async def test_an_answer_that_is_not_milvus_is_reported_as_what_was_left(body: bytes) -> None:
    async with server(body) as uri:
        done = await here(remains(uri))
    assert done.state is CleanupState.GIVEN_UP
    assert "the collections flotilla_a_g_* were not removed from" in done.message
    assert "drop them by hand" in done.message


@asynccontextmanager
async def answering(
    head: str, body: bytes, heads: list[str] | None = None
) -> AsyncIterator[tuple[str, list[str]]]:
    """Answers every request with this status line and headers; yields the URI and the paths asked for.

    `heads` gets the whole head of each request.
    """
    paths: list[str] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked = (await reader.readuntil(b"\r\n\r\n")).decode()
        paths.append(asked.split(" ", 2)[1])
        if heads is not None:
            heads.append(asked)
        with suppress(ConnectionError):
            writer.write(head.encode() + b"\r\nConnection: close\r\n\r\n" + body)
            await writer.drain()
        writer.close()

    listening = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}", paths
    finally:
        listening.close()


@pytest.mark.holds("security.md", "A clean-up follows no redirect and reads 1 MiB at most")
async def test_no_redirect_of_a_milvus_is_followed() -> None:
    async with answering("HTTP/1.1 307 Elsewhere\r\nLocation: /elsewhere", b"") as (uri, paths):
        done = await here(remains(uri))
    assert done.state is CleanupState.GIVEN_UP
    assert "status 307" in done.message
    assert paths == ["/v2/vectordb/collections/list"]


@pytest.mark.holds("security.md", "A clean-up follows no redirect and reads 1 MiB at most")
@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        pytest.param("identity", b'{"code": 0, "data": ["' + b"x" * 2**21 + b'"]}', id="long"),
        pytest.param("gzip", gzip.compress(b'{"code": 0, "data": []}'), id="compressed"),
        pytest.param("identity", b"[" * 500_000, id="nested"),
    ],
)
async def test_an_answer_that_would_take_memory_is_not_read(encoding: str, body: bytes) -> None:
    async with answering(f"HTTP/1.1 200 OK\r\nContent-Encoding: {encoding}", body) as (uri, _):
        done = await here(remains(uri))
    assert done.state is CleanupState.GIVEN_UP
    assert len(done.message) < 500


FORBIDDEN = (
    "http://169.254.169.254",
    "http://[fe80::1]:19530",
    "http://[::ffff:169.254.169.254]",
    "http://[64:ff9b::a9fe:a9fe]",
    "http://[2002:a9fe:a9fe::1]",
    "http://100.100.100.200",
    "http://[fd00:ec2::254]",
)
AT_HOME = ("http://127.0.0.1:19530", "http://localhost", "http://0.0.0.0:80", "http://[::1]:9090")


@pytest.mark.holds("security.md", "A clean-up connects to no address that tools may not reach")
@pytest.mark.parametrize("uri", [*FORBIDDEN, *AT_HOME])
async def test_no_address_that_tools_may_not_reach_is_connected_to(uri: str) -> None:
    done = await remove(remains(uri))
    assert done.state is CleanupState.GIVEN_UP
    assert "the operator does not connect to" in done.message
    if uri in FORBIDDEN:
        assert (await here(remains(uri))).message == done.message, "tests allow the own machine alone"


@pytest.mark.holds("security.md", "A clean-up connects to no address that tools may not reach")
@pytest.mark.attack("`milvus.uri` names a port of the operator's own pod, which no network policy shields")
async def test_a_clean_up_reaches_nothing_on_the_operators_machine() -> None:
    async with answering("HTTP/1.1 200 OK", b"{}") as (uri, paths):
        for host in ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0.0.0.0"):
            done = await remove(remains(uri.replace("127.0.0.1", host)))
            assert "the operator does not connect to" in done.message
    assert paths == []


@pytest.mark.holds("security.md", "A clean-up connects to no address that tools may not reach")
@pytest.mark.attack(
    "`milvus.uri` with `deletionPolicy: Delete` names the address where a cloud keeps its credentials"
)
async def test_no_name_stands_for_a_forbidden_address(monkeypatch: pytest.MonkeyPatch) -> None:
    async def resolve(*_: Any, **__: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("169.254.169.254", 19530))]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
    done = await remove(remains("http://milvus.example.com:19530"))
    assert "the operator does not connect to" in done.message


@pytest.mark.holds(
    "decisions/0007-index-builds.md",
    "An external Milvus with deletionPolicy Delete is emptied within 45 s, and an event names what was left",
)
@pytest.mark.attack("That Milvus redirects, answers without end, or never")
async def test_a_milvus_that_never_answers_is_given_up_at_the_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cleanup, "DEADLINE_SECONDS", 0.2)
    async with server(None) as uri:
        done = await here(remains(uri))
    assert done.state is CleanupState.GIVEN_UP
    assert "TimeoutError" in done.message


def leaving_index(uri: str, **spec: Any) -> dict[str, Any]:
    external = {"mode": "External", "uri": uri, "tokenSecretRef": {"name": "milvus"}}
    index = vector_index(milvus=external, retention={"deletionPolicy": "Delete"})
    index["metadata"] |= {
        "deletionTimestamp": NOW.isoformat(),
        "finalizers": ["flotilla.dev/milvus"],
    }
    index["spec"] |= spec
    return index


async def farewell(stage: Stage) -> Leaving:
    """Reconciled until the removal has ended."""
    async with asyncio.timeout(30):
        while True:
            leaving = await stage.observing()
            assert isinstance(leaving, Leaving)
            if leaving.cleanup not in (None, Cleanup(state=CleanupState.RUNNING)):
                return leaving
            plan_by(stage.controller, leaving, NOW)
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param({"source": 7}, id="a source that is a number"),
        pytest.param({"embedding": None, "retriever": []}, id="parts that are missing"),
    ],
)
async def test_a_spec_that_cannot_be_read_keeps_no_index(spec: dict[str, Any]) -> None:
    async with server(json.dumps({"code": 0, "data": []}).encode()) as uri:
        leaving = await farewell(Stage(leaving_index(uri, **spec)))
    assert leaving.cleanup == Cleanup(state=CleanupState.DONE)
    assert plan(leaving, NOW).finalizers == ()


async def test_a_removal_is_forgotten_at_the_next_look_at_an_index_after_its_own_is_gone() -> None:
    cleanups = Cleanups(allow_loopback=True)
    async with server(json.dumps({"code": 0, "data": []}).encode()) as uri:
        for uid in ("gone", "there"):
            await until(partial(removed, cleanups, uid, remains(uri)))
        cleanups.keep_only({"there"})
        assert cleanups.state("there") == Cleanup(state=CleanupState.DONE)
        assert cleanups.state("gone") is None
        await until(partial(removed, cleanups, "gone", remains(uri)))


def removed(cleanups: Cleanups, uid: str, what: Remains) -> bool:
    cleanups.start(uid, what)
    return cleanups.state(uid) == Cleanup(state=CleanupState.DONE)


class Milvus:
    """The answers of Milvus' HTTP interface, by path and name."""

    def __init__(self, promoted_by: dict[str, str], alias_of: str) -> None:
        self.promoted_by = promoted_by
        self.alias_of = alias_of
        self.dropped: list[str] = []

    def answer(self, path: str, body: dict[str, str]) -> Any:
        match path:
            case "collections/list":
                return [*self.promoted_by, "somebody_elses"]
            case "collections/describe":
                uid = self.promoted_by[body["collectionName"]]
                about = json.dumps({"generation": "g-1", **({"index_uid": uid} if uid else {})})
                kept = [{"key": "ttl", "value": "7"}, {"key": "flotilla.descriptor", "value": about}]
                return {"description": "{}", "properties": kept}
            case "aliases/describe":
                return {"aliasName": body["aliasName"], "collectionName": self.alias_of}
            case _:
                self.dropped += [body.get("collectionName") or body["aliasName"]]
                return {}

    async def handle(self, request: web.Request) -> web.Response:
        path = request.path.removeprefix("/v2/vectordb/")
        return web.json_response({"code": 0, "data": self.answer(path, await request.json())})


@pytest.mark.holds(
    "decisions/0007-index-builds.md",
    "A removal spares what another index has promoted, ends with the finalizer, and counts its "
    "time from the first look",
)
@pytest.mark.parametrize(
    ("promoted_by", "alias_of", "dropped"),
    [
        pytest.param(
            {"flotilla_a_g_1": "uid-a", "flotilla_a_g_2": ""},
            "flotilla_a_g_1",
            ["a", "flotilla_a_g_1", "flotilla_a_g_2"],
            id="its own, and those that were never promoted or by a release that wrote no UID",
        ),
        pytest.param(
            {"flotilla_a_g_1": "uid-a", "flotilla_a_g_2": "uid-of-the-next"},
            "flotilla_a_g_2",
            ["flotilla_a_g_1"],
            id="nothing of a new index of the same name",
        ),
        pytest.param(
            {"flotilla_a_g_1": "uid-of-the-next"}, "flotilla_a_g_1", [], id="nothing that it has taken over"
        ),
    ],
)
async def test_a_removal_drops_what_no_other_index_has_promoted(
    promoted_by: dict[str, str], alias_of: str, dropped: list[str]
) -> None:
    milvus = Milvus(promoted_by, alias_of)
    application = web.Application()
    application.router.add_post("/{path:.*}", milvus.handle)
    async with TestServer(application) as listening:
        assert await here(remains(str(listening.make_url("")))) == cleanup.DONE
    assert milvus.dropped == dropped


@pytest.mark.holds(
    "decisions/0007-index-builds.md",
    "A removal spares what another index has promoted, ends with the finalizer, and counts its "
    "time from the first look",
)
async def test_a_removal_ends_with_the_finalizer() -> None:
    cleanups = Cleanups(allow_loopback=True)
    async with server(None) as uri:
        cleanups.start("uid-a", remains(uri))
        await asyncio.sleep(0.01)
        (running,) = [task for task in asyncio.all_tasks() if "remove" in repr(task.get_coro())]
        cleanups.forget("uid-a")
        await asyncio.wait([running], timeout=5)
        assert running.cancelled()


@pytest.mark.holds(
    "decisions/0007-index-builds.md",
    "A removal spares what another index has promoted, ends with the finalizer, and counts its "
    "time from the first look",
)
def test_the_time_of_a_removal_counts_from_the_first_look() -> None:
    stage = Stage(leaving_index("http://milvus.example"), milvus={"token": b"\xff\xfe"})
    an_hour_later = NOW + 60 * MINUTE
    assert stage.plan(an_hour_later).finalizers is None
    assert stage.plan(an_hour_later + MINUTE).finalizers == ()


def test_a_spec_without_a_readable_milvus_leaves_nothing_to_do() -> None:
    stage = Stage(leaving_index("http://milvus.example", milvus="gone", retention=None))
    assert stage.plan().finalizers == ()


def test_a_token_that_is_not_text_is_waited_for_until_the_deadline() -> None:
    stage = Stage(leaving_index("http://milvus.example"), milvus={"token": b"\xff\xfe"})
    waiting = stage.plan(NOW)
    assert waiting.finalizers is None
    assert waiting.look_again_seconds == 1.0
    assert waiting.status is not None
    assert waiting.status["phase"] == "Deleting"
    over = stage.plan(NOW + MINUTE)
    assert over.finalizers == ()
    [event] = over.events
    assert event.reason == "CleanupIncomplete"
    assert "no text in UTF-8" in event.note


@pytest.mark.parametrize(
    ("uri", "asked"),
    [
        ("http://milvus.invalid:19530", "http://milvus.invalid:19530/v2/vectordb/collections/list"),
        ("https://milvus.invalid", "milvus.invalid:443"),
    ],
)
async def test_a_milvus_outside_is_asked_through_the_proxy_with_its_password_apart(
    uri: str, asked: str
) -> None:
    heads: list[str] = []
    async with answering("HTTP/1.1 407 Who are you", b"", heads) as (proxy, paths):
        through = proxy.replace("//", f"//somebody:{HUSH}@")
        done = await here(replace(remains(uri), proxy=through))
    assert paths == [asked]
    credentials = b64encode(f"somebody:{HUSH}".encode()).decode()
    assert f"Proxy-Authorization: Basic {credentials}\r\n" in heads[0]
    assert done.state is CleanupState.GIVEN_UP
    assert "407" in done.message
    assert HUSH not in done.message


@pytest.mark.holds("install.md", "No message quotes a proxy's password")
async def test_a_proxy_that_does_not_answer_is_told_without_its_password() -> None:
    done = await here(replace(remains("https://milvus.invalid"), proxy=f"http://u:{HUSH}@127.0.0.1:1"))
    assert done.state is CleanupState.GIVEN_UP
    assert "127.0.0.1" in done.message
    assert HUSH not in done.message


@pytest.mark.holds("security.md", "No proxy is asked for a link-local address, nor for a name of one")
@pytest.mark.attack("It does so where the chart names a proxy")
async def test_no_proxy_is_asked_for_a_name_of_a_link_local_address(monkeypatch: pytest.MonkeyPatch) -> None:
    async def resolves(*_: Any, **__: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("169.254.169.254", 0))]

    async with answering("HTTP/1.1 200 OK", b"{}") as (proxy, paths):
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolves)
        done = await here(replace(remains("http://metadata.invalid"), proxy=proxy))
    assert "the operator does not connect to" in done.message
    assert paths == []


@pytest.mark.holds(
    "install.md", "The clean-up of a Milvus uses the proxy, and asks it for nothing in the cluster"
)
@pytest.mark.holds("security.md", "No proxy is asked for a link-local address, nor for a name of one")
@pytest.mark.parametrize(
    ("uri", "proxied"),
    [
        pytest.param("https://milvus.example.com", True, id="outside"),
        pytest.param("http://milvus.db.svc:19530", False, id="in the cluster"),
        pytest.param("http://169.254.169.254", False, id="link-local, and refused later"),
        pytest.param("https://milvus.corp.example", False, id="exempt by the chart"),
    ],
)
def test_which_milvus_is_asked_through_the_charts_proxy(uri: str, proxied: bool) -> None:
    stage = Stage(
        vector_index(milvus={"mode": "External", "uri": uri}, retention={"deletionPolicy": "Delete"})
    )
    named = Proxy(
        http_proxy="http://proxy:3128", https_proxy="http://proxy:3128", no_proxy=" a, corp.example"
    )
    stage.config = stage.config.model_copy(update={"proxy": named})
    stage.index["metadata"] |= {"finalizers": [FINALIZER], "deletionTimestamp": NOW.isoformat()}
    leaving = stage.observe()
    assert isinstance(leaving, Leaving)
    assert leaving.remains is not None
    assert leaving.remains.proxy == ("http://proxy:3128" if proxied else None)
