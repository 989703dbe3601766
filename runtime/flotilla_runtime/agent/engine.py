"""How each call of an agent comes to its result: from the journal, or made now and written.

The agent runs from its beginning after each crash. A call whose result stands in the journal gets it at once.
Any other one writes its intent, is made, and writes its result. What an agent asks under a known id must be
what it asked before, by a hash; otherwise the task ends as Invalid, because its code is not deterministic.

A run stops for one `Stop`. From then on no call begins, and those under way are cancelled by the run.
"""

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Never, TypeVar

from flotilla_runtime.agent.budgets import Amount
from flotilla_runtime.agent.children import ChildWatch
from flotilla_runtime.agent.errors import LeaseLostError, StoreUnavailableError
from flotilla_runtime.agent.failures import LimitReachedError
from flotilla_runtime.agent.history import PARTS, History, PastCall, part_of
from flotilla_runtime.agent.journal import (
    CallKind,
    CallOutcome,
    Done,
    EndReason,
    Intended,
    Resolved,
    WaitKind,
)
from flotilla_runtime.agent.protocols import Call, Calls, ChildEnd, Reply, Session, TaskJournal
from flotilla_runtime.agent.stops import Parked, Stop, StopKind, rings_soon, waits_of
from flotilla_runtime.agent.tasks import child_id
from flotilla_runtime.agent.writer import Writer
from flotilla_runtime.contract import Effect

Answer = TypeVar("Answer")

SETTLE_TURNS: Final = 32  # of the event loop, in which an agent may make its next call
SETTLE_SECONDS: Final = 0.02  # in which an agent may end after its last call, although the task is cancelled
FIRST_PAUSE_SECONDS: Final = 0.25  # in which others may settle what they reserved
LONGEST_PAUSE_SECONDS: Final = 5.0
HASH_LETTERS: Final = 32
BY_RECONCILE: Final = "reconcile"
LOST: Final = Stop(kind=StopKind.LOST)
CANCELLED: Final = Stop(kind=StopKind.END, reason=EndReason.CANCELLED, message="cancelled by the caller")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A call as the agent asks for it. `arguments` go into the journal; `hashed` must stay the same."""

    id: str
    kind: CallKind
    target: str
    hashed: Any
    request: Any = None
    arguments: Any = None
    effect: Effect = Effect.PURE
    steps: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """What a run needs to know besides its task.

    `now_ms` is Redis' time, counted on by a clock that does not jump.
    """

    now_ms: Callable[[], int]
    unknown_effect_seconds: float


def hash_of(value: Any) -> str:
    """A hash of a JSON value, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:HASH_LETTERS]


