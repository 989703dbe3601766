"""One MCP server as a worker sees it: a connection for all where it needs no session, else one for each task.

A server with sessions may keep a state in them, so no task shares its session with another. A session that
the server no longer knows is opened anew by the next call. A task's session is ended when it was not used for
a minute, or when more than 256 tasks have one that they do not use and its last use is the longest ago.
Nobody waits for that, and a server that does not answer then is cut off.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Any, Final

import httpx2
import mcp_types as types
import structlog
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import TypeAdapter

from flotilla_runtime.agent.tools.connections import Connections
from flotilla_runtime.agent.tools.mcp_transport import CURRENT, Exchange, ToolTransport
from flotilla_runtime.agent.tools.results import KIB
from flotilla_runtime.contract import McpServer
from flotilla_runtime.contract.failure_texts import what_failed

OPEN_SECONDS: Final = 10.0
IDLE_SECONDS: Final = 60.0
MOST_IDLE: Final = 256
HANDSHAKE_BYTES: Final = 1024 * KIB
LIST_BYTES: Final = 8192 * KIB
MOST_PAGES: Final = 32
MOST_TOOLS: Final = 128
UNKNOWN_SESSION: Final = frozenset({400, 404})
CLIENT: Final = types.Implementation(name="flotilla", version="1")
RESULT: Final[TypeAdapter[types.CallToolResult | types.InputRequiredResult]] = TypeAdapter(
    types.CallToolResult | types.InputRequiredResult
)

log = structlog.get_logger(__name__)


class NotOpenedError(Exception):
    """A server takes no connection. `may_pass` says that another try may find one."""

    def __init__(self, problem: str, *, may_pass: bool = False) -> None:
        super().__init__(problem)
        self.problem = problem
        self.may_pass = may_pass


class SessionLostError(Exception):
    """The server did not know the session, so it refused the call."""


class Held:
    """A client that a task of its own keeps open, because one task must open and close it.

    `calls` are those that are being made, `used_at` is when the last one ended.
    """

    def __init__(
        self, server: McpServer, connections: Connections, *, has_sessions: bool, used_at: float
    ) -> None:
        self.calls = 0
        self.used_at = used_at
        self._server = server
        self._exchange = Exchange(most_bytes=HANDSHAKE_BYTES)
        self._opened: asyncio.Future[Client] = asyncio.get_running_loop().create_future()
        self._is_left = False
        self._closing = asyncio.Event()
        self._mode = "legacy" if has_sessions else "auto"
        transport = ToolTransport(connections, server.headers_directory)
        self.task: Final = asyncio.create_task(self._hold(transport))

    @property
    def is_open(self) -> bool:
        """Whether it serves, or may come to."""
        return not self.task.done() and not self._is_left

    async def client(self) -> Client:
        """The open client. Raises NotOpenedError."""
        try:
            async with asyncio.timeout(OPEN_SECONDS):
                return await asyncio.shield(self._opened)
        except TimeoutError:
            self.leave()
            raise NotOpenedError(f"no answer within {OPEN_SECONDS:g} s") from None

    @contextlib.contextmanager
    def used(self, clock: Callable[[], float]) -> Iterator[None]:
        """While a call is made."""
        self.calls += 1
        try:
            yield
        finally:
            self.calls -= 1
            self.used_at = clock()
            if self._is_left:
                self.leave()

    def leave(self) -> None:
        """Take no more calls, and close after those that are being made. Waits for nothing."""
        self._is_left = True
        if self.calls == 0 or not self._opened.done():
            self._close()

    async def ended(self) -> None:
        """Close it now, and wait for that."""
        self._is_left = True
        self._close()
        await asyncio.wait({self.task}, timeout=2 * OPEN_SECONDS)

    def _close(self) -> None:
        """End the session and the connection; a server that does not answer in time is cut off."""
        if self._closing.is_set():
            return
        self._closing.set()
        if not self._opened.done():
            self.task.cancel()
        cut = asyncio.get_running_loop().call_later(OPEN_SECONDS, self.task.cancel)
        self.task.add_done_callback(lambda _: cut.cancel())

    async def _hold(self, transport: ToolTransport) -> None:
        CURRENT.set(self._exchange)
        try:
            async with httpx2.AsyncClient(transport=transport, timeout=None, trust_env=False) as http:
                # Our transport bounds an answer. The SDK's limit for one event of it, 1 MiB, would be lower.
                streams = streamable_http_client(self._server.url, http_client=http, max_sse_event_size=None)
                async with Client(streams, mode=self._mode, cache=None, client_info=CLIENT) as client:
                    self._opened.set_result(client)
                    await self._closing.wait()
        except Exception as problem:
            if self._opened.done():
                log.info("mcp_connection_ended", url=self._server.url, problem=type(problem).__name__)
                return
            said = self._exchange.problem or words_of(problem)
            self._opened.set_exception(NotOpenedError(said, may_pass=self._exchange.may_pass))
            self._opened.exception()  # nobody may be waiting any more
        except asyncio.CancelledError:
            if not self._opened.done():
                self._opened.set_exception(NotOpenedError("the connection was given up"))
                self._opened.exception()
            raise


class McpConnections:
    """The connections to one server."""

    def __init__(
        self,
        server: McpServer,
        connections: Connections,
        monotonic_seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self.server: Final = server
        self._connections = connections
        self._clock = monotonic_seconds
        self._shared: Held | None = None
        self._by_task: dict[str, Held] = {}
        self._every: set[Held] = set()  # also those that are being ended

    async def tools(self) -> list[types.Tool]:
        """List the tools that the server declares now. Raises NotOpenedError and MCPError."""
        self.end_idle()
        try:
            async with asyncio.timeout(OPEN_SECONDS):
                return await self._listed_or_again()
        except TimeoutError:
            self._leave_shared()
            raise NotOpenedError(f"no answer within {OPEN_SECONDS:g} s") from None

    async def call(
        self, task: str, name: str, arguments: dict[str, Any], meta: dict[str, Any], exchange: Exchange
    ) -> types.CallToolResult | types.InputRequiredResult:
        """Call a tool, once. Raises NotOpenedError, SessionLostError and MCPError."""
        held = await self._held_for(task)
        with held.used(self._clock):
            return await self._sent(held, name, arguments, meta, exchange)

    def end_idle(self) -> None:
        """End the sessions of tasks that have not called for a while, and the oldest of too many."""
        idle = sorted((held.used_at, task) for task, held in self._by_task.items() if held.calls == 0)
        too_many = {task for _, task in idle[: max(0, len(idle) - MOST_IDLE)]}
        for task, held in list(self._by_task.items()):
            is_idle = held.calls == 0 and self._clock() - held.used_at > IDLE_SECONDS
            if is_idle or task in too_many or not held.is_open:
                held.leave()
                del self._by_task[task]

    async def close(self) -> None:
        """End all sessions."""
        await asyncio.gather(*(held.ended() for held in self._every))

    async def _sent(
        self, held: Held, name: str, arguments: dict[str, Any], meta: dict[str, Any], exchange: Exchange
    ) -> types.CallToolResult | types.InputRequiredResult:
        client = await held.client()
        CURRENT.set(exchange)
        params = types.CallToolRequestParams.model_validate(
            {"name": name, "arguments": arguments, "_meta": meta}
        )
        try:
            return await client.session.send_request(types.CallToolRequest(params=params), RESULT)
        except MCPError as problem:
            if exchange.status not in UNKNOWN_SESSION or _is_modern(client):
                raise
            held.leave()  # the next call opens another
            if exchange.status == HTTPStatus.NOT_FOUND:
                raise SessionLostError from problem
            raise
        finally:
            exchange.close()

    async def _listed_or_again(self) -> list[types.Tool]:
        try:
            return await self._listed()
        except MCPError:  # the session may be one of before a restart of the server
            self._leave_shared()
            return await self._listed()

    async def _listed(self) -> list[types.Tool]:
        CURRENT.set(exchange := Exchange(most_bytes=LIST_BYTES))
        client = await self._common().client()
        found: list[types.Tool] = []
        cursor: str | None = None
        try:
            for _ in range(MOST_PAGES):
                page = await client.list_tools(cursor=cursor)
                found += page.tools
                cursor = page.next_cursor
                if cursor is None or len(found) > MOST_TOOLS:
                    break
        except MCPError as problem:
            if exchange.problem is not None:
                raise NotOpenedError(exchange.problem) from problem
            raise
        finally:
            exchange.close()
        return found

    def _common(self) -> Held:
        if self._shared is None or not self._shared.is_open:
            self._shared = self._new(has_sessions=False)
        return self._shared

    def _leave_shared(self) -> None:
        """Have the next look open another. Tasks may be making calls over this one."""
        if self._shared is not None:
            self._shared.leave()

    def _new(self, *, has_sessions: bool) -> Held:
        held = Held(self.server, self._connections, has_sessions=has_sessions, used_at=self._clock())
        self._every.add(held)
        held.task.add_done_callback(lambda _: self._every.discard(held))
        return held

    async def _held_for(self, task: str) -> Held:
        """The connection for a task's calls."""
        if (held := self._open_of(task)) is not None:
            return held
        common = self._common()
        if _is_modern(await common.client()):
            return common
        # Another call of the task may have opened a session meanwhile.
        if (held := self._open_of(task)) is None:
            self.end_idle()
            held = self._by_task[task] = self._new(has_sessions=True)
        return held

    def _open_of(self, task: str) -> Held | None:
        """The task's own session."""
        held = self._by_task.get(task)
        return held if held is not None and held.is_open else None


def _is_modern(client: Client) -> bool:
    """Whether the server speaks the protocol without sessions."""
    return client.protocol_version in MODERN_PROTOCOL_VERSIONS


def words_of(problem: BaseException) -> str:
    """The first plain error within a group of them."""
    while isinstance(problem, BaseExceptionGroup):
        problem = problem.exceptions[0]
    return what_failed(problem)[:300]
