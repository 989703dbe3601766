"""An MCP server made with the official library, with sessions or without, that can go wrong."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from typing import Any, Literal

import uvicorn
from mcp.server.mcpserver import Context, MCPServer
from starlette.types import Message, Receive, Scope, Send

Protocol = Literal["stateless", "sessions"]
SESSION = "mcp-session-id"


class ToolServer:
    """A server of tools that records its requests and makes the faults it is told to make."""

    def __init__(self, protocol: Protocol) -> None:
        self.protocol = protocol
        self.fault: str | None = None
        self.silent_at: set[str] = set()  # methods that are never answered
        self.unanswered = 0  # requests of these that the client has not closed
        self.goes_on = asyncio.Event()  # ends the tool that hangs
        self.paid: list[str] = []  # the keys of the payments that happened
        self.traces: list[Any] = []  # what these calls said of their trace
        self.requests: list[tuple[str, dict[str, str]]] = []  # the method of each message, and the headers
        self.url = ""
        self.mcp = self._made()
        self._app: Any = None

    def asked(self, method: str) -> list[dict[str, str]]:
        """The headers of each request with this method."""
        return [headers for name, headers in self.requests if name == method]

    def _made(self) -> MCPServer[Any]:
        server: MCPServer[Any] = MCPServer("bank")

        @server.tool(description="Adds two numbers.")
        def add(a: int, b: int) -> dict[str, int]:
            return {"sum": a + b}

        @server.tool(description="Pays.", structured_output=False)
        def pay(euro: int, ctx: Context[Any, Any]) -> str:
            meta = ctx.request_context.meta or {}
            self.paid.append(str(meta.get("flotilla.dev/idempotency-key")))
            self.traces.append(meta.get("traceparent"))
            return f"paid {euro}"

        @server.tool(structured_output=False)
        def large(kib: int) -> str:
            return "x" * (kib * 1024)

        @server.tool(structured_output=False)
        def fails() -> str:
            raise ValueError("the vault is shut")

        @server.tool(structured_output=False)
        async def hangs() -> str:
            await asyncio.wait_for(self.goes_on.wait(), 60)
            return "late"

        return server

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The server behind its faults."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        body = b""
        more = scope["method"] == "POST"
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        asked = json.loads(body) if body else {}
        method = asked.get("method", "") if body else scope["method"]
        self.requests.append((method, headers))
        if method in self.silent_at:
            await self._say_nothing(receive, send)
            return
        if await self._goes_wrong(method, asked.get("id"), send):
            return
        if method == "server/discover" and self.protocol == "sessions":
            await _answer(send, 400, b"no such protocol")
            return
        read = False

        async def again() -> Message:
            nonlocal read
            if read:
                return await receive()
            read = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, again, send)

    async def _say_nothing(self, receive: Receive, send: Send) -> None:
        """Until the client closes the request."""
        self.unanswered += 1
        if self.fault == "begins":
            headers = [(b"content-type", b"text/event-stream")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            body = b"id: 1\nretry: 1\ndata:\n\n"
            await send({"type": "http.response.body", "body": body, "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass
        self.unanswered -= 1

    async def _goes_wrong(self, method: str, identity: Any, send: Send) -> bool:
        match self.fault, method:
            case "hangs", _:
                await asyncio.sleep(60)
            case "endless", "tools/call" | "tools/list":
                await _endless(send)
            case "pages", "tools/list":
                await _page(send, identity)
            case "redirects", _:
                await _answer(send, 307, b"", (b"location", b"http://169.254.169.254/mcp"))
            case "shuts", _:
                await _answer(send, 503, b"shut")
            case "shuts once", "tools/call":
                self.fault = None
                await _answer(send, 503, b"shut")
            case "gateway", "tools/call":
                await _answer(send, 504, b"nobody answered")
            case "no MCP", _:
                await _answer(send, 200, b'{"hello": 1}', (b"content-type", b"application/json"))
            case "no session", "tools/call":
                self.fault = None
                await _answer(send, 404, b"session not found")
            case _:
                return False
        return True


async def _answer(send: Send, status: int, body: bytes, *headers: tuple[bytes, bytes]) -> None:
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})
    await send({"type": "http.response.body", "body": body})


async def _page(send: Send, identity: Any) -> None:
    """One of pages without an end, with 300 KiB."""
    tool = {"name": "t", "description": "x" * 300 * 1024, "inputSchema": {"type": "object"}}
    result = {
        "tools": [tool],
        "nextCursor": "more",
        "resultType": "complete",
        "ttlMs": 0,
        "cacheScope": "private",
    }
    body = json.dumps({"jsonrpc": "2.0", "id": identity, "result": result}).encode()
    await _answer(send, 200, body, (b"content-type", b"application/json"))


async def _endless(send: Send) -> None:
    """A hundred MB."""
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for _ in range(1600):
        await send({"type": "http.response.body", "body": b"[" * 2**16, "more_body": True})
        await asyncio.sleep(0.001)


@contextlib.asynccontextmanager
async def mcp_server(protocol: Protocol, *, streams: bool | None = None) -> AsyncIterator[ToolServer]:
    """A running server. By default that with sessions answers by JSON, the other by event streams."""
    served = ToolServer(protocol)
    by_json = protocol == "sessions" if streams is None else not streams
    served._app = served.mcp.streamable_http_app(json_response=by_json)
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(served.app, interface="asgi3", log_level="error", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve([listening]))
    served.url = f"http://127.0.0.1:{listening.getsockname()[1]}/mcp"
    try:
        yield served
    finally:
        server.should_exit = True
        await serving
        listening.close()
