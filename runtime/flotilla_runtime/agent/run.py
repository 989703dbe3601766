"""Runs one task: carries out the next action that the loop plans from the journal, until the task ends.

The intent of a call is written before it and its result after it, each at the position of the journal that
this worker expects. A refused write ends the run, because then another worker holds the task. A run can be
interrupted for three reasons: the task is to be cancelled, the worker must stop, or the lease is lost. An
interruption stops the calls at once, but never a write.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from flotilla_runtime.agent import story as stories
from flotilla_runtime.agent.calls import Reply, Session
from flotilla_runtime.agent.errors import LeaseLostError, StoreUnavailableError
from flotilla_runtime.agent.journal import Done, Entry, Intended
from flotilla_runtime.agent.loop import Act, Brief, Call, End, Situation, next_action
from flotilla_runtime.agent.protocols import Finish, TaskJournal
from flotilla_runtime.agent.tasks import Claim, LoadedTask


class Calls(Protocol):
    """Makes the calls of the loop."""

    async def make(self, call: Call, session: Session) -> Reply:
        """Make one call."""


class Interrupt(StrEnum):
    """Why a run is interrupted."""

    CANCEL = "Cancel"
    LEAVE = "Leave"
    LOST = "Lost"


class RunOutcome(StrEnum):
    """How a run ended for the worker."""

    ENDED = "Ended"
    HANDED_OVER = "HandedOver"
    LOST = "Lost"


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """The two clocks of a run: a monotonic one in seconds, and the time of day in milliseconds."""

    monotonic_seconds: Callable[[], float]
    wall_ms: Callable[[], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What every run of a worker uses: the worker's name, the journal, the calls and the clocks."""

    worker: str
    journal: TaskJournal
    calls: Calls
    clock: Clock


class TaskRun:
    """One run of one task by one worker."""

    def __init__(self, claim: Claim, task: LoadedTask, brief: Brief, means: Means) -> None:
        self.claim: Final = claim
        self._brief = brief
        self._worker = means.worker
        self._journal = means.journal
        self._calls = means.calls
        self._clock = means.clock
        self._session = Session(task_id=claim.id, priority=task.record.priority)
        self._entries: list[Entry] = list(task.entries)
        self._elapsed_before = task.elapsed_seconds
        self._started = means.clock.monotonic_seconds()
        self._cancel_requested = task.record.cancel_requested
        self._leaving = False
        self._interrupted = asyncio.Event()
        self._lost = False
        self._time_is_up = False
        self._writing = asyncio.Lock()

    @property
    def elapsed_seconds(self) -> float:
        """How long the task has been running, including earlier workers."""
        return self._elapsed_before + self._clock.monotonic_seconds() - self._started

    def interrupt(self, reason: Interrupt) -> None:
        """Stop the calls in flight, for this reason."""
        match reason:
            case Interrupt.CANCEL:
                self._cancel_requested = True
            case Interrupt.LEAVE:
                self._leaving = True
            case Interrupt.LOST:
                self._lost = True
        self._interrupted.set()

    def leave_after_this_turn(self) -> None:
        """Hand the task over when the calls in flight are done."""
        self._leaving = True

    async def run(self) -> RunOutcome:
        """Run the task until it ends, is handed over, or belongs to another worker."""
        try:
            return await self._turns()
        except (LeaseLostError, StoreUnavailableError):
            return RunOutcome.LOST

    async def _turns(self) -> RunOutcome:
        while not self._lost:
            story = stories.read(self._entries)
            action = next_action(story, self._brief, self._situation())
            if isinstance(action, End):
                await self._journal.finish(self.claim, finish_of(action, story))
                return RunOutcome.ENDED
            if self._leaving:
                await self._journal.release(self.claim, self._worker)
                return RunOutcome.HANDED_OVER
            await self._act(action)
        return RunOutcome.LOST

    def _situation(self) -> Situation:
        """The situation for the loop. Once a timer has fired, the time limit counts as reached, because a
        timer may fire a moment early.
        """
        limit = self._brief.limits.max_wall_seconds if self._time_is_up else 0.0
        return Situation(
            elapsed_seconds=max(limit, self.elapsed_seconds), cancel_requested=self._cancel_requested
        )

    async def _act(self, act: Act) -> None:
        """Write the intents, make the calls at the same time, and write each result as it arrives."""
        now = self._clock.wall_ms()
        await self._write(
            [
                Intended(
                    at=now,
                    call=call.id,
                    kind=call.kind,
                    target=call.target,
                    step=act.step,
                    reserved_tokens=call.reserved_tokens,
                    reserved_steps=int(place == 0),
                )
                for place, call in enumerate(act.calls)
            ]
        )
        try:
            async with asyncio.TaskGroup() as group:
                for call in act.calls:
                    group.create_task(self._one(call))
        except* (LeaseLostError, StoreUnavailableError):
            self._lost = True

    async def _one(self, call: Call) -> None:
        started = self._clock.monotonic_seconds()
        reply = await self._reply_or_none(call)
        if reply is None:
            return
        done = Done(
            at=self._clock.wall_ms(),
            call=call.id,
            outcome=reply.outcome,
            took_ms=round((self._clock.monotonic_seconds() - started) * 1000),
            value=reply.value,
            generation=reply.generation,
            input_tokens=reply.input_tokens,
            output_tokens=reply.output_tokens,
            tries=reply.tries,
            problem=reply.problem,
        )
        await self._write([done])

    async def _reply_or_none(self, call: Call) -> Reply | None:
        """The reply, or None when the run is interrupted or its time ends before the reply arrives."""
        if self._interrupted.is_set():
            return None
        left = self._brief.limits.max_wall_seconds - self.elapsed_seconds
        making = asyncio.ensure_future(self._calls.make(call, self._session))
        interruption = asyncio.ensure_future(self._interrupted.wait())
        try:
            await asyncio.wait(
                {making, interruption}, timeout=max(0.0, left), return_when=asyncio.FIRST_COMPLETED
            )
            if making.done():
                return making.result()
            self._time_is_up = self._time_is_up or not self._interrupted.is_set()
            return None
        finally:
            interruption.cancel()
            making.cancel()
            await asyncio.gather(making, interruption, return_exceptions=True)

    async def _write(self, entries: list[Entry]) -> None:
        async with self._writing:
            written = await self._journal.append(self.claim, len(self._entries), entries)
            self._entries.extend(entries)
        if written.cancel_requested and not self._cancel_requested:
            self.interrupt(Interrupt.CANCEL)


def finish_of(end: End, story: stories.Story) -> Finish:
    """How a task ends, for the store."""
    return Finish(
        status=end.status,
        reason=end.reason,
        message=end.message,
        result=end.result,
        partial=end.partial,
        busy_ms=story.busy_ms(),
        calls={},
    )
