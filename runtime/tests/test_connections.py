"""How long a caller may hold a connection: a server with short times, and callers that are slow."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from flotilla_runtime.connections import Patience
from flotilla_runtime.request_body import BodyCutShortError, BodyTooLongError, BodyTooSlowError, read_body
from flotilla_runtime.serving import serving
from router_support.certificates import write_pair
from router_support.waiting import until

pytestmark = pytest.mark.services

SHORT = Patience(first_request=0.4, after_answer=0.4, unread=0.4, closing=0.2)
LONG = 30.0
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
REFUSED = b"POST /refused HTTP/1.1\r\nHost: x\r\nContent-Length: 900000000\r\n\r\n" + b"x" * 80_000
BROKEN_OFF: list[str] = []


async def refused(_: Request) -> Response:
    return PlainTextResponse("no", 413)


async def slow_answer(_: Request) -> Response:
    await asyncio.sleep(1)
    return PlainTextResponse("late")


async def much(_: Request) -> Response:
    return PlainTextResponse("x" * 50_000_000)


async def echo(request: Request) -> Response:
    try:
        return Response(await read_body(request, limit_bytes=100_000, within_seconds=0.6))
    except BodyTooLongError:
        return PlainTextResponse("too long", 413)
    except BodyTooSlowError:
        return PlainTextResponse("too slow", 408)
    except BodyCutShortError:
        BROKEN_OFF.append("cut short")
        return PlainTextResponse("cut short", 400)


APPLICATION = Starlette(
    routes=[
        Route("/refused", refused, methods=["POST"]),
        Route("/slow-answer", slow_answer),
        Route("/much", much),
        Route("/echo", echo, methods=["POST"]),
    ]
)


@asynccontextmanager
async def connected(patience: Patience, tls: Path | None) -> AsyncIterator[tuple[Any, Any]]:
    """A connection to a server of the test's own, over TLS where there is a directory for a certificate."""
    context = trusted = None
    if tls is not None:
        trusted = ssl.create_default_context(cadata=write_pair(tls, name="localhost"))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls / "tls.pem", tls / "tls.pem.key")
    async with serving(APPLICATION, 0, tls=context, patience=patience, grace_seconds=1) as port:
        reader, writer = await asyncio.open_connection("localhost", port, ssl=trusted, limit=2**16)
        yield reader, writer
        writer.transport.abort()


async def ended_after(reader: Any, writer: Any, sends: bytes, *, seconds: float = 5) -> bytes:
    """The bytes that came until the server closed, while `sends` is sent again and again."""
    came = asyncio.create_task(reader.read(2**20))
    whole = b""
    async with asyncio.timeout(seconds):
        while True:
            try:
                part = await asyncio.wait_for(asyncio.shield(came), 0.05)
            except TimeoutError:
                writer.write(sends)
                continue
            except ConnectionError:
                return whole
            if not part:
                return whole
            whole += part
            came = asyncio.create_task(reader.read(2**20))


