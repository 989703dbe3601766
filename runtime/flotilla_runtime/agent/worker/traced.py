"""Gives the spans of a worker's tasks to the exporter, as their entries are written.

Nothing but a finished write makes a span, so a trace tells what the journal does. When a worker was lost, its
last spans may be lost with it; the next run of the task gives them again, and they are the same ones.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Final

from flotilla_runtime.agent.budgets import Amount, Budget
from flotilla_runtime.agent.journal import CallKind, Claimed, Done, Entry, HandedOver, Intended, Resumed
from flotilla_runtime.agent.protocols import (
    Call,
    Calls,
    Came,
    CheckpointChange,
    Checkpointed,
    ChildEnd,
    Finish,
    OneEntry,
    Post,
    Reconciled,
    Reply,
    Session,
    StateRequest,
    TaskJournal,
    Waits,
    Written,
)
from flotilla_runtime.agent.tasks import Claim, LoadedTask
from flotilla_runtime.agent.traces.export import Exporter
from flotilla_runtime.agent.traces.ids import trace_of
from flotilla_runtime.agent.traces.spans import End, Fleet, Span, TaskSpans
from flotilla_runtime.contract import WorkerConfig


class Tracer:
    """Traces the runs of a worker."""

    def __init__(self, exporter: Exporter, config: WorkerConfig) -> None:
        self._exporter = exporter
        self._fleet = Fleet(
            name=config.queue.fleet.rpartition("/")[2],
            models={model.name: model for model in config.models},
            content=exporter.config.content,
        )

    def stop(self) -> None:
        """Send what waits to be sent, for some seconds; it blocks."""
        self._exporter.stop()

    def traced(
        self, task: LoadedTask, journal: TaskJournal, calls: Calls, now_ms: Callable[[], int]
    ) -> tuple[TaskJournal, Calls]:
        """The journal and the calls of a run, traced if its task is sampled."""
        if not self._exporter.samples(trace_of(task.record).trace_id):
            return journal, calls
        spans = TaskSpans(task.record, self._fleet)
        self._exporter.give(_given_again(spans, task.entries))
        return TracedJournal(journal, spans, self._exporter, now_ms), TracedCalls(calls, spans)


class TracedCalls:
    """The calls of a run, which name their spans to the other side."""

    def __init__(self, calls: Calls, spans: TaskSpans) -> None:
        self._calls = calls
        self._spans = spans

    async def reservation(self, call: Call, session: Session, budget: Budget) -> tuple[Call, Amount]:
        """Return the call cut to what is left, and the most that it can use."""
        return await self._calls.reservation(call, session, budget)

    async def make(self, call: Call, session: Session) -> Reply:
        """Make one call."""
        if call.kind is CallKind.MODEL:
            self._spans.asked(call.id, call.request)
        return await self._calls.make(
            replace(call, traceparent=self._spans.trace.traceparent(call.id)), session
        )

    async def reconcile(self, call: Call, session: Session) -> Reconciled | None:
        """Find out whether an Unsafe call happened; None if nobody knows."""
        return await self._calls.reconcile(call, session)


class TracedJournal:
    """The journal of a run. What was written is told to the spans."""

    def __init__(
        self, journal: TaskJournal, spans: TaskSpans, exporter: Exporter, now_ms: Callable[[], int]
    ) -> None:
        self._journal: Final = journal
        self._spans: Final = spans
        self._exporter: Final = exporter
        self._now_ms: Final = now_ms

    async def append(self, claim: Claim, expected: int, entries: Sequence[Entry]) -> Written:
        """Append entries at this position."""
        written = await self._journal.append(claim, expected, entries)
        refused = {refusal.call for refusal in written.refused}
        self._tell([one for one in entries if not (isinstance(one, Intended) and one.call in refused)])
        return written

    async def spawn(self, claim: Claim, expected: int, intent: Intended, child_input: str) -> Written:
        """Write the intent of a spawned task and submit that task."""
        written = await self._journal.spawn(claim, expected, intent, child_input)
        if not written.refused:
            self._tell([intent])
        return written

    async def deliver(self, claim: Claim, expected: int, intent: Intended, post: Post) -> Written:
        """Write the intent of a message and submit its task."""
        written = await self._journal.deliver(claim, expected, intent, post)
        if not written.refused:
            self._tell([intent])
        return written

    async def state(self, claim: Claim, expected: int, intent: Intended, request: StateRequest) -> Written:
        """Read or write a value of the state."""
        written = await self._journal.state(claim, expected, intent, request)
        if written.done is not None:
            self._tell([intent, written.done])
        return written

    async def checkpoint(self, claim: Claim, change: CheckpointChange) -> Checkpointed:
        """Change the checkpoints of a graph."""
        return await self._journal.checkpoint(claim, change)

    async def checkpoint_fields(self, space: str) -> Sequence[str]:
        """The names of what a graph has kept."""
        return await self._journal.checkpoint_fields(space)

    async def checkpoint_texts(self, space: str, fields: Sequence[str]) -> Sequence[str | None]:
        """The texts of these fields."""
        return await self._journal.checkpoint_texts(space, fields)

    async def whole(self, task_id: str, entry: OneEntry) -> OneEntry:
        """An entry with its value."""
        return await self._journal.whole(task_id, entry)

    async def children(self, ids: Sequence[str]) -> Mapping[str, ChildEnd]:
        """Those of these tasks that have ended."""
        return await self._journal.children(ids)

    async def came(self, claim: Claim, call: str, taken: Collection[str]) -> Came | None:
        """Return the answer from outside for this call, None for none yet."""
        return await self._journal.came(claim, call, taken)

    async def suspend(self, claim: Claim, expected: int, waits: Waits) -> bool:
        """Give the place up."""
        return await self._journal.suspend(claim, expected, waits)

    async def finish(self, claim: Claim, finish: Finish) -> None:
        """End the task."""
        await self._journal.finish(claim, finish)
        end = End(at=self._now_ms(), status=finish.status, reason=finish.reason, result=finish.result)
        self._exporter.give(self._spans.ended(end))

    async def release(self, claim: Claim, worker: str) -> None:
        """Hand the task over."""
        await self._journal.release(claim, worker)

    def _tell(self, entries: Sequence[Entry]) -> None:
        self._exporter.give(span for one in entries if (span := self._spans.told(one)) is not None)


def _given_again(spans: TaskSpans, entries: Sequence[Entry]) -> list[Span]:
    """The spans that this run gives for what was written before it: its own wait, and what a lost run had."""
    given: list[Span] = []
    has_left = True
    for entry in entries:
        span = spans.told(entry)
        match entry:
            case Claimed() if has_left:
                given, has_left = [], False
            case HandedOver() | Resumed():
                has_left = True
            case _:
                pass
        if span is not None and isinstance(entry, Claimed | Done):
            given.append(span)
    return given
