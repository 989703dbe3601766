"""The connections of a server: how long a caller may hold one without a request being under way.

uvicorn alone waits for ever for a request that does not come whole, for the rest of a body that nobody reads,
and for a caller that does not read. While an application reads a body, its own time limit counts.
"""

import asyncio
from dataclasses import dataclass
from typing import Any, Final

from uvicorn.protocols.http.h11_impl import H11Protocol

from flotilla_runtime.places import Places

LEAST_READ_BYTES: Final = 16 * 1024  # a caller that takes less of an answer in its time loses its connection


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """Seconds after which a connection is closed.

    `first_request`: a new connection has not sent the whole head of a request. `after_answer`: its answer was
    taken, and neither the rest of that request nor the whole head of another has come. `unread`: it takes
    nearly nothing of what is sent to it. `closing`: the same, of the last bytes.
    """

    first_request: float = 10.0
    after_answer: float = 5.0
    unread: float = 30.0
    closing: float = 5.0


class BoundedConnection(H11Protocol):
    """A connection that ends when its caller is slower than `patience`.

    The rest of a body that the application did not read is discarded after the answer. Closing at once would
    reset the connection, and many clients would report that instead of the answer.
    """

    def __init__(self, *arguments: Any, patience: Patience, places: Places, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._patience = patience
        self._places = places
        self._number = -1  # of the connection's file descriptor
        self._for_request: asyncio.TimerHandle | None = None
        self._for_reading: asyncio.TimerHandle | None = None
        self._unread_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request."""
        super().connection_made(transport)
        self._number = transport.get_extra_info("socket").fileno()
        self._wait_for_request(self._patience.first_request)

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any more."""
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        for timer in (self._for_request, self._for_reading):
            if timer is not None:
                timer.cancel()

    def handle_events(self) -> None:
        """Take up what has arrived. A request that has begun ends the wait for it."""
        super().handle_events()
        if self._for_request is not None and self.cycle is not None and not self.cycle.response_complete:
            self._for_request.cancel()
            self._for_request = None
            self._places.works(self._number)

    def on_response_complete(self) -> None:
        """Wait for the next request; the rest of this one counts to that time."""
        if self.transport.is_closing():
            self._abort_soon()
        else:
            self._wait_for_request(self._patience.after_answer)
            self._expect_reading(self._patience.unread)
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, and close."""
        super().send_400_response(msg)
        self._abort_soon()

    def timeout_keep_alive_handler(self) -> None:
        """Close, unless the answer is still on its way to the caller."""
        if self._for_reading is not None and self.transport.get_write_buffer_size():
            self._wait_for_request(self._patience.after_answer)
            return
        super().timeout_keep_alive_handler()
        self._abort_soon()

    def pause_writing(self) -> None:
        """Wait for a caller that reads slowly."""
        super().pause_writing()
        if self._for_reading is None:
            self._expect_reading(self._patience.unread)

    def resume_writing(self) -> None:
        """The caller has read."""
        super().resume_writing()
        if self._for_reading is not None:
            self._for_reading.cancel()
            self._for_reading = None

    def _wait_for_request(self, seconds: float) -> None:
        self._places.waits(self._number)
        if self._for_request is not None:
            self._for_request.cancel()
        self._for_request = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def _abort_soon(self) -> None:
        """`close` alone waits for ever until the last bytes are taken."""
        self._expect_reading(self._patience.closing)

    def _expect_reading(self, seconds: float) -> None:
        if self._for_reading is not None:
            self._for_reading.cancel()
        self._unread_bytes = self.transport.get_write_buffer_size()
        self._for_reading = self.loop.call_later(seconds, self._look_at_reading, seconds)

    def _look_at_reading(self, seconds: float) -> None:
        """Wait on for a caller that has read enough, and end the connection of any other."""
        self._for_reading = None
        left = self.transport.get_write_buffer_size()
        if left and self._unread_bytes - left >= LEAST_READ_BYTES:
            self._expect_reading(seconds)
        elif left or self.transport.is_closing():
            self.transport.abort()
