"""Servers that mean harm, on loopback addresses of their own."""

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field


@dataclass(kw_only=True)
class Hostile:
    """Answers each request at each of its addresses with the same bytes.

    It counts what was asked, by address and path. With `endless`, other bytes follow until the client leaves.
    """

    port: int
    answer: bytes
    endless: bool = False
    address: str = ""
    asked: Counter[str] = field(default_factory=Counter)
    paths: Counter[str] = field(default_factory=Counter)
    longest_read: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, which ends with its first answer."""
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            self.asked[writer.get_extra_info("sockname")[0]] += 1
            self.paths[head.split(" ", 2)[1]] += 1
            writer.write(self.answer)
            sent = len(self.answer)
            await writer.drain()
            while self.endless:
                writer.write(bytes(2**16))
                await writer.drain()
                sent += 2**16
                self.longest_read = max(self.longest_read, sent)
        writer.close()


def answering(status: str, body: bytes = b"", **headers: str) -> bytes:
    """A whole answer of HTTP, after which the connection ends."""
    lines = [
        f"HTTP/1.1 {status}",
        "Connection: close",
        *(f"{key}: {value}" for key, value in headers.items()),
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


@contextmanager
def listening(hostile: Hostile, addresses: Sequence[str]) -> Iterator[Hostile]:
    """The server at these addresses, in a thread of its own. Its port is chosen where it is 0."""
    loop = asyncio.new_event_loop()
    started = threading.Event()

    async def run() -> None:
        server = await asyncio.start_server(hostile.serve, list(addresses), hostile.port)
        hostile.address, hostile.port = server.sockets[0].getsockname()
        started.set()
        async with server:
            with suppress(asyncio.CancelledError):
                await server.serve_forever()

    task = loop.create_task(run())
    thread = threading.Thread(target=loop.run_until_complete, args=(task,), daemon=True)
    thread.start()
    assert started.wait(10), "the server does not listen"
    try:
        yield hostile
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join(10)
