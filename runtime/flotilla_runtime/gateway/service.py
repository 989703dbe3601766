"""The operations of the task API without HTTP: submit, get, list, cancel, and the fleet's figures.

When Redis does not answer, a request is repeated for two seconds, so callers do not notice a broken
connection or a short failover; after that they get a 503. A submission is repeated with the same id, so it
never becomes two tasks.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, TypeVar

from flotilla_runtime.agent.errors import StoreUnavailableError
from flotilla_runtime.agent.journal import TaskStatus
from flotilla_runtime.agent.store import TaskStore
from flotilla_runtime.agent.tasks import (
    CancelOutcome,
    LoadedTask,
    NewTask,
    Submission,
    SubmitOutcome,
    TaskRecord,
    caller_key,
)
from flotilla_runtime.contract import FleetStatus, GatewayConfig
from flotilla_runtime.gateway.auth import Identity, tenant_of
from flotilla_runtime.gateway.figures import WINDOW_MINUTES, fleet_status
from flotilla_runtime.gateway.problems import ProblemError, not_found, unavailable
from flotilla_runtime.gateway.requests import SubmitRequest
from flotilla_runtime.gateway.task_ids import is_task_id, task_id

Answer = TypeVar("Answer")

ASK_FOR_SECONDS: Final = 2.0
ASK_AGAIN_SECONDS: Final = 0.1
RETRY_AFTER_SECONDS: Final = 2
QUEUE_FULL_RETRY_SECONDS: Final = 5
SCANNED_AT_ONCE: Final = 200
MOST_SCANNED: Final = 2000


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


class TaskService:
    """The operations on a fleet's tasks, with the caller's rights."""

    def __init__(self, store: TaskStore, config: GatewayConfig, sources: Sources) -> None:
        self._store = store
        self._config = config
        self._sources = sources

    async def submit(self, request: SubmitRequest, caller: Identity) -> Submission:
        """Store a new task; raises a problem when the queue is full or Redis does not answer."""
        task = NewTask(
            id=task_id(self._sources.wall_ms(), self._sources.random_bits(80)),
            input=request.input,
            caller=caller.name,
            limits=request.limits.within(self._config.limits),
            priority=request.priority,
            idempotency_key=request.idempotency_key,
            tenant=tenant_of(caller.name),
            metadata=request.metadata,
        )
        submission = await self._asked(lambda: self._store.submit(task))
        if submission.outcome is SubmitOutcome.FULL:
            raise ProblemError(
                HTTPStatus.TOO_MANY_REQUESTS,
                "queue-full",
                f"the queue is full: {self._config.queue.max_waiting} tasks are waiting; try again later",
                headers={"Retry-After": str(QUEUE_FULL_RETRY_SECONDS)},
            )
        if submission.id == task.id:
            return Submission(outcome=SubmitOutcome.CREATED, id=task.id)
        return submission

    async def load(self, task: str, caller: Identity) -> LoadedTask:
        """A task that this caller may see; raises a problem for any other."""
        loaded = await self._asked(lambda: self._store.load(task)) if is_task_id(task) else None
        if loaded is None or not _may_see(loaded.record, caller):
            raise not_found(task)
        return loaded

    async def page(
        self, caller: Identity, *, status: TaskStatus | None, before: str | None, count: int
    ) -> Page:
        """A page of tasks, newest first.

        It can be shorter than `count` although there are more pages, when few of many tasks have the status.
        """
        of = None if caller.sees_all else caller.name
        found: list[TaskRecord] = []
        for _ in range(MOST_SCANNED // SCANNED_AT_ONCE):
            ids = await self._ids(of, before)
            for record in await self._asked(lambda ids=ids: self._store.records(ids)):  # type: ignore[misc]
                if status is None or record.status is status:
                    found.append(record)
                if len(found) == count:
                    return Page(records=tuple(found), next_before=record.id)
            if len(ids) < SCANNED_AT_ONCE:
                return Page(records=tuple(found), next_before=None)
            before = ids[-1]
        return Page(records=tuple(found), next_before=before)

    async def cancel(self, task: str, caller: Identity) -> TaskStatus:
        """Cancel a waiting task, or ask the worker to cancel a running one.

        Raises a problem for a task that has ended in another way.
        """
        await self.load(task, caller)
        outcome = await self._asked(lambda: self._store.cancel(task))
        if outcome is CancelOutcome.REQUESTED:
            return TaskStatus.RUNNING
        if outcome is CancelOutcome.CANCELLED:
            return TaskStatus.CANCELLED
        status = (await self.load(task, caller)).record.status
        if status is not TaskStatus.CANCELLED:
            raise ProblemError(
                HTTPStatus.CONFLICT,
                "already-ended",
                f"the task cannot be cancelled: it has already ended with status {status}",
            )
        return status

    async def resolve(self, task: str, caller: Identity) -> None:
        """Not yet supported: report the outcome of an effect whose outcome is unknown.

        Tasks have no such effects yet, so this raises a problem for every task.
        """
        await self.load(task, caller)
        raise ProblemError(
            HTTPStatus.CONFLICT,
            "nothing-unknown",
            "there is nothing to resolve: in this release no task has an effect whose outcome is unknown",
        )

    async def status(self) -> FleetStatus:
        """The fleet's figures now and over the last hour."""
        minute = self._sources.wall_ms() // 60_000
        minutes = range(minute - WINDOW_MINUTES + 1, minute + 1)
        (waiting, in_flight), oldest_ms, windows = (
            await self._asked(self._store.queue_lengths),
            await self._asked(self._store.oldest_waiting_ms),
            await self._asked(lambda: self._store.windows(minutes)),
        )
        return fleet_status(
            fleet=self._config.queue.fleet,
            waiting=waiting,
            in_flight=in_flight,
            oldest_waiting_ms=oldest_ms,
            windows=windows,
        )

    async def _ids(self, caller: str | None, before: str | None) -> list[str]:
        return await self._asked(lambda: self._store.ids(caller, before, SCANNED_AT_ONCE))

    async def _asked(self, ask: Callable[[], Awaitable[Answer]]) -> Answer:
        deadline = self._sources.monotonic_seconds() + ASK_FOR_SECONDS
        while True:
            try:
                return await ask()
            except StoreUnavailableError:
                if self._sources.monotonic_seconds() > deadline:
                    raise unavailable(
                        "Redis, which holds the fleet's tasks, does not answer; try again in "
                        f"{RETRY_AFTER_SECONDS} s",
                        RETRY_AFTER_SECONDS,
                    ) from None
                await asyncio.sleep(ASK_AGAIN_SECONDS)


def _may_see(record: TaskRecord, caller: Identity) -> bool:
    return caller.sees_all or record.caller == caller_key(caller.name)
