"""Resolves Unsafe calls that have an intent and no result: none is made again before it is resolved.

Their worker was lost, or the other side gave no answer after the call was sent.
"""

import asyncio
from dataclasses import replace
from typing import Final, Never

import structlog

from flotilla_runtime.agent.engine.entries import done_of
from flotilla_runtime.agent.engine.history import PastCall
from flotilla_runtime.agent.engine.pace import Pace, never
from flotilla_runtime.agent.engine.recording import Recording
from flotilla_runtime.agent.engine.stops import Parked, Stop, StopKind
from flotilla_runtime.agent.failures import EffectUnknownError
from flotilla_runtime.agent.journal import (
    BY_RECONCILE,
    BY_WORKER,
    CallOutcome,
    Done,
    EndReason,
    Intended,
    Resolved,
    WaitKind,
)
from flotilla_runtime.agent.protocols import Call, Calls, Reconciled, Reply, Session

DID_NOT_HAPPEN: Final = "; the tool's reconcile says that it did not happen"

log = structlog.get_logger(__name__)


class Effects:
    """The unknown effects of one run."""

    def __init__(
        self,
        calls: Calls,
        session: Session,
        recording: Recording,
        pace: Pace,
        unknown_effect_seconds: float,
        *,
        ends_task: bool = True,
    ) -> None:
        self._calls = calls
        self._session = session
        self._recording = recording
        self._pace = pace
        self._unknown_effect_seconds = unknown_effect_seconds
        self._ends_task = ends_task

    async def settled(self, call: Call, past: PastCall) -> Done | Resolved:
        """The result of an Unsafe call that may have happened; or who says that it did not."""
        resolved = past.resolved
        if resolved is None:
            known = await self._calls.reconcile(call, self._session)
            if known is not None and known.reply is not None:
                done = done_of(call.id, self._pace.now_ms(), known.reply)
                await self._recording.write(done)
                return done
            resolved = await self._resolved(call, past.intent, known)
            if not resolved.happened:
                await self._recording.write(resolved)
        if not resolved.happened:
            return resolved
        reply = Reply(outcome=CallOutcome.SUCCEEDED, value=resolved.result)
        done = done_of(call.id, self._pace.now_ms(), reply)
        await self._recording.write(*([done] if past.resolved else [resolved, done]))
        return done

    async def of_reply(
        self, call: Call, intent: Intended, reply: Reply, took_ms: int
    ) -> tuple[Resolved, Done]:
        """Return the entries for an Unsafe call whose reply does not say whether it happened.

        One that did not happen has failed: the agent decides whether it calls the tool again.
        """
        log.warning("effect_unknown", call=call.id, tool=call.target, problem=reply.problem)
        resolved = await self._reconciled(call, intent)
        if resolved.happened:
            reply = Reply(outcome=CallOutcome.SUCCEEDED, value=resolved.result, tries=reply.tries)
        else:
            reply = replace(reply, problem=f"{reply.problem}{DID_NOT_HAPPEN}")
        return resolved, done_of(call.id, self._pace.now_ms(), reply, took_ms)

    async def not_begun(self, call: Call) -> None:
        """Write that an Unsafe call was not begun, so the next worker makes it."""
        now = self._pace.now_ms()
        await self._recording.write(Resolved(at=now, call=call.id, happened=False, by=BY_WORKER))

    async def _reconciled(self, call: Call, intent: Intended) -> Resolved:
        """Ask the tool's `reconcile`; if it does not know, wait for somebody who does."""
        return await self._resolved(call, intent, await self._calls.reconcile(call, self._session))

    async def _resolved(self, call: Call, intent: Intended, known: Reconciled | None) -> Resolved:
        if known is None:
            return await self._unknown(intent)
        return Resolved(
            at=self._pace.now_ms(),
            call=call.id,
            happened=known.happened,
            by=BY_RECONCILE if known.was_begun else BY_WORKER,
            result=known.result if known.happened else None,
        )

    async def _unknown(self, intent: Intended) -> Never:
        """Wait for somebody who says whether the call happened; end the task if nobody does in time.

        A run that compensates goes on instead: this then raises EffectUnknownError.
        """
        until = intent.at + round(self._unknown_effect_seconds * 1000)
        with self._pace.waiting(Parked(kind=WaitKind.EFFECT, call=intent.call, until=until)):
            await asyncio.sleep(max(0, until - self._pace.now_ms()) / 1000)
        message = (
            f"it is not known whether the call {intent.call} of {intent.target} happened, and nobody said "
            f"so within recovery.unknownEffectSeconds ({self._unknown_effect_seconds:g} s)"
        )
        if not self._ends_task:
            raise EffectUnknownError(message)
        self._pace.stop(Stop(kind=StopKind.END, reason=EndReason.UNKNOWN_EFFECT, message=message))
        await never()
