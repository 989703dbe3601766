"""The connections that a server holds at the same time, and what of their requests it holds in memory.

Each connection counts from its acceptance on, a handshake of TLS too. When all places are taken, or the share
of its address is, a new connection gets the place of the one that waits longest for a request; where none
waits, it is closed. So connections that send nothing keep nobody out.

Some places are kept for probes: requests for anything else are answered with 503 where only these are left.
"""

import json
import socket
from collections import Counter, OrderedDict
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

PROBES: Final = frozenset({"/healthz", "/readyz", "/metrics", "/v1/status"})
REFUSED_IN_A_ROW: Final = 256  # then the server does other work before it closes more
RETRY_AFTER_SECONDS: Final = 2
BODIES: Final = "flotilla.bodies"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """How many connections a server holds, how many of them for one address, and how many are kept for
    probes; and the bytes of bodies that it holds for all requests together.
    """

    connections: int = 2048
    of_one_address: int = 1024
    for_probes: int = 32
    body_bytes: int = 64 * 1024 * 1024


class HeldSocket(socket.socket):
    """A connection that gives its place back when it is closed."""

    def __init__(self, accepted: socket.socket, places: "Places", address: str) -> None:
        super().__init__(accepted.family, accepted.type, accepted.proto, fileno=accepted.detach())
        self.address = address
        self._places = places

    def close(self) -> None:
        """Close it, and give its place back."""
        self._places.give(self)
        super().close()


class Places:
    """The places of one server. A connection is known by its file descriptor while it is open."""

    def __init__(self, bound: Bound) -> None:
        self._bound = bound
        self._held: dict[int, HeldSocket] = {}
        self._waiting: OrderedDict[int, None] = OrderedDict()
        self._waiting_of: dict[str, OrderedDict[int, None]] = {}
        self._of_address: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._held)

    def take(self, connection: HeldSocket) -> bool:
        """Take a place for a new connection; False where there is none."""
        if self._of_address[connection.address] >= self._bound.of_one_address:
            has_place = self._end_one(self._waiting_of.get(connection.address, ()))
        else:
            has_place = len(self._held) < self._bound.connections or self._end_one(self._waiting)
        if has_place:
            number = connection.fileno()
            self._held[number] = connection
            self._of_address[connection.address] += 1
            self.waits(number)
        return has_place

    def give(self, connection: HeldSocket) -> None:
        """Give a place back, if the connection has one."""
        number = connection.fileno()
        if self._held.get(number) is not connection:
            return
        self.works(number)
        del self._held[number]
        self._of_address[connection.address] -= 1
        if not self._of_address[connection.address]:
            del self._of_address[connection.address]

    def works(self, number: int) -> None:
        """Note that a request is under way."""
        if number not in self._waiting:
            return
        address = self._held[number].address
        del self._waiting[number]
        del self._waiting_of[address][number]
        if not self._waiting_of[address]:
            del self._waiting_of[address]

    def waits(self, number: int) -> None:
        """Note that no request is under way."""
        if (connection := self._held.get(number)) is not None:
            for waiting in (self._waiting, self._waiting_of.setdefault(connection.address, OrderedDict())):
                waiting[number] = None
                waiting.move_to_end(number)

    def _end_one(self, waiting: Iterable[int]) -> bool:
        """End the connection that waits longest: its server sees that nothing more comes, and closes it."""
        number = next(iter(waiting), None)
        if number is None:
            return False
        connection = self._held[number]
        self.give(connection)
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        return True


class BoundedListener(socket.socket):
    """A listening socket that accepts only connections for which there is a place."""

    def __init__(self, listener: socket.socket, places: Places) -> None:
        super().__init__(listener.family, listener.type, listener.proto, fileno=listener.detach())
        self._places = places

    def accept(self) -> tuple[socket.socket, Any]:
        """The next connection that has a place; those before it that have none are closed."""
        for _ in range(REFUSED_IN_A_ROW):
            accepted, address = super().accept()
            connection = HeldSocket(accepted, self._places, str(address[0]))
            if self._places.take(connection):
                return connection, address
            connection.close()
        raise BlockingIOError


class Bodies:
    """The bytes of bodies that all requests of a server hold together."""

    def __init__(self, most_bytes: int) -> None:
        self._left = most_bytes

    def take(self, length: int) -> bool:
        """Whether there is room for so many bytes more, which are then taken."""
        if length > self._left:
            return False
        self._left -= length
        return True

    def give(self, length: int) -> None:
        """Give the bytes of a request back that has ended."""
        self._left += length


@dataclass(slots=True)
class Held:
    """The bytes of one request's body."""

    bodies: Bodies
    length: int = 0

    def take(self, length: int) -> bool:
        """Whether there is room for so many bytes more."""
        if not self.bodies.take(length):
            return False
        self.length += length
        return True

    def give_back(self) -> None:
        """Give the bytes back: nobody has the body any more."""
        self.bodies.give(self.length)
        self.length = 0


class KeepsPlaces:
    """Answers 503 to all but probes where only the places for probes are left."""

    def __init__(self, application: ASGIApp, bound: Bound, probes: Collection[str] = PROBES) -> None:
        self._application = application
        self._most = bound.connections - bound.for_probes
        self._probes = frozenset(probes)
        self._bodies = Bodies(bound.body_bytes)
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, unless there are too many."""
        if scope["type"] != "http" or scope["path"] in self._probes:
            await self._application(scope, receive, send)
        elif self._under_way >= self._most:
            await too_busy("it answers as many requests as it may").__call__(scope, receive, send)
        else:
            await self._counted(scope, receive, send)

    async def _counted(self, scope: Scope, receive: Receive, send: Send) -> None:
        held = scope[BODIES] = Held(self._bodies)
        self._under_way += 1
        try:
            await self._application(scope, receive, send)
        finally:
            self._under_way -= 1
            held.give_back()


def too_busy(why: str) -> Response:
    """The answer to a request for which there is no room."""
    problem = {
        "type": "https://flotilla.dev/problems/busy",
        "title": "Service Unavailable",
        "status": 503,
        "detail": f"this server is busy: {why}; try again in {RETRY_AFTER_SECONDS} s",
    }
    headers = {"Retry-After": str(RETRY_AFTER_SECONDS), "Connection": "close"}
    return Response(
        json.dumps(problem), status_code=503, headers=headers, media_type="application/problem+json"
    )
