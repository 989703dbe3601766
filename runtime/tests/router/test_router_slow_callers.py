"""Callers that send or read too slowly lose their connection, no other caller does: the real HAProxy.

`client_timeout_seconds` is how long headers and the buffered part of a body may take in all, how long the
rest of it may be late, and how long a caller may leave unread what is there for it.
"""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from router_support.haproxy_version import CHART, ON_BOTH, parser_takes_our_words
from router_support.routers import Caller, Engine, Router, fleet
from router_support.waiting import until

pytestmark = [pytest.mark.services, pytest.mark.usefixtures("haproxy")]

REQUEST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"


@asynccontextmanager
async def impatient(**fields: Any) -> AsyncIterator[tuple[Engine, Router, Caller]]:
    """A router that waits one second for its callers, and an engine that answers when its gate is set."""
    async with fleet() as made:
        engine = await made.add("a", 1, blocked=True)
        config = {"engine_port": made.engine_port, "client_timeout_seconds": 1, **fields}
        async with Router(made.api, "router-1", **config) as router, Caller(router) as caller:
            await until(lambda: router.ready_servers() == {"a"})
            yield engine, router, caller


def terminations(router: Router) -> list[str]:
    """How the requests ended, in HAProxy's words: cD is a client's time-out amid the answer."""
    return [json.loads(line)["termination"] for line in router.log.splitlines() if line.startswith("{")]


async def answer_beside_another_caller(sent_at_once: bytes, trickling: bytes) -> str:
    """The answer to a slow caller, while another one waits for its answer and gets it."""
    async with impatient() as (engine, router, caller):
        other = asyncio.create_task(caller.post(session="other"))
        await until(lambda: router.status.in_flight == 1)
        reader, writer = await asyncio.open_connection("127.0.0.1", router.config.port)
        writer.write(sent_at_once)
        answering = asyncio.create_task(reader.read(8192))
        while not (await asyncio.wait({answering}, timeout=0.1))[0]:
            writer.write(trickling)
        writer.close()
        engine.gate.set()
        assert (await other).status == 200
        assert len(engine.seen) == 1
        return answering.result().decode()


@pytest.mark.holds("router.md", "A body that comes more slowly than 32 KiB/s is cut off with 400")
@pytest.mark.parametrize(
    ("length", "trickling"),
    [pytest.param(100, b"", id="it stops"), pytest.param(1000, b" ", id="it trickles in")],
)
async def test_a_slow_body_is_cut_off(length: int, trickling: bytes) -> None:
    request = REQUEST + b"Content-Length: %d\r\n\r\n{" % length
    answer = await answer_beside_another_caller(request, trickling)
    assert answer.startswith("HTTP/1.1 408 ")
    assert json.loads(answer.split("\r\n\r\n", 1)[1])["error"]["code"] == "request_timeout"


@pytest.mark.holds("router.md", "A body that comes more slowly than 32 KiB/s is cut off with 400")
async def test_the_rest_of_a_long_body_may_not_trickle_into_an_engine() -> None:
    async with impatient() as (engine, router, caller):
        other = asyncio.create_task(caller.post(session="other"))
        await until(lambda: router.status.in_flight == 1)
        reader, writer = await asyncio.open_connection("127.0.0.1", router.config.port)
        writer.write(REQUEST + b"Content-Length: 1000000\r\n\r\n" + b"x" * 80_000)
        answering = asyncio.create_task(reader.read(8192))
        async with asyncio.timeout(30):
            while not (await asyncio.wait({answering}, timeout=0.1))[0]:
                writer.write(b"x")
        writer.close()
        assert answering.result().startswith(b"HTTP/1.1 400 ")
        await until(lambda: router.status.refused == {"TooSlow": 1})
        await until(lambda: router.status.in_flight == 1)
        engine.gate.set()
        assert (await other).status == 200
        await until(lambda: [(row.answers, row.failed) for row in router.status.servers] == [(1, 0)])


@pytest.mark.holds(
    "security.md",
    "A refused request ends when its body still comes after five seconds, and after five seconds of silence",
)
@pytest.mark.attack("A caller sends the rest of a refused body a byte at a time")
@ON_BOTH
async def test_the_rest_of_a_refused_body_is_read_for_some_seconds_only() -> None:
    async with impatient(refused_body_seconds=1, client_timeout_seconds=30) as (_, router, caller):
        request = REQUEST.replace(b"/v1/chat/completions", b"/nowhere")
        writers = []
        for length in (1_000_000, 900_000_000):
            _, writer = await asyncio.open_connection("127.0.0.1", router.config.port)
            writer.write(request + b"Content-Length: %d\r\n\r\n" % length + b"x" * 80_000)
            writers.append(writer)
        async with asyncio.timeout(10):
            while len(terminations(router)) < len(writers):
                for writer in writers:
                    writer.write(b"x")
                await asyncio.sleep(0.1)
        for writer in writers:
            writer.close()
        assert (await caller.post(path="/nowhere", data=b"x" * 1_000_000)).status == 404


