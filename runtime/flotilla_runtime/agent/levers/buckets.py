"""The turns of calls at a rate limit.

A call takes what it is expected to use before it begins, and what it used more or less is corrected
afterwards. Calls that find too little wait in the order in which they came. Only turns of the next minute are
given, so what a lost worker's calls have taken delays others by a minute at most, or by as much as one large
call wants. Who comes while they are all given stands in line, and asks again from time to time.
"""

import asyncio
import secrets
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Final, Protocol

from flotilla_runtime.backoff import Draw

AHEAD_SECONDS: Final = 60.0  # for which turns are given
# Between two questions of a call in line. Turns are given further ahead, so it is seldom late for its own.
ASK_AGAIN_SECONDS: Final = 5.0
SPREAD: Final = 1.5  # calls that were sent away together do not ask again together
PLACE_BYTES: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """When a call may begin. Unless it `is_taken`, nothing was taken."""

    wait_seconds: float
    is_taken: bool


class Buckets(Protocol):
    """The buckets of a fleet. Where they cannot be reached, every call may begin."""

    async def take(self, limit: str, tokens: int, most_wait_seconds: float, place: str | None = None) -> Turn:
        """Take one request and these tokens, unless the turn comes later than that.

        Nobody passes those in line. Who gives a `place` stands in it, and asks again under the same one.
        """

    async def correct(self, limit: str, *, requests: int, tokens: int) -> None:
        """Take these too, whatever is left; less than nothing is given back."""

    async def leave(self, limit: str, tokens: int, place: str) -> None:
        """Leave the line, and give back what was taken for this place meanwhile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """The tokens that a call took from a limit, and the seconds that it waited."""

    limit: str
    tokens: int
    waited_seconds: float = 0.0


class Turns:
    """Waits for turns, and gives back those that nobody wants any more."""

    def __init__(self, buckets: Buckets, *, monotonic_seconds: Callable[[], float], draw: Draw) -> None:
        self._buckets = buckets
        self._now = monotonic_seconds
        self._draw = draw
        self._giving_back: set[asyncio.Task[None]] = set()

    async def at_once(self, limit: str, tokens: int) -> Taken | None:
        """Take what a call needs if it may begin now."""
        turn = await self._buckets.take(limit, tokens, 0.0)
        return Taken(limit=limit, tokens=tokens) if turn.is_taken else None

    async def waited(self, limit: str, tokens: int) -> Taken:
        """Take what a call needs, and wait for its turn. Cancelled meanwhile, it gives the turn back."""
        place, began, has_waited = secrets.token_hex(PLACE_BYTES), self._now(), False
        turn: Turn | None = None
        try:
            while not (turn := await self._buckets.take(limit, tokens, AHEAD_SECONDS, place)).is_taken:
                has_waited = True
                await asyncio.sleep(self._draw(ASK_AGAIN_SECONDS, ASK_AGAIN_SECONDS * SPREAD))
            if turn.wait_seconds:
                has_waited = True
                await asyncio.sleep(turn.wait_seconds)
        except asyncio.CancelledError:
            if turn is not None and turn.is_taken:
                self.give_back(Taken(limit=limit, tokens=tokens))
            else:
                self._later(self._buckets.leave(limit, tokens, place))
            raise
        waited = max(0.0, self._now() - began) if has_waited else 0.0
        return Taken(limit=limit, tokens=tokens, waited_seconds=waited)

    async def settle(self, taken: Taken, *, tries: int, tokens: int) -> None:
        """Correct what a call has taken by what it used: each try is a request."""
        requests, more = max(0, tries - 1), tokens - taken.tokens
        if requests or more:
            await self._buckets.correct(taken.limit, requests=requests, tokens=more)

    def give_back(self, taken: Taken) -> None:
        """Give back what a call has taken that is not made, without waiting for it."""
        self._later(self._buckets.correct(taken.limit, requests=-1, tokens=-taken.tokens))

    def _later(self, giving_back: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(giving_back)
        self._giving_back.add(task)
        task.add_done_callback(self._giving_back.discard)
