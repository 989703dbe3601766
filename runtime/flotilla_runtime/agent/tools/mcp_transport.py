"""Carries the requests of the MCP client over the connections of tools, so that the same holds for them.

What goes wrong below MCP is noted in the exchange of the request, and the client gets an answer that it takes
for a failure: an error of the transport itself would end all requests of its session.
"""

import contextlib
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final

import aiohttp
import anyio
import httpx2
from yarl import URL

from flotilla_runtime.agent.tools.connections import PIECE_BYTES, Connections, Sent, may_come_about, unsent
from flotilla_runtime.agent.tools.header_files import HeaderError, headers_of
from flotilla_runtime.agent.tools.results import KIB
from flotilla_runtime.contract.failure_texts import what_failed

NOT_SENT: Final = 599  # what the client is told where no server answered
GIVEN_UP: Final = 202  # the client then waits for nothing, and a session that is being closed can take it
NOTICE_SECONDS: Final = 2.0  # for a message that asks for nothing; the client sends no other meanwhile
RESUMES: Final = "last-event-id"
NOT_PASSED_ON: Final = frozenset({"set-cookie", "content-length", "transfer-encoding"})
OF_MCP: Final = frozenset({"accept", "content-type"})


@dataclass(slots=True)
class Exchange:
    """One request of MCP and its end. Its answer may have `most_bytes`, of which `received` have come.

    `problem` is what went wrong below MCP, `status` that of the last answer. `may_pass` says that nothing was
    sent and another try may find a connection, `is_refused` that the request was turned away, `has_happened`
    that an answer to it had begun. `is_over` says that nobody waits for an answer any more.
    """

    most_bytes: int
    is_kept: bool = True
    sent: Sent = field(default_factory=Sent)
    problem: str | None = None
    status: int | None = None
    may_pass: bool = False
    is_refused: bool = False
    has_happened: bool = False
    received: int = 0
    is_over: bool = False
    under_way: set[Callable[[], None]] = field(default_factory=set)

    def close(self) -> None:
        """Close what is still under way, because nobody waits for it any more."""
        self.is_over = True
        for end in tuple(self.under_way):
            end()

    @contextlib.contextmanager
    def ended_by(self, end: Callable[[], None]) -> Iterator[None]:
        """While a request is being sent that `end` gives up."""
        self.under_way.add(end)
        try:
            yield
        finally:
            self.under_way.discard(end)


CURRENT: ContextVar[Exchange] = ContextVar("exchange")


class ToolTransport(httpx2.AsyncBaseTransport):
    """The transport of one MCP server's client. Each file of `headers_directory` is a header."""

    def __init__(self, connections: Connections, headers_directory: str | None) -> None:
        self._connections = connections
        self._directory = headers_directory

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request of the MCP client."""
        exchange = CURRENT.get(None) or Exchange(most_bytes=PIECE_BYTES)
        if request.method == "GET" and RESUMES not in request.headers:
            return httpx2.Response(405)  # what a server says of its own accord, nobody here listens to
        asks = await _asks(request)
        if asks and exchange.is_over:
            return httpx2.Response(GIVEN_UP)
        with anyio.move_on_after(None if asks else NOTICE_SECONDS) as scope:
            with exchange.ended_by(scope.cancel):
                return await self._answered(request, exchange)
        return httpx2.Response(GIVEN_UP)

    async def _answered(self, request: httpx2.Request, exchange: Exchange) -> httpx2.Response:
        url = URL(str(request.url), encoded=True)
        try:
            response = await self._sent(request, url, exchange)
        except HeaderError as problem:
            exchange.problem = str(problem)
            return httpx2.Response(NOT_SENT)
        except (aiohttp.ClientError, OSError, ValueError) as problem:
            said = unsent(problem, url.host)
            exchange.problem = said or what_failed(problem)
            exchange.may_pass = may_come_about(problem)
            return httpx2.Response(NOT_SENT)
        return self._answer(response, exchange)

    async def _sent(self, request: httpx2.Request, url: URL, exchange: Exchange) -> aiohttp.ClientResponse:
        secret = await headers_of(self._directory)
        for name in secret:
            if name.lower() in OF_MCP or name.lower().startswith("mcp-"):
                raise HeaderError(f"the key {name} of the headers' secret is a header of MCP itself")
        own = {
            name: value for name, value in request.headers.items() if name not in ("host", "content-length")
        }
        return await self._connections.open(
            request.method,
            url,
            headers={**own, **secret},
            sent=exchange.sent,
            is_kept=exchange.is_kept,
            data=await request.aread() or None,
            skip_auto_headers=("Content-Type",),
        )

    def _answer(self, response: aiohttp.ClientResponse, exchange: Exchange) -> httpx2.Response:
        exchange.status = response.status
        if 300 <= response.status < 400:
            response.close()
            exchange.problem = f"answered {response.status}: tools follow no redirect"
            exchange.is_refused = True
            return httpx2.Response(NOT_SENT)
        if response.headers.get("Content-Encoding", "identity") != "identity":
            response.close()
            exchange.problem = "the answer is compressed, although it was asked not to be"
            return httpx2.Response(NOT_SENT)
        exchange.has_happened = response.status == 200 and response.content_type == "application/json"
        headers = [
            (name, value) for name, value in response.headers.items() if name.lower() not in NOT_PASSED_ON
        ]
        return httpx2.Response(response.status, headers=headers, stream=_Body(response, exchange))


class _Body(httpx2.AsyncByteStream):
    """An answer's body, cut off where it is larger than it may be."""

    def __init__(self, response: aiohttp.ClientResponse, exchange: Exchange) -> None:
        self._response = response
        self._exchange = exchange
        exchange.under_way.add(response.close)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for piece in self._response.content.iter_chunked(PIECE_BYTES):
                self._exchange.received += len(piece)
                if self._exchange.received > self._exchange.most_bytes:
                    self._exchange.problem = (
                        f"the answer has more than {self._exchange.most_bytes // KIB} KiB and was cut off"
                    )
                    raise httpx2.StreamError(self._exchange.problem)
                yield piece
        except (aiohttp.ClientError, OSError) as problem:
            self._exchange.problem = what_failed(problem)
            raise httpx2.StreamError(self._exchange.problem) from problem

    async def aclose(self) -> None:
        """Close the connection, unless the body was read to its end."""
        self._exchange.under_way.discard(self._response.close)
        with contextlib.suppress(aiohttp.ClientError):
            self._response.close()


async def _asks(request: httpx2.Request) -> bool:
    """Whether the client waits for what the server says, unlike with the notice that a call was cancelled."""
    if request.method != "POST":
        return True
    message = json.loads(await request.aread())
    return "method" in message and "id" in message
