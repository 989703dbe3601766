"""Builders for tests of the task store: stores, tasks, entries."""

from typing import Any, Final

from flotilla_runtime.agent.journal import CallKind, CallOutcome, Done, EndReason, Intended, TaskStatus
from flotilla_runtime.agent.protocols import Finish
from flotilla_runtime.agent.store.connections import connect
from flotilla_runtime.agent.store.payloads import ObjectStore
from flotilla_runtime.agent.store.task_store import TaskStore
from flotilla_runtime.agent.tasks import Claim, LoadedTask, NewTask
from flotilla_runtime.contract import QueueConfig, TaskLimits

END: Final = Finish(
    status=TaskStatus.SUCCEEDED, reason=EndReason.COMPLETED, result={"answer": "so"}, busy_ms={}, calls={}
)


def open_store(server: Any, objects: ObjectStore | None = None, **settings: Any) -> TaskStore:
    config = QueueConfig(
        url=server.url,
        password_path=server.password_path,
        **{"fleet": "default/support", "lease_seconds": 30, **settings},
    )
    return TaskStore(connect(config), config, objects)


async def with_lines(store: TaskStore) -> TaskStore:
    """The store after a worker has come, so that tasks wait in lines, and gone."""
    assert await store.claim("w0", 1) == []
    await store.leave("w0")
    return store


def task(task_id: str, *, caller: str = "ann", limits: TaskLimits | None = None, **fields: Any) -> NewTask:
    return NewTask(id=task_id, input="why?", caller=caller, limits=limits or TaskLimits(), **fields)


def intent(call: str = "answer/1", **fields: Any) -> Intended:
    return Intended(
        **{"at": 1, "call": call, "kind": CallKind.MODEL, "target": "llama", "reserved_tokens": 10, **fields}
    )


def done(call: str = "answer/1", **fields: Any) -> Done:
    return Done(
        **{"at": 2, "call": call, "outcome": CallOutcome.SUCCEEDED, "took_ms": 1, "value": "so", **fields}
    )


async def running(store: TaskStore, new: NewTask, worker: str = "w1") -> Claim:
    """Submit a task and claim it; the worker then leaves what waits to others."""
    await store.submit(new)
    (claim,) = await store.claim(worker, 1)
    await store.leave(worker)
    assert claim.id == new.id
    return claim


async def loaded(store: TaskStore, task_id: str) -> LoadedTask:
    found = await store.load(task_id)
    assert found is not None
    return found


async def length(store: TaskStore, task_id: str) -> int:
    return len((await loaded(store, task_id)).entries)
