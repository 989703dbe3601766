"""The calls that somebody outside answers: approvals, which a person decides on, and signals.

Such a call has an intent with the time until which it waits. What came for it is in the store, aside from the
journal, so it may come at any time: while the task runs other calls, is suspended, or has no worker. The run
looks for it and writes it as the call's result. So nothing is asked twice, and no signal is taken twice.
"""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from flotilla_runtime.agent.engine.entries import Wanted, done_of, intent_of
from flotilla_runtime.agent.engine.history import PastCall
from flotilla_runtime.agent.engine.pace import LOOK_SECONDS, Pace
from flotilla_runtime.agent.engine.recording import Recording
from flotilla_runtime.agent.engine.reserving import Reserving
from flotilla_runtime.agent.engine.stops import Parked
from flotilla_runtime.agent.journal import APPROVALS, CallKind, CallOutcome, Done, Intended, WaitKind
from flotilla_runtime.agent.protocols import Came, Reply, TaskJournal
from flotilla_runtime.agent.tasks import Claim

SOON_SECONDS: Final = 0.05  # after the end of a wait, which Redis' clock may not have reached yet
WAITS: Final[Mapping[CallKind, WaitKind]] = {
    CallKind.APPROVE: WaitKind.APPROVAL,
    CallKind.APPROVE_AGAIN: WaitKind.APPROVAL,
    CallKind.SIGNAL: WaitKind.SIGNAL,
}
NOBODY: Final[Mapping[CallKind, str]] = {
    CallKind.APPROVE: "nobody decided in time",
    CallKind.APPROVE_AGAIN: "nobody decided in time",
    CallKind.SIGNAL: "no such signal came in time",
}


class Outside:
    """The calls of one run that somebody outside answers: approvals and signals."""

    def __init__(
        self, claim: Claim, journal: TaskJournal, pace: Pace, recording: Recording, reserving: Reserving
    ) -> None:
        self._claim = claim
        self._journal = journal
        self._pace = pace
        self._recording = recording
        self._reserving = reserving
        self._taken: set[str] = set()  # the signals that calls of this run have taken

    async def answered(self, wanted: Wanted, past: PastCall | None, milliseconds: int) -> Done:
        """The result of a call that somebody outside answers, at the latest after this time."""
        await self._pace.may_begin()
        intent = past.intent if past else self._asked(wanted, milliseconds)
        self._reserving.hold(intent)
        with self._reserving.giving_up(wanted.id):
            if past is None:
                await self._recording.write(intent)
            done = await self._result(intent)
        await self._reserving.ended(wanted.id)
        await self._recording.write(done)
        return done

    def _asked(self, wanted: Wanted, milliseconds: int) -> Intended:
        now = self._pace.now_ms()
        return intent_of(wanted, now, self._reserving.step(wanted), until=now + milliseconds)

    async def _result(self, intent: Intended) -> Done:
        """The result of a call whose intent is in the journal, not written yet."""
        came = await self._look(intent)
        if came is None:
            waits = Parked(kind=WAITS[intent.kind], call=intent.call, until=intent.until)
            with self._pace.waiting(waits):
                came = await self._later(intent)
        now = self._pace.now_ms()
        return done_of(intent.call, now, reply_of(intent.kind, came), now - intent.at, came.signal)

    async def _later(self, intent: Intended) -> Came:
        while True:
            left = ((intent.until or 0) - self._pace.now_ms()) / 1000
            await asyncio.sleep(max(SOON_SECONDS, min(LOOK_SECONDS, left)))
            if (came := await self._look(intent)) is not None:
                return came

    async def _look(self, intent: Intended) -> Came | None:
        """Return the answer, None for none yet; of two calls that look for one signal, one looks again."""
        while True:
            came = await self._journal.came(self._claim, intent.call, tuple(self._taken))
            if came is None or came.signal is None:
                return came
            if came.signal not in self._taken:
                self._taken.add(came.signal)
                return came


def reply_of(kind: CallKind, came: Came) -> Reply:
    """The result of a call that was answered from outside, or that nobody answered in time."""
    if came.is_late:
        return Reply(outcome=CallOutcome.TIMED_OUT, problem=NOBODY[kind])
    if kind in APPROVALS and not came.value["approved"]:
        return Reply(outcome=CallOutcome.REFUSED, value=came.value, problem=refusal_of(came.value))
    return Reply(outcome=CallOutcome.SUCCEEDED, value=came.value)


def refusal_of(decision: Mapping[str, Any]) -> str:
    """A refusal in words, as the model reads it."""
    said = f": {decision['comment']}" if decision.get("comment") else ""
    return f"{decision['by']} refused it{said}"
