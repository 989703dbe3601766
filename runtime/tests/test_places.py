"""How many connections and bodies a server holds: small bounds, and callers that want more."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from flotilla_runtime.connections import Patience
from flotilla_runtime.places import Bodies, Bound, HeldSocket, Places
from flotilla_runtime.request_body import NoRoomForBodyError, read_body
from flotilla_runtime.serving import serving
from router_support.certificates import write_pair
from router_support.waiting import until, until_told

PATIENT = Patience(first_request=60, after_answer=60, unread=60, closing=60)
BOUND = Bound(connections=8, of_one_address=6, for_probes=2, body_bytes=100_000)
FIRST, SECOND, THIRD = "127.0.0.1", "127.0.0.2", "127.0.0.3"


class Double(HeldSocket):
    """A connection of a file descriptor's number alone."""

    def __init__(self, number: int, address: str) -> None:
        self.number, self.address, self.ended = number, address, False

    def fileno(self) -> int:
        return self.number

    def shutdown(self, how: int) -> None:
        self.ended = True

    def __del__(self) -> None:
        """Nothing is open."""


@given(st.lists(st.tuples(st.sampled_from(["take", "give", "works", "waits"]), st.integers(0, 30))))
def test_places_are_never_more_than_the_bound_and_only_waiting_ones_are_ended(
    steps: list[tuple[str, int]],
) -> None:
    bound = Bound(connections=5, of_one_address=3)
    places, held, busy = Places(bound), dict[int, Double](), set[int]()
    for what, number in steps:
        if what == "take" and number not in held:
            before = {one for one, connection in held.items() if not connection.ended}
            new = Double(number, f"10.0.0.{number % 4}")
            of_address = [one for one in before if held[one].address == new.address]
            may_end = set(of_address) - busy if len(of_address) >= 3 else before - busy
            taken = places.take(new)
            assert taken == (bool(may_end) or (len(of_address) < 3 and len(before) < 5))
            if taken:
                held[number] = new
        elif what == "give" and number in held:
            places.give(held.pop(number))
            busy.discard(number)
        elif what == "works" and number in held and not held[number].ended:
            places.works(number)
            busy.add(number)
        elif what == "waits" and number in held:
            places.waits(number)
            busy.discard(number)
        assert len(places) == sum(not one.ended for one in held.values()) <= 5
        assert not any(held[number].ended for number in busy)
    for connection in held.values():
        places.give(connection)
    assert len(places) == 0


def test_bodies_have_room_again_when_their_requests_end() -> None:
    bodies = Bodies(10)
    assert bodies.take(10)
    assert not bodies.take(1)
    bodies.give(10)
    assert bodies.take(10)


class Server:
    """A server of the test's own, whose slow answers wait until they are let go."""

    def __init__(self) -> None:
        self.port = 0
        self.go = asyncio.Event()
        self.slow = 0
        self.trusted: ssl.SSLContext | None = None
        self._writers: list[asyncio.StreamWriter] = []

    def application(self) -> Starlette:
        async def slow(_: Request) -> Response:
            self.slow += 1
            await self.go.wait()
            return PlainTextResponse("late")

        async def posted(request: Request) -> Response:
            try:
                body = await read_body(request, limit_bytes=100_000, within_seconds=60)
            except NoRoomForBodyError:
                return PlainTextResponse("no room", 503)
            self.slow += 1
            await self.go.wait()
            return PlainTextResponse(str(len(body)))

        async def healthy(_: Request) -> Response:
            return PlainTextResponse("ok")

        return Starlette(
            routes=[
                Route("/slow", slow),
                Route("/posted", posted, methods=["POST"]),
                Route("/healthz", healthy),
                Route("/quick", healthy),
            ]
        )

    async def connect(self, source: str, *, trusted: ssl.SSLContext | None = None) -> Any:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.port, local_addr=(source, 0), ssl=trusted
        )
        self._writers.append(writer)
        return reader, writer

    async def ask(self, source: str, path: str) -> tuple[Any, Any]:
        reader, writer = await self.connect(source, trusted=self.trusted)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        return reader, writer

    async def status(self, source: str, path: str) -> int:
        reader, _ = await self.ask(source, path)
        return int((await reader.readline()).split()[1])

    def leave(self) -> None:
        for writer in self._writers:
            writer.transport.abort()


async def is_ended(reader: asyncio.StreamReader) -> bool:
    """Whether the server has closed a connection, soon or by now."""
    try:
        return await asyncio.wait_for(reader.read(1), 5) == b""
    except TimeoutError:
        return False
    except ConnectionError:
        return True


