"""Repeats requests to Redis until it answers, for as long as their task may still run."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import structlog

from flotilla_runtime.agent.engine.run import Clock
from flotilla_runtime.agent.errors import StoreUnavailableError
from flotilla_runtime.agent.journal import Entry, Intended
from flotilla_runtime.agent.protocols import (
    Came,
    CheckpointChange,
    Checkpointed,
    ChildEnd,
    Finish,
    OneEntry,
    Post,
    StateRequest,
    Waits,
    Written,
)
from flotilla_runtime.agent.retries import STORE_BACKOFF
from flotilla_runtime.agent.store.task_store import TaskStore
from flotilla_runtime.agent.store.worker_tasks import new_request
from flotilla_runtime.agent.tasks import Claim
from flotilla_runtime.agent.worker.metrics import WorkerMetrics
from flotilla_runtime.backoff import Backoff, Draw

Answer = TypeVar("Answer")

LEAST_PATIENCE_SECONDS: Final = 60.0  # so that the end of a task whose time is over can still be written

log = structlog.get_logger(__name__)


async def until_answered(
    ask: Callable[[], Awaitable[Answer]],
    failed: Callable[[StoreUnavailableError], None],
    *,
    backoff: Backoff = STORE_BACKOFF,
    draw: Draw = random.uniform,
) -> Answer:
    """Repeat a request until Redis answers. `failed` is told of each failure; what it raises ends it."""
    failures = 0
    while True:
        try:
            return await ask()
        except StoreUnavailableError as problem:
            failures += 1
            log.warning("store_unavailable", problem=problem.problem, failures=failures)
            failed(problem)
        await asyncio.sleep(backoff.seconds_after(failures, draw))


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """Repeats requests to Redis for as long as the task may still run, and for at least a minute."""

    metrics: WorkerMetrics
    clock: Clock
    task_ends_at: float = 0.0
    backoff: Backoff = STORE_BACKOFF

    async def answered(self, ask: Callable[[], Awaitable[Answer]]) -> Answer:
        """Repeat a request until Redis answers or the time is over."""
        gives_up_at = max(self.task_ends_at, self.clock.monotonic_seconds() + LEAST_PATIENCE_SECONDS)

        def failed(problem: StoreUnavailableError) -> None:
            self.metrics.store_problems.inc()
            if self.clock.monotonic_seconds() >= gives_up_at:
                raise problem

        return await until_answered(ask, failed, backoff=self.backoff)


class PersistentJournal:
    """The store's journal, with each write repeated under its name until it is answered."""

    def __init__(self, store: TaskStore, patience: Patience) -> None:
        self._store = store
        self._patience = patience

    async def append(self, claim: Claim, expected: int, entries: Sequence[Entry]) -> Written:
        """Append entries at this position."""
        write = new_request()
        return await self._patience.answered(lambda: self._store.append(claim, expected, entries, write))

    async def spawn(self, claim: Claim, expected: int, intent: Intended, child_input: str) -> Written:
        """Write the intent of a spawned task and submit that task."""
        write = new_request()
        return await self._patience.answered(
            lambda: self._store.spawn(claim, expected, intent, child_input, write)
        )

    async def deliver(self, claim: Claim, expected: int, intent: Intended, post: Post) -> Written:
        """Write the intent of a message and submit its task."""
        write = new_request()
        return await self._patience.answered(
            lambda: self._store.deliver(claim, expected, intent, post, write)
        )

    async def state(self, claim: Claim, expected: int, intent: Intended, request: StateRequest) -> Written:
        """Read or write a value of the state."""
        write = new_request()
        return await self._patience.answered(
            lambda: self._store.state(claim, expected, intent, request, write)
        )

    async def checkpoint(self, claim: Claim, change: CheckpointChange) -> Checkpointed:
        """Change the checkpoints of a graph."""
        return await self._patience.answered(lambda: self._store.checkpoint(claim, change))

    async def checkpoint_fields(self, space: str) -> Sequence[str]:
        """The names of what a graph has kept."""
        return await self._patience.answered(lambda: self._store.checkpoint_fields(space))

    async def checkpoint_texts(self, space: str, fields: Sequence[str]) -> Sequence[str | None]:
        """The texts of these fields."""
        return await self._patience.answered(lambda: self._store.checkpoint_texts(space, fields))

    async def whole(self, task_id: str, entry: OneEntry) -> OneEntry:
        """An entry with its value."""
        return await self._patience.answered(lambda: self._store.whole(task_id, entry))

    async def children(self, ids: Sequence[str]) -> Mapping[str, ChildEnd]:
        """Those of these tasks that have ended."""
        return await self._patience.answered(lambda: self._store.children(ids))

    async def came(self, claim: Claim, call: str, taken: Collection[str]) -> Came | None:
        """Return the answer from outside for this call, None for none yet."""
        return await self._patience.answered(lambda: self._store.came(claim, call, taken))

    async def suspend(self, claim: Claim, expected: int, waits: Waits) -> bool:
        """Give the place up; False if what it waits for has come already."""
        write = new_request()
        return await self._patience.answered(lambda: self._store.suspend(claim, expected, waits, write))

    async def finish(self, claim: Claim, finish: Finish) -> None:
        """End the task."""
        await self._patience.answered(lambda: self._store.finish(claim, finish))

    async def release(self, claim: Claim, worker: str) -> None:
        """Hand the task over."""
        await self._patience.answered(lambda: self._store.release(claim, worker))
