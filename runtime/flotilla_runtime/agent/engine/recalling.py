"""Recalls results of calls from before this run.

What an agent asks under a known id must be what it asked before, by a hash; otherwise the task ends as
Invalid, because its code is not deterministic. Values that are kept apart are fetched when a replay comes to
them.
"""

import asyncio
from collections.abc import Awaitable, Mapping
from dataclasses import replace
from functools import cached_property
from typing import TypeVar

from flotilla_runtime.agent.engine.entries import Wanted, hash_of, refusal_of
from flotilla_runtime.agent.engine.history import History, PastCall, scopes_of
from flotilla_runtime.agent.engine.pace import Pace, never
from flotilla_runtime.agent.engine.stops import Stop, StopKind
from flotilla_runtime.agent.errors import BrokenEntryError
from flotilla_runtime.agent.failures import LimitReachedError
from flotilla_runtime.agent.journal import CallOutcome, Done, EndReason
from flotilla_runtime.agent.protocols import TaskJournal
from flotilla_runtime.contract.failure_texts import what_failed

Answer = TypeVar("Answer")


class Recall:
    """The calls that a run finds in its journal."""

    def __init__(self, history: History, journal: TaskJournal, task_id: str, pace: Pace) -> None:
        self._history = history
        self._journal = journal
        self._task_id = task_id
        self._pace = pace
        self._asked_anew: set[str] = set()  # the scopes of calls that have no result yet

    @cached_property
    def began_at(self) -> Mapping[str, int]:
        """When the first call within each scope was made by an earlier run."""
        return self._history.began_at()

    def is_whole(self, scope: str) -> bool:
        """Whether an earlier run made all calls of a scope that the agent has asked for until now."""
        return scope in self.began_at and scope not in self._asked_anew

    def has_begun(self, call_id: str) -> bool:
        """Whether the journal has the intent of this call."""
        return call_id in self._history.calls

    def known(self, wanted: Wanted) -> PastCall | None:
        """The call that the agent asks for, as an earlier run made it."""
        if self._pace.stopped.done():
            raise asyncio.CancelledError
        past = self._history.calls.get(wanted.id)
        if past is None or past.result is None:
            self._asked_anew.update(scopes_of(wanted.id))
        if past is None:
            return None
        intent = past.intent
        if intent.kind is wanted.kind and intent.arguments_hash in (None, hash_of(wanted.hashed)):
            return past
        message = (
            f"the agent is not deterministic: when the task was resumed, the call {wanted.id} asked for "
            f"something else ({wanted.kind} {wanted.target}) than in the journal ({intent.kind} "
            f"{intent.target}); take time and chance from ctx.now() and ctx.random(), and give each parallel "
            "branch a scope of its own"
        )
        self._pace.stop(Stop(kind=StopKind.END, reason=EndReason.INVALID, message=message))
        raise asyncio.CancelledError

    async def result(self, past: PastCall | None) -> Done | None:
        """The result that a call has in the journal, with its value; None if the call is to be made.

        One that the agent gave up gives nothing again. Raises LimitReachedError if a limit refused it.
        """
        if past is None or past.result is None:
            return None
        if past.result.outcome is CallOutcome.CANCELLED:
            return await never()
        done = await self._whole(past.result)
        if done.outcome is CallOutcome.LIMIT_REACHED:
            raise LimitReachedError(refusal_of(done))
        return done

    async def told(self, past: PastCall) -> PastCall:
        """A call with what was said of it, which may be kept apart."""
        if past.resolved is None or past.resolved.payload is None:
            return past
        fetched = self._journal.whole(self._task_id, past.resolved)
        return replace(past, resolved=await self.readable(fetched))

    async def readable(self, asked: Awaitable[Answer]) -> Answer:
        """Return what was read from the store; end the task where that is broken or gone."""
        try:
            return await asked
        except BrokenEntryError as problem:
            self._pace.stop(
                Stop(kind=StopKind.END, reason=EndReason.INFRASTRUCTURE, message=what_failed(problem))
            )
            return await never()

    async def _whole(self, done: Done) -> Done:
        if done.payload is None:
            return done
        return await self._pace.guarded(self.readable(self._journal.whole(self._task_id, done)))
