"""The operations of the task API without HTTP: submit, get, list, cancel, resolve, and the fleet's figures.

What people and programs outside tell a task is in outside.py.

When Redis does not answer, a request is repeated for two seconds, so callers do not notice a broken
connection or a short failover; after that they get a 503. A submission is repeated with the same id, so it
never becomes two tasks. One that no replica of Redis confirms gets a 503 too, though the task is there:
whoever sends it again with its idempotency key is told of the same task. Without a key the 503 names the
task.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, Protocol, TypeVar

from flotilla_runtime.agent.conversations import Message
from flotilla_runtime.agent.errors import (
    BrokenEntryError,
    StoreUnavailableError,
    UncertainError,
)
from flotilla_runtime.agent.journal import Done, Entry, Intended, TaskStatus
from flotilla_runtime.agent.store.task_store import TaskStore
from flotilla_runtime.agent.tasks import (
    CancelOutcome,
    NewTask,
    ResolveOutcome,
    Submission,
    SubmitOutcome,
    TaskRecord,
    caller_key,
)
from flotilla_runtime.agent.traces.ids import read_traceparent
from flotilla_runtime.contract import Admission, FleetCapacity, FleetStatus, GatewayConfig, QueueConfig
from flotilla_runtime.gateway.admission import admitted, measured_of
from flotilla_runtime.gateway.auth import Identity, tenant_of
from flotilla_runtime.gateway.figures import WINDOW_MINUTES, fleet_status
from flotilla_runtime.gateway.history import Event, History
from flotilla_runtime.gateway.pages import PageWanted
from flotilla_runtime.gateway.problems import ProblemError, not_found
from flotilla_runtime.gateway.refusals import given_up, uncertain_submission
from flotilla_runtime.gateway.requests import EffectOutcome, ResolveRequest, SubmitRequest, named_agent
from flotilla_runtime.gateway.task_ids import is_task_id, task_id
from flotilla_runtime.gateway.views import TaskView, task_view

Answer = TypeVar("Answer")

ASK_FOR_SECONDS: Final = 2.0
ASK_AGAIN_SECONDS: Final = 0.1
QUEUE_FULL_RETRY_SECONDS: Final = 5
NOTHING: Final[Mapping[str, str]] = {}
SCANNED_AT_ONCE: Final = 200
MOST_SCANNED: Final = 2000
READ_AT_ONCE: Final = 100  # entries of a journal
LONGEST_TIMELINE: Final = 1000  # events
ONLY_APPROVALS: Final = (
    "you may read only what waits for approval: add ?waitsFor=Approval, or have somebody allow you the verb "
    "get on the resource agentfleets/tasks"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """The sources of time and random bits."""

    monotonic_seconds: Callable[[], float]
    wall_ms: Callable[[], int]
    random_bits: Callable[[int], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Some tasks, and the id from which the next page continues; None on the last page."""

    records: tuple[TaskRecord, ...]
    next_before: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A task as a front end tells it.

    Tokens of spawned tasks are in the record's sum only, so they count as input here. `cached_tokens` is None
    where models share their caches between tenants: it would tell whether somebody else had sent the prompt.
    """

    record: TaskRecord
    cached_tokens: int | None = None
    output_tokens: int = 0

    @property
    def input_tokens(self) -> int:
        return max(0, self.record.used.tokens - self.output_tokens)


class Traces(Protocol):
    """Hears what only a gateway knows of tasks, for their traces."""

    def submitted(self, task: NewTask, began_at: int) -> None:
        """A task was stored, for a request that came at this time."""

    def ended(self, record: TaskRecord, entries: Sequence[Entry]) -> None:
        """A task ended while no worker had it."""

    def stop(self) -> None:
        """Send what waits to be sent, for some seconds; it blocks."""


class TaskService:
    """The operations on a fleet's tasks, with the caller's rights."""

    def __init__(
        self,
        store: TaskStore,
        config: GatewayConfig,
        sources: Sources,
        traces: Traces | None = None,
        capacity: Callable[[], FleetCapacity] = FleetCapacity,
    ) -> None:
        self._store = store
        self._traces = traces
        self._config = config
        self._sources = sources
        self._capacity = capacity

    def new_id(self) -> str:
        """The id of a task that is made now."""
        return task_id(self._sources.wall_ms(), self._sources.random_bits(80))

    async def submit(
        self,
        request: SubmitRequest,
        caller: Identity,
        tenant: str,
        *,
        named: str | None = None,
        history: tuple[Message, ...] = (),
        front: Mapping[str, str] = NOTHING,
        traceparent: str | None = None,
    ) -> Submission:
        """Store a new task; raises a problem when a quota is used up or Redis does not answer.

        `named` is its id, where the front end has made one, `history` what was said before, `front` what the
        front end must know of the request, `traceparent` the span of which the task is a part.
        """
        began_at = self._sources.wall_ms()
        task = NewTask(
            id=named or self.new_id(),
            input=request.input,
            caller=caller.name,
            limits=request.limits.within(self._config.limits, self._config.unpriced_models),
            priority=request.priority,
            idempotency_key=_own_key(request.idempotency_key, tenant, tenant_of(caller.name)),
            tenant=tenant,
            revision=self._config.revision,
            metadata=request.metadata,
            conversation_id=request.conversation_id,
            history=history,
            front=front,
            agent=named_agent(request.agent, self._config.agents),
            traceparent=traceparent if self._traces and read_traceparent(traceparent) else None,
        )
        submission = await self.submitted(task, lambda: self._store.submit(task))
        if submission.outcome is SubmitOutcome.CREATED and self._traces is not None:
            self._traces.submitted(task, began_at)
        return submission

    async def summary(self, task: str, caller: Identity, *, is_to_approve: bool = False) -> TaskRecord:
        """A task that this caller may see, without its texts; raises a problem for any other.

        With `is_to_approve` it may be one of which somebody may decide on a call, whoever submitted it.
        """
        found = await self.asked(lambda: self._store.summaries([task])) if is_task_id(task) else []
        if not found or not (
            _may_see(found[0], caller) or (is_to_approve and await self._to_approve([task]))
        ):
            raise not_found(task)
        return found[0]

    async def view(self, task: str, caller: Identity) -> TaskView:
        """A task with its history.

        The journal is read in parts, and of a long one the latest events are kept, so none is in memory
        whole.
        """
        await self.summary(task, caller, is_to_approve=caller.approves)
        record = await self._record(task)
        history, events = History(), 0
        timeline: deque[Event] = deque(maxlen=LONGEST_TIMELINE)
        async for entry in self._journal(task):
            if (event := history.told(entry)) is not None:
                timeline.append(event.brief())
                events += 1
        if history.asking():
            history.keep_asking((await self._to_approve([task])).get(task, frozenset()))
        for intent in history.asking():
            history.ask(await self._whole(task, intent))
        left_out = events - len(timeline)
        return task_view(record, history, tuple(timeline), self._sources.wall_ms(), left_out)

    async def outcome(self, task: str, caller: Identity) -> Outcome:
        """How a task stands, and what it has used, for front ends."""
        await self.summary(task, caller)
        record = await self._record(task)
        if not record.status.is_final:
            return Outcome(record=record)
        cached = output = 0
        isolates = self._config.isolates_tenants
        async for entry in self._journal(task):
            if isinstance(entry, Done):
                cached += entry.cached_input_tokens
                output += entry.output_tokens
        return Outcome(record=record, cached_tokens=cached if isolates else None, output_tokens=output)

    async def has_entry(self, task: str, place: int) -> bool:
        """Whether a task's journal goes as far as this position."""
        return bool(await self._entries(task, place, 1))

    async def page(self, caller: Identity, wanted: PageWanted) -> Page:
        """A page of tasks, newest first.

        It can be shorter than wanted although there are more pages, when few of many tasks are wanted.
        """
        approvals = wanted.approvals and (caller.approves or caller.sees_all)
        if not approvals and not caller.sees_own:
            raise ProblemError(HTTPStatus.FORBIDDEN, "forbidden", ONLY_APPROVALS)
        of, before = None if caller.sees_all else caller.name, wanted.before
        found: list[TaskRecord] = []
        for _ in range(MOST_SCANNED // SCANNED_AT_ONCE):
            ids = await self._ids(of, before, approvals=approvals)
            to_approve = await self._to_approve(ids) if wanted.approvals else {}
            for record in await self.asked(lambda ids=ids: self._store.summaries(ids)):  # type: ignore[misc]
                if wanted.shows(record, is_to_approve=record.id in to_approve):
                    found.append(record)
                if len(found) == wanted.count:
                    return Page(records=tuple(found), next_before=record.id)
            if len(ids) < SCANNED_AT_ONCE:
                return Page(records=tuple(found), next_before=None)
            before = ids[-1]
        return Page(records=tuple(found), next_before=before)

    async def cancel(self, task: str, caller: Identity) -> TaskStatus:
        """Cancel a waiting task, or ask the worker to cancel a running one.

        Raises a problem for a task that has ended in another way.
        """
        await self.summary(task, caller)
        outcome = await self.asked(lambda: self._store.cancel(task))
        if outcome is CancelOutcome.REQUESTED:
            return TaskStatus.RUNNING
        if outcome is CancelOutcome.CANCELLED:
            await self._trace_the_end(task)
            return TaskStatus.CANCELLED
        status = (await self.summary(task, caller)).status
        if status is not TaskStatus.CANCELLED:
            raise ProblemError(
                HTTPStatus.CONFLICT,
                "already-ended",
                f"the task cannot be cancelled: it has already ended with status {status}",
            )
        return status

    async def resolve(self, task: str, said: ResolveRequest, caller: Identity) -> TaskStatus:
        """Say whether an Unsafe call happened, of which nobody knows; the task then goes on.

        Raises a problem where the task does not wait for that.
        """
        await self.summary(task, caller)
        happened = said.outcome is EffectOutcome.HAPPENED
        outcome = await self.asked(
            lambda: self._store.resolve(
                task, said.call, happened=happened, by=caller.name, result=said.result
            )
        )
        if outcome is ResolveOutcome.UNKNOWN:
            raise not_found(task)
        if outcome is ResolveOutcome.NO_ROOM:
            raise _caller_store_full(self._config.queue)
        if outcome is ResolveOutcome.NOTHING_UNKNOWN:
            raise ProblemError(
                HTTPStatus.CONFLICT,
                "nothing-unknown",
                f"there is nothing to resolve: the task does not wait to be told whether {said.call!r} "
                "happened; its waitsFor names the call of which it does",
            )
        return (await self.summary(task, caller)).status

    async def status(self) -> FleetStatus:
        """The fleet's figures now and over the last hour."""
        now = await self.asked(self._store.figures)
        windows = await self._windows()
        figures = fleet_status(
            fleet=self._config.queue.fleet,
            now=now,
            windows=windows,
            redis=await self.asked(self._store.facts),
            max_stored_mib=self._config.queue.max_stored_mib,
            models=self._config.models,
            capacity=self._capacity().models,
        )
        told = {
            "tools": await self.asked(self._store.tool_reports.now),
            "tool_requests": await self.asked(self._store.tool_requests.figures),
        }
        return figures.model_copy(update=told)

    async def admission(self) -> Admission:
        """How many tasks may be at work over the whole fleet."""
        return admitted(self._capacity().models, measured_of(await self._windows()))

    async def say_admission(self, most: int | None, hold_seconds: float) -> None:
        """Let so many tasks be at work, for this time."""
        await self.asked(lambda: self._store.admit(most, hold_seconds))

    async def _windows(self) -> list[dict[str, int]]:
        """The counts of the minutes of the last hour."""
        minute = self._sources.wall_ms() // 60_000
        minutes = range(minute - WINDOW_MINUTES + 1, minute + 1)
        return await self.asked(lambda: self._store.windows(minutes))

    async def _record(self, task: str) -> TaskRecord:
        """A whole task; raises a problem where there is none, or a text of it is gone."""
        try:
            found = await self.asked(lambda: self._store.records([task]))
        except BrokenEntryError as problem:
            raise _gone(problem) from None
        if not found:
            raise not_found(task)
        return found[0]

    async def _whole(self, task: str, intent: Intended) -> Intended:
        """A call with its arguments; raises a problem where they are gone."""
        try:
            return await self.asked(lambda: self._store.whole(task, intent))
        except BrokenEntryError as problem:
            raise _gone(problem) from None

    async def _trace_the_end(self, task: str) -> None:
        """Trace the end of a task that no worker had, if its journal can be read."""
        if self._traces is not None:
            with suppress(ProblemError):
                self._traces.ended(await self._record(task), [entry async for entry in self._journal(task)])

    async def _journal(self, task: str) -> AsyncIterator[Entry]:
        """A task's journal, read in parts."""
        place = 0
        while entries := await self._entries(task, place, READ_AT_ONCE):
            for entry in entries:
                yield entry
            place += len(entries)
            if len(entries) < READ_AT_ONCE:
                return

    async def _entries(self, task: str, place: int, count: int) -> list[Entry]:
        _, entries = await self.asked(lambda: self._store.progress(task, place, count))
        return entries

    async def _ids(self, caller: str | None, before: str | None, *, approvals: bool) -> list[str]:
        return await self.asked(lambda: self._store.ids(caller, before, SCANNED_AT_ONCE, approvals=approvals))

    async def _to_approve(self, ids: Sequence[str]) -> dict[str, frozenset[str]]:
        return await self.asked(lambda: self._store.to_approve(ids))

    async def submitted(self, task: NewTask, submit: Callable[[], Awaitable[Submission]]) -> Submission:
        """Submit a task, with repetitions like any request. Raises a problem for a refusal."""
        try:
            submission = await self._patiently(submit)
        except UncertainError as problem:
            raise uncertain_submission(problem, task) from None
        except StoreUnavailableError as problem:
            raise given_up(problem) from None
        if (refusal := quota_refusal(submission.outcome, self._config.queue)) is not None:
            raise refusal
        if submission.id == task.id:
            return Submission(outcome=SubmitOutcome.CREATED, id=task.id)
        return submission

    async def asked(self, ask: Callable[[], Awaitable[Answer]]) -> Answer:
        """Return the answer of Redis, asked again for a while when there is none; raise a problem then."""
        try:
            return await self._patiently(ask)
        except StoreUnavailableError as problem:
            raise given_up(problem) from None

    async def _patiently(self, ask: Callable[[], Awaitable[Answer]]) -> Answer:
        """The answer. Raises the last error, or an earlier one that leaves in doubt what was written."""
        deadline = self._sources.monotonic_seconds() + ASK_FOR_SECONDS
        doubt: UncertainError | None = None
        while True:
            try:
                return await ask()
            except StoreUnavailableError as problem:
                doubt = problem if isinstance(problem, UncertainError) else doubt
                if self._sources.monotonic_seconds() > deadline:
                    raise doubt or problem from None
                await asyncio.sleep(ASK_AGAIN_SECONDS)


def _gone(problem: BrokenEntryError) -> ProblemError:
    detail = f"the task cannot be shown: {problem.problem}"
    return ProblemError(HTTPStatus.GONE, "payload-gone", detail)


def quota_refusal(outcome: SubmitOutcome, queue: QueueConfig) -> ProblemError | None:
    """The problem for a submission that a quota refused: it says whose limit it is, and which."""
    match outcome:
        case SubmitOutcome.FULL:
            kind = "queue-full"
            detail = (
                f"the queue is full: {queue.max_waiting} tasks are waiting, which is the fleet's "
                "queue.maxWaiting; try again later"
            )
        case SubmitOutcome.CALLER_FULL:
            kind = "caller-full"
            detail = (
                f"your own share of the queue is used up: one caller may hold {queue.queue_percent:g} % of "
                f"its {queue.max_waiting} places (gateway.callerLimits.queuePercent); try again when some of "
                "your tasks have started"
            )
        case SubmitOutcome.CALLER_STORE_FULL:
            return _caller_store_full(queue)
        case SubmitOutcome.STORE_FULL:
            kind = "store-full"
            detail = (
                "the fleet stores as much as submissions may fill, its queue.maxStoredMiB; try again when "
                "older tasks are forgotten"
            )
        case _:
            return None
    return _too_much(kind, detail)


def _caller_store_full(queue: QueueConfig) -> ProblemError:
    return _too_much(
        "caller-store-full",
        "your own share of the store is used up: one caller's tasks may hold "
        f"{queue.queue_percent:g} % of queue.maxStoredMiB (gateway.callerLimits.queuePercent); try "
        "again when some of your tasks are forgotten",
    )


def _too_much(kind: str, detail: str) -> ProblemError:
    retry_after = {"Retry-After": str(QUEUE_FULL_RETRY_SECONDS)}
    return ProblemError(HTTPStatus.TOO_MANY_REQUESTS, kind, detail, headers=retry_after)


def _own_key(key: str | None, tenant: str, own: str) -> str | None:
    """Two tenants for whom one front end acts may choose the same key, and must not get each other's task."""
    return key if key is None or tenant == own else f"{tenant}\n{key}"


def _may_see(record: TaskRecord, caller: Identity) -> bool:
    return caller.sees_all or (caller.sees_own and record.caller == caller_key(caller.name))
