"""The connections of a server: how long a caller may hold one without a request being under way.

uvicorn alone waits for ever for a request that does not come whole, for the rest of a body that nobody reads,
and for a caller that does not read. While an application reads a body, its own time limit counts.
"""

import asyncio
from dataclasses import dataclass
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """Seconds after which a connection is closed.

    `first_request`: a new connection has not sent the whole head of a request. `after_answer`: it was
    answered, and neither the rest of that request nor the whole head of another has come. `unread`: it takes
    nothing of what is sent to it. `closing`: the last bytes were not taken.
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

    def __init__(self, *arguments: Any, patience: Patience, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._patience = patience
        self._for_request: asyncio.TimerHandle | None = None
        self._for_reading: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first request."""
        super().connection_made(transport)
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

    def on_response_complete(self) -> None:
        """Wait for the next request; the rest of this one counts to that time."""
        if self.transport.is_closing():
            self._abort_soon()
        else:
            self._wait_for_request(self._patience.after_answer)
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, and close."""
        super().send_400_response(msg)
        self._abort_soon()

    def timeout_keep_alive_handler(self) -> None:
        """Close."""
        super().timeout_keep_alive_handler()
        self._abort_soon()

    def pause_writing(self) -> None:
        """Wait for a caller that reads slowly."""
        super().pause_writing()
        if self._for_reading is None:
            self._for_reading = self.loop.call_later(self._patience.unread, self.transport.abort)

    def resume_writing(self) -> None:
        """The caller has read."""
        super().resume_writing()
        if self._for_reading is not None:
            self._for_reading.cancel()
            self._for_reading = None

    def _wait_for_request(self, seconds: float) -> None:
        if self._for_request is not None:
            self._for_request.cancel()
        self._for_request = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def _abort_soon(self) -> None:
        """`close` alone waits for ever until the last bytes are taken."""
        if self._for_reading is not None:
            self._for_reading.cancel()
        self._for_reading = self.loop.call_later(self._patience.closing, self.transport.abort)
