"""How each call of an agent comes to its result: from the journal, or made now and written.

The agent runs from its beginning after each crash. A call whose result stands in the journal gets it at once
(recalling.py). Any other one writes its intent, is made, and writes its result (recording.py). When calls
begin, and when the run stops, is in pace.py; what they reserve, in reserving.py; what patterns decide, in
branches.py.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final, Never

from flotilla_runtime.agent.engine.checkpoints import Checkpoints
from flotilla_runtime.agent.engine.children import Children
from flotilla_runtime.agent.engine.effects import Effects
from flotilla_runtime.agent.engine.entries import Wanted, call_of, done_of, intent_of
from flotilla_runtime.agent.engine.figures import CallFigures
from flotilla_runtime.agent.engine.history import History, PastCall
from flotilla_runtime.agent.engine.outside import Outside
from flotilla_runtime.agent.engine.pace import Pace, never
from flotilla_runtime.agent.engine.recalling import Recall
from flotilla_runtime.agent.engine.recording import Recording
from flotilla_runtime.agent.engine.reserving import Reserving
from flotilla_runtime.agent.engine.stops import Parked
from flotilla_runtime.agent.engine.writer import Writer
from flotilla_runtime.agent.journal import CallKind, CallOutcome, Done, Intended, Resolved, WaitKind
from flotilla_runtime.agent.patterns.values import OnPattern, unheard
from flotilla_runtime.agent.protocols import Call, Calls, Certainty, Reply, Session, TaskJournal
from flotilla_runtime.agent.tasks import Claim
from flotilla_runtime.contract import Effect

APPROVAL_SECONDS: Final = 86_400.0  # in which somebody decides on a call of a tool
APPROVAL_MS: Final = round(APPROVAL_SECONDS * 1000)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """The settings of a run, besides its task.

    `now_ms` is Redis' time, counted on by a clock that does not jump. A run that `is_unwinding` makes the
    compensations of a task that has come to its end already, so a cancellation does not stop it.
    """

    now_ms: Callable[[], int]
    unknown_effect_seconds: float
    conversation: str | None = None  # whose graph goes on where the task before it ended
    on_pattern: OnPattern = unheard
    is_unwinding: bool = False


class Engine:
    """The calls of one run."""

    def __init__(
        self,
        *,
        history: History,
        writer: Writer,
        claim: Claim,
        journal: TaskJournal,
        calls: Calls,
        session: Session,
        settings: RunSettings,
    ) -> None:
        self.pace: Final = Pace(settings.now_ms)
        self.figures: Final = CallFigures(history.calls.values())
        self.on_pattern: Final = settings.on_pattern
        self.recall: Final = Recall(history, journal, session.task_id, self.pace)
        self.recording: Final = Recording(writer, self.pace, heeds_cancellation=not settings.is_unwinding)
        self.must_unwind = any(call.intent.kind is CallKind.COMPENSATE for call in history.calls.values())
        self.reserving: Final = Reserving(
            calls, session, writer, self.recording, self.pace, self.figures, steps=history.steps
        )
        self.checkpoints: Final = Checkpoints(claim, journal, self.pace, settings.conversation)
        self._calls = calls
        self._session = session
        self._effects = Effects(
            calls,
            session,
            self.recording,
            self.pace,
            settings.unknown_effect_seconds,
            ends_task=not settings.is_unwinding,
        )
        self._outside = Outside(claim, journal, self.pace, self.recording, self.reserving)
        self.children: Final = Children(
            session.task_id, journal, self.pace, self.recall, self.recording, self.reserving
        )

    async def close(self) -> None:
        """Cancel the calls that are still under way."""
        self.children.close()
        await self.pace.close()

    # What an agent may await

    async def call(self, wanted: Wanted) -> Done:
        """The result of a call of a model, an index or a tool."""
        past = self.recall.known(wanted)
        if (known := await self.recall.result(past)) is not None:
            return known
        return await self.pace.guarded(self._new(wanted, past))

    async def note(
        self,
        wanted: Wanted,
        draw: Callable[[], Any] | None,
        outcome: CallOutcome = CallOutcome.SUCCEEDED,
        problem: str | None = None,
    ) -> Done:
        """A call that needs nobody, so its intent and its result are one write; `draw` gives its value."""
        if (known := await self.recall.result(self.recall.known(wanted))) is not None:
            return known
        return await self.pace.guarded(self._noted(wanted, draw, outcome, problem))

    async def sleep(self, wanted: Wanted, seconds: float) -> None:
        """Wait until a timer rings, which was set when the call was made for the first time."""
        past = self.recall.known(wanted)
        if await self.recall.result(past) is None:
            await self.pace.guarded(self._slept(wanted, past, round(seconds * 1000)))

    async def outside(self, wanted: Wanted, seconds: float) -> Done:
        """The result of a call that somebody outside answers, at the latest after this time."""
        past = self.recall.known(wanted)
        if (known := await self.recall.result(past)) is not None:
            return known
        milliseconds = round(max(0.0, seconds) * 1000)
        return await self.pace.guarded(self._outside.answered(wanted, past, milliseconds))

    async def state(self, wanted: Wanted) -> Done:
        """The result of an access to the state."""
        if (known := await self.recall.result(self.recall.known(wanted))) is not None:
            return known
        return await self.pace.guarded(self._stated(wanted))

    async def spawn(self, wanted: Wanted, child_input: str) -> Done:
        """The end of a spawned task."""
        past = self.recall.known(wanted)
        if (known := await self.recall.result(past)) is not None:
            return known
        return await self.pace.guarded(self.children.ended(wanted, past, child_input))

    # How they come to their results

    async def _new(self, wanted: Wanted, past: PastCall | None) -> Done:
        await self.pace.may_begin()
        was_unsafe = past is not None and past.intent.effect is Effect.UNSAFE
        effect = Effect.UNSAFE if was_unsafe else wanted.effect
        asked = replace(call_of(wanted, self._session.task_id, effect), was_begun=past is not None)
        if past is not None and effect is Effect.UNSAFE:
            known = await self._known_or_allowed(asked, wanted, past)
            if known is not None:
                return known
        with self.reserving.giving_up(wanted.id):
            call = await self.reserving.begin(asked, wanted, past)
            started = self.pace.now_ms()
            reply = await self._calls.make(replace(call, goes_on=self.pace.goes_on), self._session)
            took_ms = self.pace.now_ms() - started + (call.waited_ms or 0)
            entries = await self._outcome(call, reply, took_ms)
        intent = await self.reserving.ended(wanted.id)
        await self.recording.write(*entries)
        self.figures.count(intent, entries[-1])
        return entries[-1]

    async def _known_or_allowed(self, call: Call, wanted: Wanted, past: PastCall) -> Done | None:
        """The result of an Unsafe call that was begun before; None where it may be made again."""
        who = None
        if past.done is None:
            settled = await self._effects.settled(call, await self.recall.told(past))
            if isinstance(settled, Done):
                return settled
            who = settled.by
        approval = wanted.asked_anew(past, who) if wanted.asked_anew is not None else None
        if approval is None:
            return None
        before = self.recall.known(approval)
        decided = await self.recall.result(before)
        decided = decided or await self._outside.answered(approval, before, APPROVAL_MS)
        if decided.outcome is CallOutcome.SUCCEEDED:
            await self.pace.may_begin()
            return None
        reply = Reply(outcome=decided.outcome, problem=f"not called again: {decided.problem}")
        done = done_of(call.id, self.pace.now_ms(), reply)
        await self.recording.write(done)
        return done

    async def _outcome(self, call: Call, reply: Reply, took_ms: int) -> tuple[Done] | tuple[Resolved, Done]:
        """Return the entries that a reply adds to the journal; the result is last."""
        if reply.certainty is Certainty.NOT_BEGUN:
            return await self._by_another_worker(call)
        if reply.certainty is Certainty.UNKNOWN and call.effect is Effect.UNSAFE:
            intent = self.reserving.newest(call.id)
            if intent is None:
                return await never()  # a pattern has given the call up
            return await self._effects.of_reply(call, intent, reply, took_ms)
        return (done_of(call.id, self.pace.now_ms(), reply, took_ms),)

    async def _by_another_worker(self, call: Call) -> Never:
        """Hand the task over, once its other calls have ended: this worker could not begin the call."""
        await self.reserving.ended(call.id)
        if call.effect is Effect.UNSAFE:
            await self._effects.not_begun(call)
        self.pace.leave()
        await self.pace.may_begin()
        await never()

    async def _noted(
        self, wanted: Wanted, draw: Callable[[], Any] | None, outcome: CallOutcome, problem: str | None
    ) -> Done:
        await self.pace.may_begin()
        self.must_unwind = self.must_unwind or wanted.kind is CallKind.COMPENSATE
        reply = Reply(outcome=outcome, value=draw() if draw is not None else None, problem=problem)
        done = done_of(wanted.id, self.pace.now_ms(), reply)
        await self.recording.write(intent_of(wanted, self.pace.now_ms(), self.reserving.step(wanted)), done)
        await self.pace.not_barred()
        return done

    async def _slept(self, wanted: Wanted, past: PastCall | None, milliseconds: int) -> None:
        await self.pace.may_begin()
        intent = past.intent if past else self._alarm(wanted, milliseconds)
        self.reserving.hold(intent)
        with self.reserving.giving_up(wanted.id):
            if past is None:
                await self.recording.write(intent)
            with self.pace.waiting(Parked(kind=WaitKind.TIMER, call=wanted.id, until=intent.until)):
                await asyncio.sleep(max(0, (intent.until or 0) - self.pace.now_ms()) / 1000)
        await self.reserving.ended(wanted.id)
        reply = Reply(outcome=CallOutcome.SUCCEEDED)
        await self.recording.write(done_of(wanted.id, self.pace.now_ms(), reply, milliseconds))

    def _alarm(self, wanted: Wanted, milliseconds: int) -> Intended:
        now = self.pace.now_ms()
        return intent_of(wanted, now, self.reserving.step(wanted), until=now + milliseconds)

    async def _stated(self, wanted: Wanted) -> Done:
        await self.pace.may_begin()
        intent = intent_of(wanted, self.pace.now_ms(), self.reserving.step(wanted), effect=wanted.effect)
        done = await self.recording.state(intent, wanted.request)
        await self.pace.not_barred()
        return done
