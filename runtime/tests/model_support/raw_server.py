"""An HTTP server that sends the bytes it is told, with pauses, and sees when its caller goes away."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

FOR_EVER = 3600.0
Part = bytes | float  # bytes to send, or a pause in seconds
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """A part of a chunked body."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def event(document: Any) -> bytes:
    """A server-sent event."""
    return b"data: " + json.dumps(document).encode() + b"\n\n"


def said(content: str, finish: str | None = None) -> dict[str, Any]:
    """A chunk of an answer."""
    return {"choices": [{"index": 0, "delta": {"content": content}, "finish_reason": finish}]}


def counted(read: int, written: int) -> dict[str, Any]:
    """The chunk with the counts."""
    return {"choices": [], "usage": {"prompt_tokens": read, "completion_tokens": written}}


def whole(text: str, read: int = 12, written: int = 3) -> list[Part]:
    """A good answer."""
    events = event(said(text)) + event(said("", "stop")) + event(counted(read, written))
    return [STREAM, chunk(events + b"data: [DONE]\n\n"), END]


def plain(status: int, body: bytes = b"", **headers: str) -> list[Part]:
    """An answer without a stream."""
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ["\r\n".join(lines).encode() + b"\r\n\r\n" + body]


@dataclass(slots=True)
class Heard:
    """One request as it came."""

    path: str
    headers: dict[str, str]
    body: Any


@dataclass(slots=True)
class RawServer:
    """Gives each request the next answer; one that has no parts closes the connection."""

    answers: list[Sequence[Part]]
    port: int = 0
    requests: list[Heard] = field(default_factory=list)
    connections: list[asyncio.StreamWriter] = field(default_factory=list)
    caller_left: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        self.connections.append(writer)
        try:
            while (heard := await _request(reader)) is not None:
                self.requests.append(heard)
                answer = self.answers.pop(0)
                await self._send(answer, reader, writer)
                if not answer or END not in answer:
                    break
        except (ConnectionError, asyncio.CancelledError):
            self.caller_left.set()
        finally:
            writer.close()

    async def _send(
        self, answer: Sequence[Part], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        for part in answer:
            if isinstance(part, bytes):
                writer.write(part)
                await writer.drain()
                continue
            leaving = asyncio.ensure_future(reader.read(1))
            done, _ = await asyncio.wait({leaving}, timeout=part)
            leaving.cancel()
            if done:
                self.caller_left.set()
                return


async def _request(reader: asyncio.StreamReader) -> Heard | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.strip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Heard(path=first.split(" ")[1], headers=headers, body=json.loads(body or b"null"))


@asynccontextmanager
async def serving(*answers: Sequence[Part]) -> AsyncIterator[RawServer]:
    """A server that runs while the block does."""
    server = RawServer(answers=list(answers))
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0, limit=2**24)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
