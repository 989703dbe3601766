"""Serves an ASGI application on a port, over IPv6 and IPv4 where the machine has both.

uvicorn itself binds only one family, so it gets a socket that accepts both. It holds as many connections as
`bound` allows. No caller holds a connection for longer than `patience` allows, but for a handshake of TLS,
which may take asyncio's minute. When the block of `serving` ends, the server first finishes the requests in
flight, for at most `grace_seconds`.
"""

import asyncio
import contextlib
import socket
import ssl
from asyncio.sslproto import SSLProtocol
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any

import uvicorn

from flotilla_runtime.connections import BoundedConnection, Patience
from flotilla_runtime.places import Bound, BoundedListener, KeepsPlaces, Places

BACKLOG = 2048
TLS_READ_BYTES = 16 * 1024  # a record of TLS; asyncio holds 256 KiB for each connection, also in a handshake
PATIENCE = Patience()
BOUND = Bound()


def listening_socket(port: int) -> socket.socket:
    """A socket that accepts IPv6 and IPv4 where both exist; port 0 chooses a free port."""
    if socket.has_dualstack_ipv6():
        with contextlib.suppress(OSError):
            return socket.create_server(
                ("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=BACKLOG
            )
    return socket.create_server(("", port), backlog=BACKLOG)


class Server(uvicorn.Server):
    """A uvicorn server that handles no signals, because several may run in one process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Install no signal handlers."""
        yield


@contextlib.asynccontextmanager
async def serving(
    application: Any,
    port: int,
    *,
    tls: ssl.SSLContext | None = None,
    patience: Patience = PATIENCE,
    bound: Bound = BOUND,
    grace_seconds: int = 5,
    started_within_seconds: float = 10,
) -> AsyncIterator[int]:
    """Serve while the block runs, over HTTPS with `tls`; yields the port."""
    if tls is not None:
        SSLProtocol.max_size = TLS_READ_BYTES
    places = Places(bound)
    listener = BoundedListener(listening_socket(port), places)
    config = uvicorn.Config(
        KeepsPlaces(application, bound),
        http="h11",
        log_config=None,
        access_log=False,
        lifespan="on",
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=grace_seconds,
    )
    config.load()
    config.ssl = tls
    config.http_protocol_class = partial(  # type: ignore[assignment]
        BoundedConnection, patience=patience, places=places
    )
    server = Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        async with asyncio.timeout(started_within_seconds):
            while not server.started:
                if task.done():
                    task.result()
                    raise RuntimeError("the HTTP server ended before it accepted connections")
                await asyncio.sleep(0.01)
        yield int(listener.getsockname()[1])
    finally:
        server.should_exit = True
        await task
        listener.close()
