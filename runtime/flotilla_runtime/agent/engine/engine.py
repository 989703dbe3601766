"""How each call of an agent comes to its result: from the journal, or made now and written.

The agent runs from its beginning after each crash. A call whose result stands in the journal gets it at once.
Any other one writes its intent, is made, and writes its result. What an agent asks under a known id must be
what it asked before, by a hash; otherwise the task ends as Invalid, because its code is not deterministic.
When they begin, and when the run stops, is in pace.py; what they reserve, in reserving.py.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, Final, Never, TypeVar

from flotilla_runtime.agent.budgets import LimitName, Refusal
from flotilla_runtime.agent.engine.children import ChildWatch
from flotilla_runtime.agent.engine.effects import Effects, RunSettings
from flotilla_runtime.agent.engine.entries import (
    Wanted,
    call_of,
    done_of,
    hash_of,
    intent_of,
    refusal_of,
    reply_of,
)
from flotilla_runtime.agent.engine.history import PARTS, History, PastCall, part_of
from flotilla_runtime.agent.engine.outside import Outside
from flotilla_runtime.agent.engine.pace import CANCELLED, SETTLE_SECONDS, Pace, never
from flotilla_runtime.agent.engine.reserving import (
    FIRST_PAUSE_SECONDS,
    LONGEST_PAUSE_SECONDS,
    Reserving,
    heard,
)
from flotilla_runtime.agent.engine.stops import Parked, Stop, StopKind
from flotilla_runtime.agent.engine.writer import Writer
from flotilla_runtime.agent.errors import BrokenEntryError
from flotilla_runtime.agent.failures import LimitReachedError
from flotilla_runtime.agent.journal import CallOutcome, Done, EndReason, Intended, Resolved, WaitKind
from flotilla_runtime.agent.protocols import Call, Calls, Certainty, Reply, Session, TaskJournal
from flotilla_runtime.agent.tasks import Claim, child_id
from flotilla_runtime.contract import Effect

Answer = TypeVar("Answer")


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
        self.busy_ms: Final = history.busy_ms()
        self.counts: Final = history.counts()
        self.on_pattern: Final = settings.on_pattern
        self._history = history
        self._writer = writer
        self._journal = journal
        self._calls = calls
        self._session = session
        self._settings = settings
        self._effects = Effects(calls, session, settings, self.pace, self._write)
        self._children = ChildWatch(journal)
        self._reserving = Reserving(
            calls,
            session,
            writer,
            self.pace,
            write=self._write,
            now_ms=settings.now_ms,
            steps=history.steps,
        )
        self._outside = Outside(
            claim=claim,
            journal=journal,
            pace=self.pace,
            now_ms=settings.now_ms,
            taken=set(),
        )

    def now_ms(self) -> int:
        """The time, in milliseconds since the epoch."""
        return self._settings.now_ms()

    async def close(self) -> None:
        """Cancel the calls that are still under way."""
        self._children.close()
        await self.pace.close()

    # What an agent may await

    async def call(self, wanted: Wanted) -> Done:
        """The result of a call of a model, an index or a tool."""
        past = self._known(wanted)
        if past is not None and past.result is not None:
            if past.result.outcome is CallOutcome.CANCELLED:
                return await never()
            return _allowed(await self._whole(past.result))
        return await self.pace.guarded(self._new(wanted, past))

    async def note(
        self,
        wanted: Wanted,
        draw: Callable[[], Any] | None,
        outcome: CallOutcome = CallOutcome.SUCCEEDED,
        problem: str | None = None,
    ) -> Done:
        """A call that needs nobody, so its intent and its result are one write; `draw` gives its value."""
        past = self._known(wanted)
        if past is not None and past.result is not None:
            return past.result
        return await self.pace.guarded(self._noted(wanted, draw, outcome, problem))

    def has_begun(self, call_id: str) -> bool:
        """Whether the journal has the intent of this call."""
        return call_id in self._history.calls

    async def sleep(self, wanted: Wanted, seconds: float) -> None:
        """Wait until a timer rings, which was set when the call was made for the first time."""
        past = self._known(wanted)
        if past is None or past.result is None:
            await self.pace.guarded(self._slept(wanted, past, round(seconds * 1000)))

    async def outside(self, wanted: Wanted, seconds: float) -> Done:
        """The result of a call that somebody outside answers, at the latest after this time."""
        past = self._known(wanted)
        if past is not None and past.result is not None:
            return past.result if past.result.outcome is not CallOutcome.CANCELLED else await never()
        return await self.pace.guarded(self._answered_outside(wanted, past, round(max(0.0, seconds) * 1000)))

    async def state(self, wanted: Wanted) -> Done:
        """The result of an access to the state."""
        past = self._known(wanted)
        if past is not None and past.result is not None:
            return past.result
        return await self.pace.guarded(self._stated(wanted))

    async def spawn(self, wanted: Wanted, child_input: str) -> Done:
        """The end of a spawned task."""
        past = self._known(wanted)
        if past is not None and past.result is not None:
            return _allowed(await self._whole(past.result))
        return await self.pace.guarded(self._spawned(wanted, past, child_input))

    def _known(self, wanted: Wanted) -> PastCall | None:
        if self.pace.stopped.done():
            raise asyncio.CancelledError
        past = self._history.calls.get(wanted.id)
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
        self.pace.stop(Stop(kind=StopKind.END, reason=EndReason.INVALID, message=message))
        raise asyncio.CancelledError

    async def _whole(self, done: Done) -> Done:
        """A result of the journal with its value, which is fetched now if it is kept apart."""
        if done.payload is None:
            return done
        fetched = self._journal.whole(self._session.task_id, done)
        return await self.pace.guarded(self._readable(fetched))

    async def _told(self, past: PastCall) -> PastCall:
        """A call of the past with what was said of it, which may be kept apart."""
        if past.resolved is None or past.resolved.payload is None:
            return past
        fetched = self._journal.whole(self._session.task_id, past.resolved)
        return replace(past, resolved=await self._readable(fetched))

    async def _readable(self, asked: Awaitable[Answer]) -> Answer:
        try:
            return await asked
        except BrokenEntryError as problem:
            self.pace.stop(Stop(kind=StopKind.END, reason=EndReason.INFRASTRUCTURE, message=str(problem)))
            return await never()

    # What a pattern decides

    async def chosen(self, wanted: Wanted) -> Done | None:
        """What was chosen under this id, if it stands in the journal."""
        past = self._known(wanted)
        return None if past is None or past.result is None else await self._whole(past.result)

    def choose(
        self, wanted: Wanted, value: Any, losers: Collection[str], *, is_given_up: bool = False
    ) -> "asyncio.Future[Refusal | None]":
        """Write a choice, and in the same write that the calls in the losers' scopes are given up.

        The write is on its way when this returns, so the losers may be cancelled at once.
        """
        outcome = CallOutcome.CANCELLED if is_given_up else CallOutcome.SUCCEEDED
        done = done_of(wanted.id, self.now_ms(), Reply(outcome=outcome, value=value))
        intent = intent_of(wanted, self.now_ms(), self._reserving.step(wanted))
        written = self._writer.hand_in(intent, done, *self._reserving.losses(losers))
        written.add_done_callback(heard)
        return written

    async def confirmed(self, written: "asyncio.Future[Refusal | None]") -> None:
        """Return when a choice stands in the journal."""
        refused = await self.pace.guarded(asyncio.shield(written))
        if refused is not None:
            await self._end_for_want_of_room(refused)
        await self.pace.not_barred()

    def give_up_within(self, scopes: Collection[str]) -> None:
        """Note that the calls in these scopes are given up, also those that are open since another run."""
        if losses := self._reserving.losses(scopes):
            self._writer.hand_in(*losses).add_done_callback(heard)

    def began_at(self) -> dict[str, int]:
        """When the first call within each scope was made by an earlier run."""
        return self._history.began_at()

    # How they come to their results

    async def _new(self, wanted: Wanted, past: PastCall | None) -> Done:
        await self.pace.may_begin()
        was_unsafe = past is not None and past.intent.effect is Effect.UNSAFE
        effect = Effect.UNSAFE if was_unsafe else wanted.effect
        asked = call_of(wanted, self._session.task_id, effect)
        if past is not None and past.done is None and effect is Effect.UNSAFE:
            known = await self._effects.settled(asked, await self._told(past))
            if known is not None:
                return known
        try:
            call = await self._reserving.begin(asked, wanted, past)
            started = self.now_ms()
            reply = await self._calls.make(call, self._session)
            entries = await self._outcome(call, reply, self.now_ms() - started)
        except asyncio.CancelledError:
            self._reserving.give_up(wanted.id)
            raise
        intent = self._reserving.end(wanted.id)
        if intent is None:
            return await never()  # a pattern has given the call up
        await self._write(*entries)
        self._count(intent, entries[-1])
        return entries[-1]

    async def _outcome(self, call: Call, reply: Reply, took_ms: int) -> tuple[Done] | tuple[Resolved, Done]:
        """What a reply means for the journal; the result is last."""
        if reply.certainty is Certainty.NOT_BEGUN:
            return await self._by_another_worker(call)
        if reply.certainty is Certainty.UNKNOWN and call.effect is Effect.UNSAFE:
            intent = self._reserving.newest(call.id)
            if intent is None:
                return await never()  # a pattern has given the call up
            return await self._effects.of_reply(call, intent, reply, took_ms)
        return (done_of(call.id, self.now_ms(), reply, took_ms),)

    async def _by_another_worker(self, call: Call) -> Never:
        """Hand the task over, once its other calls have ended: this worker could not begin the call."""
        if self._reserving.end(call.id) is None:
            await never()  # a pattern has given the call up
        if call.effect is Effect.UNSAFE:
            await self._effects.not_begun(call)
        self.pace.leave()
        await self.pace.may_begin()
        await never()

    async def _noted(
        self, wanted: Wanted, draw: Callable[[], Any] | None, outcome: CallOutcome, problem: str | None
    ) -> Done:
        await self.pace.may_begin()
        reply = Reply(outcome=outcome, value=draw() if draw is not None else None, problem=problem)
        done = done_of(wanted.id, self.now_ms(), reply)
        await self._write(intent_of(wanted, self.now_ms(), self._reserving.step(wanted)), done)
        await self.pace.not_barred()
        return done

    async def _slept(self, wanted: Wanted, past: PastCall | None, milliseconds: int) -> None:
        await self.pace.may_begin()
        now = self.now_ms()
        until = past.intent.until if past else now + milliseconds
        if past is None:
            await self._write(intent_of(wanted, now, self._reserving.step(wanted), until=until))
        with self.pace.waiting(Parked(kind=WaitKind.TIMER, call=wanted.id, until=until)):
            await asyncio.sleep(max(0, (until or 0) - self.now_ms()) / 1000)
        reply = Reply(outcome=CallOutcome.SUCCEEDED)
        await self._write(done_of(wanted.id, self.now_ms(), reply, milliseconds))

    async def _answered_outside(self, wanted: Wanted, past: PastCall | None, milliseconds: int) -> Done:
        await self.pace.may_begin()
        now = self.now_ms()
        intent = (
            past.intent
            if past
            else intent_of(wanted, now, self._reserving.step(wanted), until=now + milliseconds)
        )
        self._reserving.hold(intent)
        try:
            if past is None:
                await self._write(intent)
            done = await self._outside.result(intent)
        except asyncio.CancelledError:
            self._reserving.give_up(wanted.id)
            raise
        self._reserving.end(wanted.id)
        await self._write(done)
        return done

    async def _stated(self, wanted: Wanted) -> Done:
        await self.pace.may_begin()
        intent = intent_of(wanted, self.now_ms(), self._reserving.step(wanted), effect=wanted.effect)
        pause = FIRST_PAUSE_SECONDS
        while isinstance(done := await self._writer.state(intent, wanted.request), Refusal):
            self._bar_if_cancelled()
            pause = await self._room(done, pause)
        self._bar_if_cancelled()
        await self.pace.not_barred()
        return done

    async def _spawned(self, wanted: Wanted, past: PastCall | None, child_input: str) -> Done:
        await self.pace.may_begin()
        child = past.intent.child if past else None
        if child is None:
            child = child_id(self._session.task_id, wanted.id)
            await self._submit(wanted, child, child_input)
        started = self.now_ms()
        with self.pace.waiting(Parked(kind=WaitKind.CHILDREN, call=wanted.id, child=child)):
            end = await self._readable(self._children.end_of(child))
        done = done_of(wanted.id, self.now_ms(), reply_of(end), self.now_ms() - started)
        await self._write(done)
        return done

    async def _submit(self, wanted: Wanted, child: str, child_input: str) -> None:
        """Spawn a task; wait while others may end."""
        pause = FIRST_PAUSE_SECONDS
        intent = intent_of(wanted, self.now_ms(), self._reserving.step(wanted), child=child)
        while (refused := await self._writer.spawn(intent, child_input)) is not None:
            if not refused.may_change and refused.limit is LimitName.SHARE:
                await self._end_for_want_of_room(refused)
            if not refused.may_change:
                await self._reserving.refuse(wanted, intent.step, refused)
            is_full = refused.limit is LimitName.FAN_OUT
            parked = Parked(kind=WaitKind.CHILDREN, call=intent.call)
            with self.pace.waiting(parked) if is_full else nullcontext():
                await self._writer.settled(pause)
            await self.pace.may_begin()
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    # Entries

    async def _write(self, *entries: Intended | Done | Resolved) -> Refusal | None:
        """Write entries; the refusal of an intent by a limit of the tree.

        Where the caller's share of the store has no room, this waits while other calls of the caller keep
        room that they may give back, and then ends the task.
        """
        pause = FIRST_PAUSE_SECONDS
        while True:
            refused = await self._writer.write(*entries)
            self._bar_if_cancelled()
            if refused is None or refused.limit is not LimitName.SHARE:
                return refused
            pause = await self._room(refused, pause)

    async def _room(self, refused: Refusal, pause: float) -> float:
        """Wait until other calls of the caller may have given room back, or end the task; the next pause."""
        if not refused.may_change:
            await self._end_for_want_of_room(refused)
        return await self._reserving.others_settle(pause)

    async def _end_for_want_of_room(self, refused: Refusal) -> Never:
        message = (
            f"there is no room for the call {refused.call}: the tasks of this caller hold "
            f"{refused.committed:.0f} bytes of the {refused.most:.0f} that are their share of the store "
            f"(gateway.callerLimits.queuePercent), and the call may take {refused.wanted:.0f}"
        )
        self.pace.stop(Stop(kind=StopKind.END, reason=EndReason.INFRASTRUCTURE, message=message))
        await never()

    def _bar_if_cancelled(self) -> None:
        if self._writer.cancel_requested.is_set():
            self.pace.bar(CANCELLED, SETTLE_SECONDS)

    def _count(self, intent: Intended, done: Done) -> None:
        if intent.kind in PARTS:
            part = part_of(intent)
            self.busy_ms[part] = self.busy_ms.get(part, 0) + done.took_ms
            self.counts[part] = self.counts.get(part, 0) + 1


def _allowed(done: Done) -> Done:
    """The result, unless it is that a limit refused the call."""
    if done.outcome is CallOutcome.LIMIT_REACHED:
        raise LimitReachedError(refusal_of(done))
    return done