@pytest.mark.holds(
    "security.md",
    "A refused request ends when its body still comes after five seconds, and after five seconds of silence",
)
@pytest.mark.attack("A caller sends the rest of a refused body a byte at a time")
@pytest.mark.parametrize(
    "haproxy", [CHART], indirect=True
)  # HAProxy 2.6 cannot set this time for one request
async def test_a_silent_sender_of_a_refused_body_is_told_after_some_seconds_and_loses_its_connection() -> (
    None
):
    async with impatient(refused_body_seconds=1, client_timeout_seconds=4) as (_, router, _caller):
        request = REQUEST.replace(b"/v1/chat/completions", b"/nowhere")
        reader, writer = await asyncio.open_connection("127.0.0.1", router.config.port)
        writer.write(request + b"Content-Length: 900000000\r\n\r\n" + b"x" * 80_000)
        async with asyncio.timeout(3):
            assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 400 ")
        async with asyncio.timeout(10):
            await reader.read()
        writer.close()


@pytest.mark.holds("security.md", "Probes are answered while callers use up their connections")
@pytest.mark.attack("Callers open all the connections that a router may have")
async def test_probes_and_scrapes_are_answered_while_callers_use_up_their_connections() -> None:
    async with impatient(max_connections=100, client_timeout_seconds=60) as (engine, router, caller):
        engine.gate.set()
        idle = [await asyncio.open_connection("127.0.0.1", router.config.port) for _ in range(150)]
        await asyncio.sleep(0.5)
        health = f"http://127.0.0.1:{router.config.metrics_port}/health"
        async with asyncio.timeout(5), aiohttp.ClientSession() as session, session.get(health) as answer:
            assert answer.status == 200
        waiting = asyncio.create_task(caller.post())
        await asyncio.sleep(0.5)
        assert not waiting.done(), "callers have no connection left"
        for _, writer in idle:
            writer.close()
        assert (await waiting).status == 200


async def test_a_long_body_that_waits_in_the_queue_is_not_the_callers_slowness() -> None:
    async with impatient(max_num_seqs=1) as (engine, router, caller):
        running = [asyncio.create_task(caller.post(session=str(number))) for number in range(2)]
        await until(lambda: router.status.in_flight == 2)
        late = asyncio.create_task(caller.post(data=b"x" * 4_000_000))
        await until(lambda: router.status.waiting == 1)
        await asyncio.sleep(2)
        engine.gate.set()
        assert (await late).body["bytes"] == 4_000_000
        assert {answer.status for answer in await asyncio.gather(*running)} == {200}


@pytest.mark.holds("decisions/0002-haproxy.md", "Slow or oversized headers are refused by the parser")
@pytest.mark.parametrize(
    "trickling", [pytest.param(b"", id="they stop"), pytest.param(b"x", id="they trickle in")]
)
@ON_BOTH
async def test_slow_headers_are_cut_off(trickling: bytes) -> None:
    """By HAProxy's parser, before there is a request; 2.6 has words of its own for it."""
    answer = await answer_beside_another_caller(REQUEST + b"X-Slow: ", trickling)
    assert answer.startswith("HTTP/1.1 408 ")
    assert ("request_timeout" in answer) is parser_takes_our_words()


async def test_a_caller_that_stops_reading_its_stream_is_cut_off_and_one_whose_engine_is_silent_is_not() -> (
    None
):
    async with impatient() as (engine, router, caller):
        async with caller.stream() as silent:
            assert await silent.content.readline() == b"data: first\n"
            with socket.create_connection(("127.0.0.1", router.config.port)) as unread:
                unread.sendall(REQUEST + b"X-Test-Stream: endless\r\nContent-Length: 2\r\n\r\n{}")
                await until(lambda: engine.running == 2)
                await until(lambda: engine.running == 1)
            await until(lambda: router.status.in_flight == 1)
            await until(lambda: terminations(router) == ["cD"])
            engine.gate.set()
            assert (await silent.content.read()).endswith(b"data: [DONE]\n\n")
        await until(lambda: router.status.in_flight == 0)