@asynccontextmanager
async def served(tls: Path | None = None, bound: Bound = BOUND) -> AsyncIterator[Server]:
    server, context = Server(), None
    if tls is not None:
        server.trusted = ssl.create_default_context(cadata=write_pair(tls, name="localhost"))
        server.trusted.check_hostname = False
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls / "tls.pem", tls / "tls.pem.key")
    async with serving(
        server.application(), 0, tls=context, patience=PATIENT, bound=bound, grace_seconds=1
    ) as port:
        server.port = port
        yield server
        server.go.set()
        server.leave()


@pytest.fixture(params=["HTTP", "HTTPS"])
def tls(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    return tmp_path if request.param == "HTTPS" else None


@pytest.mark.services
@pytest.mark.attack("A caller opens more connections than a gateway or a retriever holds")
async def test_a_new_connection_gets_the_place_of_the_one_that_waits_longest(tls: Path | None) -> None:
    """Over TLS these have not even begun a handshake."""
    async with served(tls) as server:
        idle = [await server.connect(source) for source in (FIRST,) * 4 + (SECOND,) * 4]
        assert await server.status(THIRD, "/quick") == 200
        assert await is_ended(idle[0][0])
        assert await server.status(THIRD, "/healthz") == 200
        assert await is_ended(idle[1][0])


@pytest.mark.services
async def test_one_address_has_its_share_alone_and_what_is_more_is_closed(tls: Path | None) -> None:
    async with served(tls) as server:
        idle, *_ = [await server.connect(FIRST) for _ in range(3)]
        for _ in range(5):
            await server.ask(FIRST, "/slow")
        await until(lambda: server.slow == 5)
        assert await is_ended(idle[0])
        busy = asyncio.create_task(server.status(FIRST, "/slow"))
        await until(lambda: server.slow == 6)
        assert not await answered(server, FIRST)
        assert await server.status(SECOND, "/healthz") == 200
        server.go.set()
        assert await busy == 200
        await until_told(lambda: answered(server, FIRST))


async def answered(server: Server, source: str) -> bool:
    try:
        return await server.status(source, "/quick") == 200
    except (ConnectionError, IndexError, ssl.SSLError):
        return False


@pytest.mark.services
async def test_places_are_kept_for_probes_and_all_are_free_again_afterwards(tls: Path | None) -> None:
    async with served(tls) as server:
        for source in (FIRST,) * 3 + (SECOND,) * 3:
            await server.ask(source, "/slow")
        await until(lambda: server.slow == 6)
        assert await server.status(THIRD, "/quick") == 503
        for _ in range(20):
            assert await server.status(THIRD, "/healthz") == 200
        server.go.set()
        await until_told(lambda: answered(server, THIRD))
        for _ in range(20):
            assert await server.status(FIRST, "/quick") == 200


@pytest.mark.services
@pytest.mark.attack("Callers send more large bodies at once than a gateway or a retriever has memory for")
async def test_bodies_together_have_a_bound_and_others_are_told_to_come_again() -> None:
    async with served() as server:

        async def post(length: int) -> asyncio.StreamReader:
            reader, writer = await server.connect(FIRST)
            writer.write(b"POST /posted HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % length)
            writer.write(b"x" * length)
            found: asyncio.StreamReader = reader
            return found

        first = await post(90_000)
        await until(lambda: server.slow == 1)
        assert b"503" in await (await post(20_000)).readline()
        server.go.set()
        assert b"200" in await first.readline()
        await until_told(lambda: fits(post))


async def fits(post: Any) -> bool:
    return b"200" in await (await post(90_000)).readline()


@pytest.mark.holds(
    "tasks.md", "A gateway holds 2,048 connections, 1,024 of one address; those that wait are closed first"
)
def test_a_server_holds_two_thousand_connections_half_of_them_of_one_address() -> None:
    """docs/security.md and docs/tasks.md say these numbers."""
    assert Bound() == Bound(connections=2048, of_one_address=1024, for_probes=32, body_bytes=64 * 1024 * 1024)


def test_a_closed_connection_gives_its_place_back_once() -> None:
    ours, theirs = socket.socketpair()
    places = Places(Bound(connections=1))
    held = HeldSocket(ours, places, FIRST)
    assert places.take(held)
    held.close()
    held.close()
    theirs.close()
    assert len(places) == 0
