"""A journal with a crash point before and after each write of the real store."""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import TypeVar

from agent_support.memory import CrashPoints
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
from flotilla_runtime.agent.store.task_store import TaskStore
from flotilla_runtime.agent.tasks import Claim

Answer = TypeVar("Answer")


class CrashingJournal:
    """The real store, with a crash point before and after each write."""

    def __init__(self, store: TaskStore, points: CrashPoints) -> None:
        self._store = store
        self._points = points

    async def append(self, claim: Claim, expected: int, entries: Sequence[Entry]) -> Written:
        what = "+".join(f"{type(entry).__name__} {getattr(entry, 'call', '')}" for entry in entries)
        return await self._passed(what, lambda: self._store.append(claim, expected, entries))

    async def spawn(self, claim: Claim, expected: int, intent: Intended, child_input: str) -> Written:
        return await self._passed("spawn", lambda: self._store.spawn(claim, expected, intent, child_input))

    async def deliver(self, claim: Claim, expected: int, intent: Intended, post: Post) -> Written:
        return await self._passed("deliver", lambda: self._store.deliver(claim, expected, intent, post))

    async def state(self, claim: Claim, expected: int, intent: Intended, request: StateRequest) -> Written:
        return await self._passed("state", lambda: self._store.state(claim, expected, intent, request))

    async def checkpoint(self, claim: Claim, change: CheckpointChange) -> Checkpointed:
        return await self._passed("checkpoint", lambda: self._store.checkpoint(claim, change))

    async def checkpoint_fields(self, space: str) -> Sequence[str]:
        return await self._store.checkpoint_fields(space)

    async def checkpoint_texts(self, space: str, fields: Sequence[str]) -> Sequence[str | None]:
        return await self._store.checkpoint_texts(space, fields)

    async def whole(self, task_id: str, entry: OneEntry) -> OneEntry:
        return await self._store.whole(task_id, entry)

    async def children(self, ids: Sequence[str]) -> Mapping[str, ChildEnd]:
        return await self._store.children(ids)

    async def came(self, claim: Claim, call: str, taken: Collection[str]) -> Came | None:
        return await self._passed("came", lambda: self._store.came(claim, call, taken))

    async def suspend(self, claim: Claim, expected: int, waits: Waits) -> bool:
        return await self._passed("suspend", lambda: self._store.suspend(claim, expected, waits))

    async def finish(self, claim: Claim, finish: Finish) -> None:
        await self._passed("finish", lambda: self._store.finish(claim, finish))

    async def release(self, claim: Claim, worker: str) -> None:
        await self._passed("release", lambda: self._store.release(claim, worker))

    async def _passed(self, what: str, write: Callable[[], Awaitable[Answer]]) -> Answer:
        self._points.reach(f"before {what}")
        answer = await write()
        self._points.reach(f"after {what}")
        return answer
