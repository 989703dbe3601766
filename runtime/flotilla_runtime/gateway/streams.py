"""How many event streams each caller has open at this gateway, and the answer that is one of them."""

from collections import Counter
from collections.abc import AsyncIterable
from http import HTTPStatus
from typing import Final

from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from flotilla_runtime.gateway.problems import ProblemError

RETRY_AFTER_SECONDS: Final = 5
HEADERS: Final = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


class Streams:
    """The open streams, counted by caller."""

    def __init__(self, most_per_caller: int) -> None:
        self._most = most_per_caller
        self._open: Counter[str] = Counter()

    def answer(self, caller: str, events: AsyncIterable[str]) -> Response:
        """Server-sent events that count as open until they end; a problem if the caller has too many."""
        return self.counted(
            caller, StreamingResponse(events, media_type="text/event-stream", headers=HEADERS)
        )

    def check(self, caller: str) -> None:
        """Raise a problem if the caller has too many; asked before a task is started for a stream."""
        if self._open[caller] >= self._most:
            raise ProblemError(
                HTTPStatus.TOO_MANY_REQUESTS,
                "streams-full",
                f"you have {self._most} event streams open at this gateway, the most that one caller may "
                "have; close some of them, or read tasks with GET /v1/tasks/ID",
                headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
            )

    def counted(self, caller: str, answer: Response) -> Response:
        """An answer that counts as an open stream until it ends; raises as `check` does."""
        self.check(caller)
        self._open[caller] += 1
        return CountedAnswer(self, caller, answer)

    def ended(self, caller: str) -> None:
        """Give the place of a stream back."""
        self._open[caller] -= 1
        self._open += Counter()  # forgets callers without a stream

    def __len__(self) -> int:
        return self._open.total()


class CountedAnswer(Response):
    """An answer whose place among the open streams is given back however it ends."""

    def __init__(self, streams: Streams, caller: str, answer: Response) -> None:
        super().__init__()
        self._streams = streams
        self._caller = caller
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events until they end or the caller has gone."""
        try:
            await self._answer(scope, receive, send)
        finally:
            self._streams.ended(self._caller)
