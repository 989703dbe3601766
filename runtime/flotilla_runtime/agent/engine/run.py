"""One run of one task by one worker: the agent runs from its beginning until it ends, or until it must stop.

It stops because the task is to be cancelled, its time is up, all that is left only waits, the worker leaves,
or another worker holds the task. Before each of them the last write is finished, so the journal says what
was done. An agent whose calls all have results may still end after a cancellation or past its time.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

import structlog

from flotilla_runtime.agent.budgets import Budget
from flotilla_runtime.agent.conversations import Message, turn_messages
from flotilla_runtime.agent.engine import compensations
from flotilla_runtime.agent.engine.context import Context, Task
from flotilla_runtime.agent.engine.endings import Ending, of_error, of_result
from flotilla_runtime.agent.engine.engine import Engine, RunSettings
from flotilla_runtime.agent.engine.handling import Handling
from flotilla_runtime.agent.engine.history import History, read
from flotilla_runtime.agent.engine.pace import CANCELLED, LOST, SETTLE_SECONDS
from flotilla_runtime.agent.engine.scopes import Scopes
from flotilla_runtime.agent.engine.stops import Stop, StopKind
from flotilla_runtime.agent.engine.unwinding import Unwinding
from flotilla_runtime.agent.engine.writer import Writer
from flotilla_runtime.agent.errors import LeaseLostError, NoRoomError, StoreUnavailableError
from flotilla_runtime.agent.failures import AgentError
from flotilla_runtime.agent.journal import ENDING, EndReason, TaskStatus
from flotilla_runtime.agent.patterns.values import OnPattern, unheard
from flotilla_runtime.agent.programs import Program
from flotilla_runtime.agent.protocols import Calls, Finish, Session, TaskJournal
from flotilla_runtime.agent.tasks import Claim, LoadedTask
from flotilla_runtime.contract.failure_texts import what_failed

REPLAY_SECONDS: Final = 5.0  # in which an agent that is to stop may still end from its journal alone
LAST_WORDS_SECONDS: Final = 5.0  # in which an agent that was cancelled must end
NANO_USD: Final = 10**9
CANCELLED_ITSELF: Final = Ending.without_result(EndReason.INVALID, "the agent's code cancelled itself")

log = structlog.get_logger(__name__)


class Interrupt(StrEnum):
    """Why a run is interrupted."""

    CANCEL = "Cancel"
    LEAVE = "Leave"
    LOST = "Lost"


class RunOutcome(StrEnum):
    """How a run ended for the worker."""

    ENDED = "Ended"
    SUSPENDED = "Suspended"
    HANDED_OVER = "HandedOver"
    LOST = "Lost"


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """The clock of a run, which does not jump. The time of day is Redis'."""

    monotonic_seconds: Callable[[], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """The means that all runs of a worker share: its name, journal, calls, clock and counter of patterns."""

    worker: str
    journal: TaskJournal
    calls: Calls
    clock: Clock
    on_pattern: OnPattern = unheard


class TaskRun:
    """One run of one task by one worker. Make it in the event loop that runs it."""

    def __init__(self, claim: Claim, task: LoadedTask, program: Program, means: Means) -> None:
        self.claim: Final = claim
        self._task: Final = task
        self._program: Final = program.for_task(task.record.agent, is_spawned=task.record.parent is not None)
        self._means: Final = means
        self._started: Final = means.clock.monotonic_seconds()
        self._history: Final = read(task.entries)
        self._unwound: Final = self._history.calls.get(ENDING)
        self._session: Final = Session(
            task_id=claim.id,
            tenant=task.record.tenant or task.record.caller,
            priority=task.record.priority,
            agent=task.record.agent,
            token=claim.token,
        )
        self._writer: Final = Writer(
            means.journal,
            claim,
            length=self._history.length,
            budget=task.budget or _budget(task, self._history),
            open_intents={
                name: call.intent for name, call in self._history.calls.items() if call.done is None
            },
        )
        self._engine: Final = Engine(
            history=self._history,
            writer=self._writer,
            claim=claim,
            journal=means.journal,
            calls=means.calls,
            session=self._session,
            settings=RunSettings(
                now_ms=self._now_ms,
                unknown_effect_seconds=program.config.queue.unknown_effect_seconds,
                conversation=task.record.conversation,
                on_pattern=means.on_pattern,
                is_unwinding=self._unwound is not None,
            ),
        )
        self._scopes: Final = Scopes()
        delivery = task.record.actor
        self._handling: Final = (
            Handling(self._engine, self._scopes, self._session, delivery) if delivery else None
        )
        self._engine.must_unwind = self._engine.must_unwind or delivery is not None
        self._unwinding: Final = Unwinding(self._engine, program, self._history, self._handling)

    @property
    def elapsed_seconds(self) -> float:
        """How long the task has been running, including earlier workers, without the time suspended."""
        return self._task.elapsed_seconds + self._means.clock.monotonic_seconds() - self._started

    def interrupt(self, reason: Interrupt) -> None:
        """Stop the calls in flight, for this reason."""
        match reason:
            case Interrupt.CANCEL if self._unwound is None:
                self._engine.pace.bar(CANCELLED, SETTLE_SECONDS)
            case Interrupt.CANCEL:
                pass  # it has come to its end already
            case Interrupt.LEAVE:
                self._engine.pace.stop(Stop(kind=StopKind.HAND_OVER))
            case Interrupt.LOST:
                self._engine.pace.stop(LOST)

    def leave(self) -> None:
        """Hand the task over when the calls in flight are done."""
        self._engine.pace.leave()

    async def run(self) -> RunOutcome:
        """Run the task until it ends, waits, is handed over, or belongs to another worker."""
        try:
            return await self._run()
        except (LeaseLostError, StoreUnavailableError):
            return RunOutcome.LOST

    async def _run(self) -> RunOutcome:
        record = self._task.record
        address = record.actor.to if record.actor else None
        context = Context(self._engine, self._program, self._session, self._scopes, record.input, address)
        stops = self._stops_from_the_start()
        if self._is_given_up and self._engine.must_unwind:  # its agent may have killed the workers
            return await self._stop(stops[0], context)
        for reason in stops:
            self._engine.pace.bar(reason, REPLAY_SECONDS)
        timer = asyncio.get_running_loop().call_later(
            self._left_seconds(), self._engine.pace.stop, self._timeout()
        )
        agent = asyncio.create_task(self._main(context), name=f"agent-{self.claim.id}")
        try:
            await asyncio.wait({agent, self._engine.pace.stopped}, return_when=asyncio.FIRST_COMPLETED)
            ending = _ending_of(agent)
            stop = self._engine.pace.stopped.result() if self._engine.pace.stopped.done() else None
        finally:
            timer.cancel()
            await self._end_agent(agent)
        await self._writer.drained()
        if stop is not None and (ending is None or not stop.gives_way):
            return await self._stop(stop, context)
        return await self._finish(ending or CANCELLED_ITSELF, context)

    async def _main(self, context: Context) -> Any:
        self._scopes.enter_root()
        if self._unwound is not None:
            return await self._unwinding.ending()
        record = self._task.record
        task = Task(
            id=record.id,
            input=record.input,
            tenant=self._session.tenant,
            priority=record.priority,
            limits=record.limits,
            metadata=record.metadata,
            history=[message.document for message in self._task.history],
        )
        try:
            if self._handling is not None:
                return await self._handling.answer(context, task.input)
            return await context.validating.passed(await self._program.main(context, task))
        except SystemExit as problem:  # which would end the worker, and all its tasks
            raise RuntimeError(f"the agent's code left by SystemExit({problem.code!r})") from problem

    async def _end_agent(self, agent: "asyncio.Task[Any]") -> None:
        """Cancel the agent, and the calls that it has left under way."""
        is_late = False
        if not agent.done():
            self._engine.pace.stop(LOST)  # unless it has stopped: where this run itself is cancelled
            agent.cancel()
            _, late = await asyncio.wait({agent}, timeout=LAST_WORDS_SECONDS)
            is_late = bool(late)
        await self._engine.close()
        if is_late:
            log.warning("agent_ignores_cancellation", task=self.claim.id)
        elif not agent.cancelled():
            error = agent.exception()
            if isinstance(error, Exception) and not isinstance(error, AgentError):
                log.info("agent_raised", task=self.claim.id, exc_info=error)

    async def _stop(self, stop: Stop, context: Context) -> RunOutcome:
        match stop.kind:
            case StopKind.LOST:
                return RunOutcome.LOST
            case StopKind.SUSPEND if stop.waits is not None:
                if await self._means.journal.suspend(self.claim, self._writer.length, stop.waits):
                    return RunOutcome.SUSPENDED
                return await self._hand_over()
            case StopKind.END if self._unwound is not None:
                return await self._finish(self._unwinding.cut_short(stop.message), context)
            case StopKind.END if stop.reason is not None:
                return await self._finish(Ending.without_result(stop.reason, stop.message), context)
            case _:
                return await self._hand_over()

    async def _hand_over(self) -> RunOutcome:
        await self._means.journal.release(self.claim, self._means.worker)
        return RunOutcome.HANDED_OVER

    async def _finish(self, ending: Ending, context: Context) -> RunOutcome:
        partial = None if ending.status is TaskStatus.SUCCEEDED else ending.partial_of(context.partial)
        unwinds = self._engine.must_unwind and self._unwound is None
        if unwinds and ending.status is not TaskStatus.SUCCEEDED:
            return await self._unwind(replace(ending, partial=partial))
        finish = Finish(
            status=ending.status,
            reason=ending.reason,
            message=ending.message,
            result=ending.result,
            partial=partial,
            busy_ms=self._engine.figures.busy_ms,
            waited_ms={
                part: sum(waits) - len(waits) * min(waits)
                for part, waits in self._engine.figures.first_tokens_ms.items()
            },
            calls=self._engine.figures.counts,
            said=self._said(ending),
            unwinds=unwinds,
        )
        try:
            await self._means.journal.finish(self.claim, finish)
        except NoRoomError as problem:
            return await self._unwind(Ending.without_result(EndReason.INFRASTRUCTURE, what_failed(problem)))
        return RunOutcome.ENDED

    async def _unwind(self, ending: Ending) -> RunOutcome:
        """Note how the task is to end, and leave its compensations to the next run."""
        step, elapsed_ms = self._history.steps, round(self.elapsed_seconds * 1000)
        self._writer.hand_in(*compensations.noted(ending, self._now_ms(), step, elapsed_ms))
        await self._writer.drained()
        return await self._hand_over()

    def _said(self, ending: Ending) -> tuple[Message, ...]:
        """The messages that the task adds to its conversation; none without a result."""
        record = self._task.record
        if (
            record.conversation is None
            or record.actor is not None
            or ending.status is not TaskStatus.SUCCEEDED
        ):
            return ()
        return turn_messages(record.history, record.input, ending.result)

    def _now_ms(self) -> int:
        """Redis' time: when the task was read, and what has passed since by a clock that does not jump."""
        passed = self._means.clock.monotonic_seconds() - self._started
        return self._task.read_at + round(passed * 1000)

    @property
    def _most_seconds(self) -> float:
        """How long the task may run in all; its compensations have a time of their own."""
        if self._unwound is None:
            return self._task.record.limits.max_wall_seconds
        return float(self._unwound.intent.arguments["elapsedMs"]) / 1000 + compensations.SECONDS

    def _left_seconds(self) -> float:
        left = self._most_seconds - self.elapsed_seconds
        return max(left, REPLAY_SECONDS if left <= 0 else 0.0)

    def _timeout(self) -> Stop:
        limit = self._task.record.limits.max_wall_seconds
        if self._unwound is not None:
            message = f"the compensations did not end within {compensations.SECONDS:g} s"
            return Stop(kind=StopKind.END, reason=EndReason.TIMEOUT, message=message)
        message = f"the task did not end within limits.maxWallSeconds ({limit:g} s)"
        return Stop(kind=StopKind.END, reason=EndReason.TIMEOUT, message=message)

    @property
    def _is_given_up(self) -> bool:
        most = self._program.config.queue.max_attempts
        return self._history.attempts > most and self._unwound is None

    def _stops_from_the_start(self) -> list[Stop]:
        """Why this task may make no further call."""
        stops = []
        if self._task.record.cancel_requested and self._unwound is None:
            stops.append(CANCELLED)
        if self._is_given_up:
            most = self._program.config.queue.max_attempts
            message = f"the task was given up, because {most} workers were lost while they ran it"
            stops.append(Stop(kind=StopKind.END, reason=EndReason.INFRASTRUCTURE, message=message))
        if self.elapsed_seconds >= self._most_seconds:
            stops.append(self._timeout())
        return stops


def _ending_of(agent: "asyncio.Task[Any]") -> Ending | None:
    """How the agent has ended by itself; None if it has not."""
    if not agent.done() or agent.cancelled():
        return None
    error = agent.exception()
    if error is None and isinstance(agent.result(), Ending):
        return agent.result()  # type: ignore[no-any-return]
    return of_result(agent.result()) if error is None else of_error(error)


def _budget(task: LoadedTask, history: History) -> Budget:
    """The budget as far as this task's own journal tells it; the first write says more of a tree."""
    limits = task.record.limits
    most = None if limits.max_cost_usd is None else round(limits.max_cost_usd * NANO_USD)
    return Budget(
        used=history.used,
        reserved=history.open_reserve,
        most_steps=limits.max_steps,
        most_tokens=limits.max_tokens,
        most_nano_usd=most,
    )
