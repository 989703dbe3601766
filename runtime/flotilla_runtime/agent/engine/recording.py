"""How the entries of calls come into the journal, and what the answers mean for the run.

Where the caller's share of the store has no room, a call waits while other calls of the caller keep room that
they may give back; then the task ends. An answer may also say that the task is to be cancelled.
"""

import asyncio
from contextlib import AbstractContextManager, nullcontext
from typing import Final, Never

from flotilla_runtime.agent.budgets import LimitName, Refusal
from flotilla_runtime.agent.engine.pace import CANCELLED, SETTLE_SECONDS, Pace, never
from flotilla_runtime.agent.engine.stops import Stop, StopKind
from flotilla_runtime.agent.engine.writer import Writer
from flotilla_runtime.agent.futures import heard
from flotilla_runtime.agent.journal import Done, EndReason, Entry, Intended
from flotilla_runtime.agent.protocols import Post, StateRequest

FIRST_PAUSE_SECONDS: Final = 0.25  # in which others may settle what they reserved
LONGEST_PAUSE_SECONDS: Final = 5.0
NOTHING_ELSE: Final[AbstractContextManager[None]] = nullcontext()


class Recording:
    """The entries of one run."""

    def __init__(self, writer: Writer, pace: Pace, *, heeds_cancellation: bool = True) -> None:
        self._writer = writer
        self._pace = pace
        self._heeds_cancellation = heeds_cancellation

    async def write(self, *entries: Entry) -> Refusal | None:
        """Write entries; the refusal of an intent by a limit of the tree."""
        return await self.confirmed(self.hand_in(*entries), *entries)

    async def confirmed(self, written: "asyncio.Future[Refusal | None]", *entries: Entry) -> Refusal | None:
        """The same for entries that were handed in; those for which there was no room are so again."""
        pause = FIRST_PAUSE_SECONDS
        while True:
            refused = await asyncio.shield(written)
            self._bar_if_cancelled()
            if refused is None or refused.limit is not LimitName.SHARE:
                return refused
            pause = await self._room(refused, pause)
            written = self.hand_in(*entries)

    def hand_in(self, *entries: Entry) -> "asyncio.Future[Refusal | None]":
        """Have entries written, without waiting for it; whoever writes next hears of a failure."""
        written = self._writer.hand_in(*entries)
        written.add_done_callback(heard)
        return written

    async def state(self, intent: Intended, request: StateRequest) -> Done:
        """Read or write a value of the state, and write this call of it with its result."""
        pause = FIRST_PAUSE_SECONDS
        while True:
            done = await self._writer.state(intent, request)
            self._bar_if_cancelled()
            if not isinstance(done, Refusal):
                return done
            pause = await self._room(done, pause)

    async def spawn(self, intent: Intended, child_input: str) -> Refusal | None:
        """Submit a spawned task, and write its intent; the refusal by a limit or for want of room."""
        return await self._writer.spawn(intent, child_input)

    async def deliver(self, intent: Intended, post: Post) -> Refusal | None:
        """Submit a message to an actor, and write its intent; the refusal by a limit or by the actor."""
        refused = await self._writer.deliver(intent, post)
        self._bar_if_cancelled()
        return refused

    async def others_settle(
        self, pause: float, meanwhile: AbstractContextManager[None] = NOTHING_ELSE
    ) -> float:
        """Wait until other calls may have given back what they reserved; the next pause."""
        with meanwhile:
            await self._writer.settled(pause)
        await self._pace.may_begin()
        return min(2 * pause, LONGEST_PAUSE_SECONDS)

    async def end_for_want_of_room(self, refused: Refusal) -> Never:
        """End the task, because its caller's share of the store is full."""
        message = (
            f"there is no room for the call {refused.call}: the tasks of this caller hold "
            f"{refused.committed:.0f} bytes of the {refused.most:.0f} that are their share of the store "
            f"(gateway.callerLimits.queuePercent), and the call may take {refused.wanted:.0f}"
        )
        self._pace.stop(Stop(kind=StopKind.END, reason=EndReason.INFRASTRUCTURE, message=message))
        await never()

    async def _room(self, refused: Refusal, pause: float) -> float:
        """Wait until other calls of the caller may have given room back, or end the task; the next pause."""
        if not refused.may_change:
            await self.end_for_want_of_room(refused)
        return await self.others_settle(pause)

    def _bar_if_cancelled(self) -> None:
        if self._heeds_cancellation and self._writer.cancel_requested.is_set():
            self._pace.bar(CANCELLED, SETTLE_SECONDS)