class Engine:
    """The calls of one run."""

    def __init__(
        self,
        *,
        history: History,
        writer: Writer,
        journal: TaskJournal,
        calls: Calls,
        session: Session,
        settings: RunSettings,
    ) -> None:
        self.stopped: Final[asyncio.Future[Stop]] = asyncio.get_running_loop().create_future()
        self.busy_ms: Final = history.busy_ms()
        self.counts: Final = history.counts()
        self._history = history
        self._writer = writer
        self._calls = calls
        self._session = session
        self._settings = settings
        self._children = ChildWatch(journal)
        self._steps = history.steps
        self._bar: Stop | None = None
        self._leaving = False
        self._active = 0
        self._parked: set[Parked] = set()
        self._held_back = 0
        self._is_looking = False
        self._under_way: set[asyncio.Task[Any]] = set()
        self._begun: dict[str, Intended] = {}

    def now_ms(self) -> int:
        """The time, in milliseconds since the epoch."""
        return self._settings.now_ms()

    # Stopping

    def stop(self, stop: Stop) -> None:
        """Stop the run for this reason, unless it has stopped already."""
        if not self.stopped.done():
            self.stopped.set_result(stop)

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
        self.stop(LOST)
        self._children.close()
        left = self._under_way - {asyncio.current_task()}
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=SETTLE_SECONDS)

    # What an agent may await

    async def call(self, wanted: Wanted) -> Done:
        """The result of a call of a model, an index or a tool."""
        past = self._known(wanted)
        if past is not None and past.result is not None:
            if past.result.outcome is CallOutcome.CANCELLED:
                return await _never()
            return past.result
        return await self._guarded(self._new(wanted, past))

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
        return await self._guarded(self._noted(wanted, draw, outcome, problem))

    async def sleep(self, wanted: Wanted, seconds: float) -> None:
        """Wait until a timer rings, which was set when the call was made for the first time."""
        past = self._known(wanted)
        if past is None or past.result is None:
            await self._guarded(self._slept(wanted, past, round(seconds * 1000)))

    async def spawn(self, wanted: Wanted, child_input: str) -> Done:
        """The end of a spawned task."""
        past = self._known(wanted)
        if past is not None and past.result is not None:
            return past.result
        return await self._guarded(self._spawned(wanted, past, child_input))

    def _known(self, wanted: Wanted) -> PastCall | None:
        if self.stopped.done():
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
        self.stop(Stop(kind=StopKind.END, reason=EndReason.INVALID, message=message))
        raise asyncio.CancelledError

    # How they come to their results

    async def _new(self, wanted: Wanted, past: PastCall | None) -> Done:
        await self._may_begin()
        effect = wanted.effect
        if past is not None and past.intent.effect is Effect.UNSAFE:
            effect = Effect.UNSAFE
        if past is not None and past.done is None and effect is Effect.UNSAFE:
            known = await self._settled_effect(self._call(wanted, effect), past)
            if known is not None:
                return known
        try:
            call, intent = await self._intended(self._call(wanted, effect), wanted, past)
            started = self._settings.now_ms()
            reply = await self._calls.make(call, self._session)
        except asyncio.CancelledError:
            self._give_up(wanted.id)
            raise
        done = self._done(wanted.id, reply, took_ms=max(0, self._settings.now_ms() - started))
        del self._begun[wanted.id]
        await self._write(done)
        self._count(intent, done)
        return done

    async def _intended(self, call: Call, wanted: Wanted, past: PastCall | None) -> tuple[Call, Intended]:
        """Reserve what the call can use, and write its intent; wait while others may settle."""
        pause = FIRST_PAUSE_SECONDS
        refused = None
        before = Amount()
        while True:
            cut, amount = await self._calls.reservation(call, self._session, self._writer.budget)
            if refused is not None and not refused.may_change and not _is_less(amount, before):
                raise LimitReachedError(refused)
            before = amount
            intent = self._begun[wanted.id] = self._intent(wanted, past, amount, effect=call.effect)
            refused = await self._write(intent)
            if refused is None:
                await self._not_barred()
                return cut, intent
            del self._begun[wanted.id]
            self._steps -= 0 if past else wanted.steps
            if refused.may_change:
                await self._writer.settled(pause)
                await self._may_begin()
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    async def _settled_effect(self, call: Call, past: PastCall) -> Done | None:
        """The result of an Unsafe call that may have happened; None if it did not, and may be made."""
        resolved = past.resolved
        if resolved is None:
            known = await self._calls.reconcile(call, self._session)
            if known is None:
                return await self._unknown_effect(past.intent)
            resolved = Resolved(
                at=self._settings.now_ms(),
                call=call.id,
                happened=known.happened,
                by=BY_RECONCILE,
                result=known.result if known.happened else None,
            )
            if not known.happened:
                await self._write(resolved)
        if not resolved.happened:
            return None
        reply = Reply(outcome=CallOutcome.SUCCEEDED, value=resolved.result)
        done = self._done(call.id, reply, took_ms=0)
        await (self._write(done) if past.resolved else self._write(resolved, done))
        return done

    async def _unknown_effect(self, intent: Intended) -> Never:
        """Wait for somebody who says whether the call happened; end the task if nobody does in time."""
        until = intent.at + round(self._settings.unknown_effect_seconds * 1000)
        with self._waiting(Parked(kind=WaitKind.EFFECT, call=intent.call, until=until)):
            await asyncio.sleep(max(0, until - self._settings.now_ms()) / 1000)
        message = (
            f"it is not known whether the call {intent.call} of {intent.target} happened, and nobody said "
            f"so within recovery.unknownEffectSeconds ({self._settings.unknown_effect_seconds:g} s)"
        )
        self.stop(Stop(kind=StopKind.END, reason=EndReason.UNKNOWN_EFFECT, message=message))
        await _never()

    async def _noted(
        self, wanted: Wanted, draw: Callable[[], Any] | None, outcome: CallOutcome, problem: str | None
    ) -> Done:
        await self._may_begin()
        reply = Reply(outcome=outcome, value=draw() if draw is not None else None, problem=problem)
        done = self._done(wanted.id, reply, took_ms=0)
        await self._write(self._intent(wanted, None, Amount()), done)
        await self._not_barred()
        return done

    async def _slept(self, wanted: Wanted, past: PastCall | None, milliseconds: int) -> None:
        await self._may_begin()
        now = self._settings.now_ms()
        until = past.intent.until if past else now + milliseconds
        if past is None:
            await self._write(self._intent(wanted, None, Amount(), until=until))
        with self._waiting(Parked(kind=WaitKind.TIMER, call=wanted.id, until=until)):
            await asyncio.sleep(max(0, (until or 0) - self._settings.now_ms()) / 1000)
        await self._write(self._done(wanted.id, Reply(outcome=CallOutcome.SUCCEEDED), took_ms=milliseconds))

    async def _spawned(self, wanted: Wanted, past: PastCall | None, child_input: str) -> Done:
        await self._may_begin()
        child = past.intent.child if past else None
        if child is None:
            child = child_id(self._session.task_id, wanted.id)
            await self._submit(self._intent(wanted, None, Amount(), child=child), child_input)
        started = self._settings.now_ms()
        with self._waiting(Parked(kind=WaitKind.CHILDREN, call=wanted.id, child=child)):
            end = await self._children.end_of(child)
        done = self._done(wanted.id, _reply_of(end), took_ms=max(0, self._settings.now_ms() - started))
        await self._write(done)
        return done

    async def _submit(self, intent: Intended, child_input: str) -> None:
        pause = FIRST_PAUSE_SECONDS
        while (refused := await self._writer.spawn(intent, child_input)) is not None:
            if not refused.may_change:
                raise LimitReachedError(refused)
            await self._writer.settled(pause)
            await self._may_begin()
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    # What may begin, and what only waits

    async def _guarded(self, making: Awaitable[Answer]) -> Answer:
        """Make a call; a write that another worker's token or a lost Redis refuses ends the run."""
        task = asyncio.current_task()
        if task is not None:
            self._under_way.add(task)
        self._active += 1
        try:
            return await making
        except (LeaseLostError, StoreUnavailableError):
            self.stop(LOST)
            return await _never()
        finally:
            self._active -= 1
            if task is not None:
                self._under_way.discard(task)
            self._look_soon()

    async def _may_begin(self) -> None:
        await self._not_barred()
        if self._leaving:
            self._held_back += 1
            self._active -= 1
            self._look()
            try:
                await _never()
            finally:
                self._active += 1

    async def _not_barred(self) -> None:
        if self.stopped.done():
            raise asyncio.CancelledError
        if self._bar is not None:
            self.stop(self._bar)
            await _never()

    @contextmanager
    def _waiting(self, parked: Parked) -> Iterator[None]:
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
            soon = rings_soon(self._parked, self._settings.now_ms())
            if soon is None:
                self.stop(Stop(kind=StopKind.SUSPEND, waits=waits_of(self._parked)))

    # Entries

    async def _write(self, *entries: Intended | Done | Resolved) -> Any:
        refused = await self._writer.write(*entries)
        if self._writer.cancel_requested.is_set():
            self.bar(CANCELLED, SETTLE_SECONDS)
        return refused

    def _give_up(self, call: str) -> None:
        """Note that the agent itself cancelled a call. Nobody knows what it used: all it reserved."""
        intent = self._begun.pop(call, None)
        if intent is None or self.stopped.done():
            return
        done = Done(
            at=self._settings.now_ms(),
            call=call,
            outcome=CallOutcome.CANCELLED,
            took_ms=max(0, self._settings.now_ms() - intent.at),
            output_tokens=intent.reserved_tokens,
            nano_usd=intent.reserved_nano_usd,
            problem="the agent no longer waited for it",
        )
        self._writer.hand_in(done).add_done_callback(_heard)

    def _call(self, wanted: Wanted, effect: Effect) -> Call:
        return Call(
            id=wanted.id,
            kind=wanted.kind,
            target=wanted.target,
            request=wanted.request,
            key=hash_of([self._session.task_id, wanted.id]),
            effect=effect,
        )

    def _intent(
        self,
        wanted: Wanted,
        past: PastCall | None,
        amount: Amount,
        *,
        effect: Effect | None = None,
        until: int | None = None,
        child: str | None = None,
    ) -> Intended:
        if past is None:
            self._steps += wanted.steps
        return Intended(
            at=self._settings.now_ms(),
            call=wanted.id,
            kind=wanted.kind,
            target=wanted.target,
            step=past.intent.step if past else self._steps,
            reserved_steps=wanted.steps,
            reserved_tokens=amount.tokens,
            reserved_nano_usd=amount.nano_usd,
            effect=effect,
            arguments_hash=hash_of(wanted.hashed),
            arguments=wanted.arguments,
            until=until,
            child=child,
        )

    def _done(self, call: str, reply: Reply, took_ms: int) -> Done:
        return Done(
            at=self._settings.now_ms(),
            call=call,
            outcome=reply.outcome,
            took_ms=took_ms,
            value=reply.value,
            generation=reply.generation,
            input_tokens=reply.input_tokens,
            cached_input_tokens=reply.cached_input_tokens,
            output_tokens=reply.output_tokens,
            nano_usd=reply.nano_usd,
            tries=reply.tries,
            problem=reply.problem,
        )

    def _count(self, intent: Intended, done: Done) -> None:
        if intent.kind in PARTS:
            part = part_of(intent)
            self.busy_ms[part] = self.busy_ms.get(part, 0) + done.took_ms
            self.counts[part] = self.counts.get(part, 0) + 1


def _is_less(amount: Amount, before: Amount) -> bool:
    return amount.tokens < before.tokens or amount.nano_usd < before.nano_usd


def _reply_of(end: ChildEnd) -> Reply:
    value = {
        "status": str(end.status),
        "reason": end.reason,
        "message": end.message,
        "result": end.result,
        "partial": end.partial,
    }
    return Reply(outcome=CallOutcome.SUCCEEDED, value=value)


def _heard(future: "asyncio.Future[Any]") -> None:
    if not future.cancelled():
        future.exception()


async def _never() -> Never:
    """Wait until the run cancels the agent."""
    await asyncio.get_running_loop().create_future()
    raise AssertionError("nobody sets this future")
