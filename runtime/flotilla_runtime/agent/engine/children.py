"""The tasks that a run spawns: how they are submitted, and the watch over those that it waits for."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from functools import partial

from flotilla_runtime.agent.budgets import LimitName, MessageRefusal, Refusal
from flotilla_runtime.agent.engine.entries import Wanted, done_of, intent_of, reply_of
from flotilla_runtime.agent.engine.history import PastCall
from flotilla_runtime.agent.engine.pace import LOOK_SECONDS, Pace
from flotilla_runtime.agent.engine.recalling import Recall
from flotilla_runtime.agent.engine.recording import FIRST_PAUSE_SECONDS, NOTHING_ELSE, Recording
from flotilla_runtime.agent.engine.reserving import Reserving
from flotilla_runtime.agent.engine.stops import Parked
from flotilla_runtime.agent.journal import CallKind, CallOutcome, Done, Intended, WaitKind
from flotilla_runtime.agent.protocols import ChildEnd, TaskJournal
from flotilla_runtime.agent.tasks import child_id
from flotilla_runtime.contract import Effect


class Children:
    """The spawned tasks of one run."""

    def __init__(
        self,
        task_id: str,
        journal: TaskJournal,
        pace: Pace,
        recall: Recall,
        recording: Recording,
        reserving: Reserving,
    ) -> None:
        self._task_id = task_id
        self._watch = ChildWatch(journal)
        self._pace = pace
        self._recall = recall
        self._recording = recording
        self._reserving = reserving

    async def ended(self, wanted: Wanted, past: PastCall | None, child_input: str) -> Done:
        """The end of a spawned task, which is submitted now if no earlier run has."""
        await self._pace.may_begin()
        intent = self.intended(wanted, past)
        with self._reserving.giving_up(wanted.id):
            if past is None:
                await self.submitted(wanted, intent, partial(self._recording.spawn, intent, child_input))
            return await self.awaited(intent)

    def intended(self, wanted: Wanted, past: PastCall | None, effect: Effect | None = None) -> Intended:
        """The intent of a call that submits a task below this one."""
        if past is not None:
            return past.intent
        child, step = child_id(self._task_id, wanted.id), self._reserving.step(wanted)
        return intent_of(wanted, self._pace.now_ms(), step, effect=effect, child=child)

    async def submitted(
        self, wanted: Wanted, intent: Intended, submit: Callable[[], Awaitable[Refusal | None]]
    ) -> Refusal | None:
        """Submit a task below this one when there is room for it; the refusal of an actor."""
        pause = FIRST_PAUSE_SECONDS
        while True:
            self._reserving.hold(intent)
            if (refused := await submit()) is None:
                return None
            self._reserving.let_go(intent.call)
            if isinstance(refused.limit, MessageRefusal):
                return refused
            pause = await self._room_later(wanted, intent, refused, pause)

    async def awaited(self, intent: Intended) -> Done:
        """The end of a task that is submitted."""
        assert intent.child is not None
        self._reserving.hold(intent)
        started = self._pace.now_ms()
        end = await self._recall.readable(self._end_of(intent.call, intent.child))
        now = self._pace.now_ms()
        done = done_of(intent.call, now, reply_of(end), now - started)
        await self._reserving.ended(intent.call)
        await self._recording.write(done)
        return done

    async def gone(self, calls: Iterable[PastCall]) -> None:
        """Return when none of the tasks that these calls spawned lives; nothing is written of their ends."""
        ends = [
            self._recall.readable(self._end_of(call.intent.call, call.intent.child))
            for call in calls
            if call.intent.kind is CallKind.SPAWN
            # the results of a replay name the tasks of another one
            if call.intent.child == child_id(self._task_id, call.intent.call)
            if call.done is None or call.done.outcome is CallOutcome.CANCELLED
        ]
        await asyncio.gather(*map(self._pace.guarded, ends))

    def close(self) -> None:
        """Stop looking for their ends."""
        self._watch.close()

    async def _end_of(self, call: str, child: str) -> ChildEnd:
        """The end of a task. It has been looked for before this one may be suspended for it."""
        if (end := await self._watch.end_at_first_look(child)) is not None:
            return end
        with self._pace.waiting(Parked(kind=WaitKind.CHILDREN, call=call, child=child)):
            return await self._watch.end_of(child)

    async def _room_later(self, wanted: Wanted, intent: Intended, refused: Refusal, pause: float) -> float:
        """Wait until a task that was refused may be submitted after all; the next pause.

        A call that only waits for a place lets the task be suspended. Ends the task or raises
        LimitReachedError where there will be no room.
        """
        if not refused.may_change and refused.limit is LimitName.SHARE:
            await self._recording.end_for_want_of_room(refused)
        if not refused.may_change:
            await self._reserving.refuse(wanted, intent.step, refused)
        meanwhile: AbstractContextManager[None] = NOTHING_ELSE
        if refused.limit is LimitName.FAN_OUT:
            meanwhile = self._pace.waiting(Parked(kind=WaitKind.CHILDREN, call=intent.call))
        return await self._recording.others_settle(pause, meanwhile)


@dataclass(slots=True)
class _Watched:
    """A spawned task that somebody waits for. `looked` is set at the first look for it."""

    end: asyncio.Future[ChildEnd] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    looked: asyncio.Event = field(default_factory=asyncio.Event)


class ChildWatch:
    """Asks for the ends of spawned tasks, all in one request."""

    def __init__(self, journal: TaskJournal) -> None:
        self._journal = journal
        self._waiting: dict[str, _Watched] = {}
        self._asked = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None

    async def end_of(self, child: str) -> ChildEnd:
        """Return when this task has ended."""
        return await asyncio.shield(self._watched(child).end)

    async def end_at_first_look(self, child: str) -> ChildEnd | None:
        """How this task has ended; None if it has not when it is looked for first."""
        watched = self._watched(child)
        await watched.looked.wait()
        return watched.end.result() if watched.end.done() else None

    def close(self) -> None:
        """Stop looking."""
        if self._looking is not None:
            self._looking.cancel()

    def _watched(self, child: str) -> _Watched:
        if child not in self._waiting:
            self._waiting[child] = _Watched()
            self._asked.set()
        if self._looking is None:
            self._looking = asyncio.create_task(self._look())
        return self._waiting[child]

    async def _look(self) -> None:
        try:
            while self._waiting:
                await asyncio.sleep(0)
                self._asked.clear()
                asked = tuple(self._waiting)
                ended = await self._journal.children(asked)
                for child in asked:
                    self._waiting[child].looked.set()
                    if child in ended:
                        self._waiting.pop(child).end.set_result(ended[child])
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._asked.wait(), LOOK_SECONDS)
        except asyncio.CancelledError:
            raise
        except BaseException as problem:  # so that nobody waits for a look that does not come
            for watched in self._waiting.values():
                watched.end.set_exception(problem)
                watched.looked.set()
            self._waiting.clear()
        finally:
            self._looking = None
