"""Decides when the calls of a run may begin, and when the run stops.

A run stops for one `Stop`. From then on no call begins. While a call is under way nothing stops it but a
cancellation from outside; when everything pending is parked, the task gives its place up.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, Never, TypeVar

from flotilla_runtime.agent.engine.stops import Parked, Stop, StopKind, rings_soon, waits_of
from flotilla_runtime.agent.errors import LeaseLostError, StoreUnavailableError
from flotilla_runtime.agent.journal import EndReason, WaitKind

Answer = TypeVar("Answer")

LOOK_SECONDS: Final = 1.0  # between two looks for what a call waits for, while others keep the run going
SETTLE_TURNS: Final = 32  # of the event loop, in which an agent may make its next call
SETTLE_SECONDS: Final = 0.02  # in which an agent may end after its last call, although the task is cancelled
LOST: Final = Stop(kind=StopKind.LOST)
CANCELLED: Final = Stop(kind=StopKind.END, reason=EndReason.CANCELLED, message="cancelled by the caller")


class Pace:
    """When the calls of one run begin, wait and stop. `now_ms` is the time of the run."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self.stopped: Final[asyncio.Future[Stop]] = asyncio.get_running_loop().create_future()
        self.now_ms: Final = now_ms
        self._bar: Stop | None = None
        self._leaving = False
        self._goes_on = False
        self._active = 0
        self._parked: set[Parked] = set()
        self._held_back = 0
        self._is_looking = False
        self._under_way: set[asyncio.Task[Any]] = set()

    def stop(self, stop: Stop) -> None:
        """Stop the run for this reason, unless it has stopped already."""
        if not self.stopped.done():
            self._goes_on = stop.kind is not StopKind.END
            self.stopped.set_result(stop)

    def goes_on(self) -> bool:
        """Whether another run goes on with the calls that this one leaves; not with what an agent gave up."""
        return self._goes_on

    def bar(self, stop: Stop, grace_seconds: float) -> None:
        """Stop before the next call that is not in the journal, and in any case after this time."""
        if self._bar is None:
            self._bar = stop
            asyncio.get_running_loop().call_later(grace_seconds, self.stop, stop)

    def leave(self) -> None:
        """Hand the task over when the calls under way have ended."""
        self._leaving = True
        self._look()

    async def close(self) -> None:
        """Cancel the calls that are still under way."""
        if not self.stopped.done():
            self.stopped.set_result(LOST)
        left = self._under_way - {asyncio.current_task()}
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=SETTLE_SECONDS)

    async def guarded(self, making: Awaitable[Answer]) -> Answer:
        """Make a call; a write that another worker's token or a lost Redis refuses ends the run."""
        task = asyncio.current_task()
        if task is not None:
            self._under_way.add(task)
        self._active += 1
        try:
            return await making
        except (LeaseLostError, StoreUnavailableError):
            self.stop(LOST)
            return await never()
        finally:
            self._active -= 1
            if task is not None:
                self._under_way.discard(task)
            self._look_soon()

    async def may_begin(self) -> None:
        """Return if a call may begin now; else the run stops, and this waits for its end."""
        await self.not_barred()
        if self._leaving:
            self._held_back += 1
            self._active -= 1
            self._look()
            try:
                await never()
            finally:
                self._active += 1

    async def not_barred(self) -> None:
        """The same, for a call whose intent is written: it is made although the worker leaves."""
        if self.stopped.done():
            raise asyncio.CancelledError
        if self._bar is not None:
            self.stop(self._bar)
            await never()

    @contextmanager
    def waiting(self, parked: Parked) -> Iterator[None]:
        """While this lasts, a call only waits."""
        self._parked.add(parked)
        self._active -= 1
        self._look_soon()
        try:
            yield
        finally:
            self._parked.discard(parked)
            self._active += 1

    def _look_soon(self) -> None:
        """Look in some turns of the event loop, in which an agent whose call has ended can make the next."""
        if not self._is_looking:
            self._is_looking = True
            self._turn(SETTLE_TURNS)

    def _turn(self, left: int) -> None:
        if self._active or not (self._parked or self._held_back):
            self._is_looking = False
        elif left:
            asyncio.get_running_loop().call_soon(self._turn, left - 1)
        else:
            self._is_looking = False
            self._look()

    def _look(self) -> None:
        """Give the place up when nothing is under way and something waits."""
        if self._active or self.stopped.done():
            return
        if self._held_back:
            self.stop(Stop(kind=StopKind.HAND_OVER))
        elif self._parked:
            waits = waits_of(self._parked)
            is_woken = bool(waits.children) or waits.until is not None or waits.kind is WaitKind.EFFECT
            if is_woken and not rings_soon(self._parked, self.now_ms()):
                self.stop(Stop(kind=StopKind.SUSPEND, waits=waits))


async def never() -> Never:
    """Wait until the run cancels the agent."""
    await asyncio.get_running_loop().create_future()
    raise AssertionError("nobody sets this future")
