"""The calls that somebody outside answers: approvals, which a person decides on, and signals.

Such a call has an intent with the time until which it waits. What came for it is in the store, aside from the
journal, so it may come at any time: while the task runs other calls, is suspended, or has no worker. The run
looks for it and writes it as the call's result. So nothing is asked twice, and no signal is taken twice.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from flotilla_runtime.agent.engine.entries import done_of
from flotilla_runtime.agent.engine.pace import Pace
from flotilla_runtime.agent.engine.stops import Parked
from flotilla_runtime.agent.journal import CallKind, CallOutcome, Done, Intended, WaitKind
from flotilla_runtime.agent.protocols import Came, Reply, TaskJournal
from flotilla_runtime.agent.tasks import Claim

LOOK_SECONDS: Final = 1.0  # between two looks, while other calls of the run keep it from being suspended
SOON_SECONDS: Final = 0.05  # after the end of a wait, which Redis' clock may not have reached yet
WAITS: Final[Mapping[CallKind, WaitKind]] = {
    CallKind.APPROVE: WaitKind.APPROVAL,
    CallKind.SIGNAL: WaitKind.SIGNAL,
}
NOBODY: Final[Mapping[CallKind, str]] = {
    CallKind.APPROVE: "nobody decided in time",
    CallKind.SIGNAL: "no such signal came in time",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outside:
    """What comes from outside for one run. `taken` are the signals that its calls have taken."""

    claim: Claim
    journal: TaskJournal
    pace: Pace
    now_ms: Callable[[], int]
    taken: set[str]

    async def result(self, intent: Intended) -> Done:
        """The result of a call whose intent is in the journal, not written yet."""
        came = await self._look(intent)
        if came is None:
            waits = Parked(kind=WAITS[intent.kind], call=intent.call, until=intent.until)
            with self.pace.waiting(waits):
                came = await self._later(intent)
        return done_of(
            intent.call, self.now_ms(), reply_of(intent.kind, came), self.now_ms() - intent.at, came.signal
        )

    async def _later(self, intent: Intended) -> Came:
        while True:
            left = ((intent.until or 0) - self.now_ms()) / 1000
            await asyncio.sleep(max(SOON_SECONDS, min(LOOK_SECONDS, left)))
            if (came := await self._look(intent)) is not None:
                return came

    async def _look(self, intent: Intended) -> Came | None:
        """What has come; of two calls that look for the same signal at once, one looks again."""
        while True:
            came = await self.journal.came(self.claim, intent.call, tuple(self.taken))
            if came is None or came.signal is None:
                return came
            if came.signal not in self.taken:
                self.taken.add(came.signal)
                return came


def reply_of(kind: CallKind, came: Came) -> Reply:
    """What came, as the result of the call."""
    if came.is_late:
        return Reply(outcome=CallOutcome.TIMED_OUT, problem=NOBODY[kind])
    if kind is CallKind.APPROVE and not came.value["approved"]:
        return Reply(outcome=CallOutcome.REFUSED, value=came.value, problem=refusal_of(came.value))
    return Reply(outcome=CallOutcome.SUCCEEDED, value=came.value)


def refusal_of(decision: Mapping[str, Any]) -> str:
    """A refusal in words, as the model reads it."""
    said = f": {decision['comment']}" if decision.get("comment") else ""
    return f"{decision['by']} refused it{said}"
