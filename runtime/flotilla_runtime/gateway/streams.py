"""How many event streams each caller has open at this gateway, and the answer that is one of them."""

from collections import Counter
from collections.abc import AsyncIterable
from http import HTTPStatus
from typing import Final

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from flotilla_runtime.gateway.problems import ProblemError

RETRY_AFTER_SECONDS: Final = 5
HEADERS: Final = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


class Streams:
    """The open streams, counted by caller."""

    def __init__(self, most_per_caller: int) -> None:
        self._most = most_per_caller
        self._open: Counter[str] = Counter()

    def answer(self, caller: str, events: AsyncIterable[str]) -> "EventStream":
        """An answer that counts as open until it has ended; raises a problem when the caller has too many."""
        if self._open[caller] >= self._most:
            raise ProblemError(
                HTTPStatus.TOO_MANY_REQUESTS,
                "streams-full",
                f"you have {self._most} event streams open at this gateway, the most that one caller may "
                "have; close some of them, or read tasks with GET /v1/tasks/ID",
                headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
            )
        self._open[caller] += 1
        return EventStream(self, caller, events)

    def ended(self, caller: str) -> None:
        """Give the place of a stream back."""
        self._open[caller] -= 1
        self._open += Counter()  # forgets callers without a stream

    def __len__(self) -> int:
        return self._open.total()


class EventStream(StreamingResponse):
    """Server-sent events. The stream's place is given back however it ends."""

    def __init__(self, streams: Streams, caller: str, events: AsyncIterable[str]) -> None:
        super().__init__(events, media_type="text/event-stream", headers=HEADERS)
        self._streams = streams
        self._caller = caller

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events until they end or the caller has gone."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._streams.ended(self._caller)
