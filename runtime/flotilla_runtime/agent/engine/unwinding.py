"""Makes the compensations of a task whose agent has come to nothing, one after another.

Each try is a call of its own in the journal, so a run that is stopped anywhere goes on where it was. The
tries of one compensation have one idempotency key. The first begins when no task that this one spawned lives:
they were cancelled when its end was noted.
"""

import asyncio
import random
from dataclasses import dataclass, replace
from typing import Final

from flotilla_runtime.agent.engine.compensations import (
    Compensation,
    ending_of,
    may_be_tried_again,
    to_make,
    with_failures,
)
from flotilla_runtime.agent.engine.endings import Ending
from flotilla_runtime.agent.engine.engine import Engine
from flotilla_runtime.agent.engine.entries import done_of
from flotilla_runtime.agent.engine.handling import Handling
from flotilla_runtime.agent.engine.history import History
from flotilla_runtime.agent.engine.using import NotApprovedError, Using
from flotilla_runtime.agent.failures import EffectUnknownError, ToolFailedError
from flotilla_runtime.agent.journal import ENDING, CallOutcome, Done, EndReason
from flotilla_runtime.agent.programs import Program
from flotilla_runtime.agent.protocols import Reply
from flotilla_runtime.backoff import Backoff

LONGEST_PAUSE_SECONDS: Final = 60.0  # for a tool that takes no calls
BACKOFF: Final = Backoff(base_seconds=0.5, limit_seconds=10)
UNREAD: Final = Ending.without_result(EndReason.INFRASTRUCTURE, "how the task was to end cannot be read")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """One try of a compensation. One that `is_new` was made by this run. None follows a final one.

    It was not made at all if the tool takes no calls for `later_seconds`.
    """

    problem: str | None = None
    is_new: bool = False
    is_final: bool = False
    later_seconds: float | None = None


class Unwinding:
    """The last runs of a task."""

    def __init__(self, engine: Engine, program: Program, history: History, handling: Handling | None) -> None:
        self._engine = engine
        self._using = Using(engine, program)
        self._history = history
        self._handling = handling
        self._left = to_make(history)
        self._failed: list[str] = []
        self._ending = UNREAD

    async def ending(self) -> Ending:
        """Make what is left to be made, and return how the task ends."""
        done = await self._engine.recall.result(self._history.calls[ENDING])
        assert done is not None
        self._ending = ending_of(done.value)
        if self._left:  # a task below this one might do again what is undone
            await self._engine.children.gone(self._history.calls.values())
        while self._left:
            problem = await self._problem_of(self._left[0])
            one = self._left.pop(0)
            if problem is not None:
                self._failed.append(f"{one.tool} ({one.id}): {problem}")
        ending = with_failures(self._ending, self._failed)
        if self._handling is not None:
            await self._handling.failed(ending, self._history.calls[ENDING].intent.at)
        return ending

    def cut_short(self, why: str) -> Ending:
        """How the task ends when it must stop here."""
        not_made = [f"{one.tool} ({one.id}): not made, because {why}" for one in self._left]
        return with_failures(self._ending, [*self._failed, *not_made])

    async def _problem_of(self, one: Compensation) -> str | None:
        """Make one compensation; why it has failed, if it has."""
        effect = self._using.wanted(one.id, one.tool, one.arguments)[0].effect
        number = 1
        while True:
            tried = await self._tried(one, number)
            later = tried.later_seconds
            may_go_on = may_be_tried_again(effect, number, was_made=later is None)
            if tried.problem is None or tried.is_final or not may_go_on:
                return tried.problem
            if tried.is_new:
                pause = BACKOFF.seconds_after(number, random.uniform)
                await asyncio.sleep(pause + min(later or 0.0, LONGEST_PAUSE_SECONDS))
            number += 1

    async def _tried(self, one: Compensation, number: int) -> Tried:
        """Make one try, or recall its result from an earlier run."""
        call = one.call_id(number)
        past = self._history.calls.get(call)
        if past is not None and past.result is not None:
            return _told(past.result)
        wanted, problem = self._using.wanted(call, one.tool, one.arguments)
        try:
            await self._using.used(replace(wanted, key=one.call_id(1)), problem)
        except NotApprovedError as refused:
            return Tried(problem=refused.problem, is_final=True)
        except ToolFailedError as failed:
            return Tried(
                problem=failed.problem,
                is_new=True,
                is_final=failed.outcome is CallOutcome.INVALID,
                later_seconds=failed.retry_after_seconds,
            )
        except EffectUnknownError as unknown:
            self._engine.reserving.end(call)
            reply = Reply(outcome=CallOutcome.FAILED, problem=str(unknown))
            await self._engine.recording.write(done_of(call, self._engine.pace.now_ms(), reply))
            return Tried(problem=str(unknown), is_new=True)
        return Tried(is_new=True)


def _told(done: Done) -> Tried:
    if done.outcome is CallOutcome.SUCCEEDED:
        return Tried()
    later = None if done.retry_after_ms is None else done.retry_after_ms / 1000
    return Tried(
        problem=done.problem or str(done.outcome),
        is_final=done.outcome is CallOutcome.INVALID,
        later_seconds=later,
    )