@pytest.fixture(params=[False, True], ids=["http", "https"])
def tls(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    return tmp_path if request.param else None


@pytest.mark.holds(
    "security.md", "Gateways and retrievers close connections without a request, and those that do not read"
)
@pytest.mark.attack("A caller holds a connection of a gateway or a retriever without a request")
@pytest.mark.parametrize(
    ("first", "trickling", "answer"),
    [
        pytest.param(b"", b"", b"", id="it says nothing"),
        pytest.param(b"GET / HTTP/1.1\r\n", b"x", b"", id="its head trickles in"),
        pytest.param(REFUSED, b"", b"HTTP/1.1 413", id="it stops amid a refused body"),
        pytest.param(REFUSED, b"x", b"HTTP/1.1 413", id="a refused body trickles in"),
        pytest.param(REFUSED, b"x" * 100_000, b"HTTP/1.1 413", id="a refused body never ends"),
        pytest.param(GET, b"", b"HTTP/1.1 404", id="it stays after an answer"),
        pytest.param(GET + b"GET", b"x", b"HTTP/1.1 404", id="its next head trickles in"),
        pytest.param(b"no HTTP\r\n\r\n", b"x", b"HTTP/1.1 400", id="it speaks no HTTP"),
    ],
)
async def test_a_connection_without_a_request_ends(
    tls: Path | None, first: bytes, trickling: bytes, answer: bytes
) -> None:
    async with connected(SHORT, tls) as (reader, writer):
        writer.write(first)
        assert (await ended_after(reader, writer, trickling)).startswith(answer)


@pytest.mark.holds(
    "security.md", "Gateways and retrievers close connections without a request, and those that do not read"
)
@pytest.mark.attack("A caller holds a connection of a gateway or a retriever without a request")
async def test_a_caller_that_does_not_read_loses_its_connection(tls: Path | None) -> None:
    async with connected(SHORT, tls) as (reader, writer):
        writer.write(b"GET /much HTTP/1.1\r\nHost: x\r\n\r\n")
        await asyncio.sleep(1.5)  # nothing is read of 50 MB
        got = await ended_after(reader, writer, b"")
        assert 0 < len(got) < 50_000_000


@pytest.mark.holds(
    "security.md", "Gateways and retrievers close connections without a request, and those that do not read"
)
@pytest.mark.parametrize(
    ("first", "trickling", "answer"),
    [
        pytest.param(b"Content-Length: 100\r\n\r\n{", b"", b"HTTP/1.1 408", id="it stops"),
        pytest.param(b"Content-Length: 9999\r\n\r\n{", b"x", b"HTTP/1.1 408", id="it trickles in"),
        pytest.param(b"Content-Length: 100001\r\n\r\n", b"x", b"HTTP/1.1 413", id="it is announced too long"),
        pytest.param(
            b"Transfer-Encoding: chunked\r\n\r\n186A1\r\n" + b"x" * 100_001,
            b"",
            b"HTTP/1.1 413",
            id="it is too long",
        ),
    ],
)
async def test_a_body_that_is_too_slow_or_too_long_is_answered_and_ends(
    tls: Path | None, first: bytes, trickling: bytes, answer: bytes
) -> None:
    async with connected(SHORT, tls) as (reader, writer):
        writer.write(b"POST /echo HTTP/1.1\r\nHost: x\r\n" + first)
        assert (await ended_after(reader, writer, trickling)).startswith(answer)


async def test_a_body_that_is_broken_off_is_told_to_the_application() -> None:
    BROKEN_OFF.clear()
    async with connected(SHORT, None) as (_, writer):
        writer.write(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        await writer.drain()
        await asyncio.sleep(0.2)
        writer.transport.abort()
        await until(lambda: bool(BROKEN_OFF), seconds=5)


@pytest.mark.holds("security.md", "A request that is under way, and one after another, are not cut off")
async def test_a_request_under_way_and_one_after_another_are_not_cut_off(tls: Path | None) -> None:
    async with connected(SHORT, tls) as (reader, writer):
        for _ in range(2):
            writer.write(b"GET /slow-answer HTTP/1.1\r\nHost: x\r\n\r\n")
            async with asyncio.timeout(5):
                assert (await reader.readuntil(b"late")).startswith(b"HTTP/1.1 200")
        body = b"x" * 90_000
        writer.write(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 90000\r\n\r\n")
        for start in range(0, len(body), 30_000):
            writer.write(body[start : start + 30_000])
            await asyncio.sleep(0.1)
        async with asyncio.timeout(5):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
            assert await reader.readexactly(len(body)) == body


@pytest.mark.holds("security.md", "A request that is under way, and one after another, are not cut off")
async def test_a_connection_whose_refused_body_has_come_whole_takes_another_request(tls: Path | None) -> None:
    patient = Patience(first_request=LONG, after_answer=LONG, unread=LONG, closing=LONG)
    async with connected(patient, tls) as (reader, writer):
        for _ in range(2):
            writer.write(b"POST /refused HTTP/1.1\r\nHost: x\r\nContent-Length: 3000000\r\n\r\n")
            writer.write(b"x" * 3_000_000)
            async with asyncio.timeout(10):
                assert (await reader.readuntil(b"no")).startswith(b"HTTP/1.1 413")


@pytest.mark.holds(
    "security.md", "Gateways and retrievers close connections without a request, and those that do not read"
)
def test_what_callers_are_given_by_default() -> None:
    """docs/security.md says these."""
    assert Patience() == Patience(first_request=10, after_answer=5, unread=30, closing=5)


@pytest.mark.parametrize("connection", ["keep-alive", "close"])
async def test_a_caller_that_reads_slowly_but_steadily_gets_the_whole_answer(connection: str) -> None:
    async with connected(SHORT, None) as (reader, writer):
        writer.write(f"GET /much HTTP/1.1\r\nHost: x\r\nConnection: {connection}\r\n\r\n".encode())
        await reader.readuntil(b"\r\n\r\n")
        taken = 0
        while taken < 50_000_000 and (part := await reader.read(2**16)):
            taken += len(part)
            await asyncio.sleep(0.003)
    assert taken == 50_000_000
