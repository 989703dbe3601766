"""Tasks that a worker in this process cannot run, or not now, on a real Redis.

Outages of Redis are in test_worker.py, lost workers in test_store_company.py.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from agent_support.stores import loaded, open_store, running, task
from flotilla_runtime.agent.budgets import Amount, Budget
from flotilla_runtime.agent.engine.run import Clock
from flotilla_runtime.agent.journal import CallOutcome, EndReason, HandedOver, TaskStatus
from flotilla_runtime.agent.protocols import Call, Reply, Session
from flotilla_runtime.agent.store.task_store import TaskStore
from flotilla_runtime.agent.tasks import LoadedTask
from flotilla_runtime.agent.worker.loading import load_program
from flotilla_runtime.agent.worker.worker import Worker
from flotilla_runtime.contract import ModelConnection, QueueConfig, WorkerConfig

pytestmark = pytest.mark.services

CLOCK = Clock(monotonic_seconds=time.monotonic)
MODEL = ModelConnection(role="Default", name="m", url="http://model/v1", model="m")


class Answers:
    """A model that answers at once, or refuses."""

    def __init__(self, *, refuses: bool = False) -> None:
        self.refuses = refuses
        self.made = 0

    async def reservation(self, call: Call, session: Session, budget: Budget) -> tuple[Call, Amount]:
        return call, Amount()

    async def reconcile(self, call: Call, session: Session) -> None:
        return None

    async def make(self, call: Call, session: Session) -> Reply:
        self.made += 1
        if self.refuses:
            return Reply(outcome=CallOutcome.FAILED, problem="429", is_refused=True)
        return Reply(outcome=CallOutcome.SUCCEEDED, value="So it is.", input_tokens=4, output_tokens=4)


class SlowStore(TaskStore):
    """A store that loads nothing until `loads` is set; `stumbles` makes loading go wrong."""

    stumbles = False

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.loads = asyncio.Event()
        self.loads.set()

    async def load(self, task_id: str) -> LoadedTask | None:
        await self.loads.wait()
        if self.stumbles:
            raise RuntimeError("unthought of")
        return await super().load(task_id)


@pytest.fixture
async def store(redis_server: Any) -> AsyncIterator[TaskStore]:
    opened = open_store(redis_server)
    yield opened
    await opened.close()


def slow_store(store: TaskStore) -> SlowStore:
    return SlowStore(store._client, store._config)


@contextlib.asynccontextmanager
async def working(
    store: TaskStore, redis_server: Any, calls: Any, *, lease_seconds: float = 30, **fields: Any
) -> AsyncIterator[Worker]:
    queue = QueueConfig(
        fleet="default/support",
        url=redis_server.url,
        password_path=redis_server.password_path,
        lease_seconds=lease_seconds,
    )
    config = WorkerConfig(queue=queue, prompt="Answer.", models=(MODEL,), handover_seconds=10, **fields)
    worker = Worker(
        name="w1", store=store, calls=calls, config=config, clock=CLOCK, program=load_program(config)
    )
    stopping = asyncio.Event()
    running = asyncio.create_task(worker.run(stopping))
    try:
        yield worker
    finally:
        stopping.set()
        await running


async def status(store: TaskStore, task_id: str) -> TaskStatus:
    return (await store.records([task_id]))[0].status


async def becomes(store: TaskStore, task_id: str, *statuses: TaskStatus) -> None:
    async with asyncio.timeout(20):
        while True:
            if await status(store, task_id) in statuses:
                return
            await asyncio.sleep(0.02)


async def has_ended(store: TaskStore, task_id: str) -> None:
    await becomes(store, task_id, TaskStatus.SUCCEEDED, TaskStatus.FAILED)


@pytest.mark.holds("tasks.md", "A worker that is asked to leave hands its tasks over")
async def test_a_task_that_is_still_loading_keeps_its_lease_and_is_handed_over(redis_server: Any) -> None:
    store = open_store(redis_server, lease_seconds=0.6)
    slow = slow_store(store)
    slow.loads.clear()
    await store.submit(task("t1"))
    async with working(slow, redis_server, Answers(), lease_seconds=0.6):
        await becomes(store, "t1", TaskStatus.RUNNING)
        await asyncio.sleep(1.5)
        assert await store.claim("w2", 1) == [], "it was renewed"
        asyncio.get_running_loop().call_later(0.3, slow.loads.set)
    found = await loaded(store, "t1")
    assert (found.record.status, found.record.attempts) == (TaskStatus.WAITING, 1)
    assert isinstance(found.entries[-1], HandedOver)
    assert found.entries[-1].worker == "w1"
    assert [claim.id for claim in await store.claim("w2", 1)] == ["t1"], "the worker has said goodbye"
    await store.close()


@pytest.mark.holds(
    "tasks.md", "A broken entry ends its task; one of a newer version waits for a newer worker"
)
async def test_a_task_with_a_broken_entry_ends_as_infrastructure(store: TaskStore, redis_server: Any) -> None:
    await store.submit(task("t1"))
    redis_server.ask("rpush", store.keys.journal("t1"), '{"type":"Done","at":')
    async with working(store, redis_server, Answers()):
        await has_ended(store, "t1")
    (record,) = await store.records(["t1"])
    assert record.reason == EndReason.INFRASTRUCTURE
    assert (record.message or "").startswith("an entry of the task's journal cannot be read: ")


@pytest.mark.holds(
    "tasks.md", "A broken entry ends its task; one of a newer version waits for a newer worker"
)
async def test_a_task_of_a_newer_version_is_left_to_newer_workers(
    store: TaskStore, redis_server: Any
) -> None:
    await store.submit(task("t1"))
    await store.submit(task("t2"))
    redis_server.ask("rpush", store.keys.journal("t1"), '{"type":"Dreamt","at":7}')
    with structlog.testing.capture_logs() as logged:
        async with working(store, redis_server, Answers()):
            await has_ended(store, "t2")
            await asyncio.sleep(0.3)
    found = await loaded(store, "t1")
    assert (found.record.status, found.record.attempts) == (TaskStatus.WAITING, 1)
    told = [line for line in logged if line["event"] == "journal_of_a_newer_version"]
    assert [line["task"] for line in told] == ["t1"], "it was tried once"


@pytest.mark.holds(
    "tasks.md",
    "A task that kills its workers is found in smaller and smaller groups and given up; no other "
    "loses an attempt",
)
async def test_a_task_whose_run_always_breaks_is_given_up_at_once(redis_server: Any) -> None:
    store = open_store(redis_server, max_attempts=2)
    slow = slow_store(store)
    slow.stumbles = True
    await store.submit(task("t1"))
    with structlog.testing.capture_logs() as logged:
        async with working(slow, redis_server, Answers()):
            await has_ended(store, "t1")
    record = (await loaded(store, "t1")).record
    assert (record.reason, record.attempts) == (EndReason.INFRASTRUCTURE, 3)
    assert [line["event"] for line in logged if line["log_level"] == "error"] == ["task_run_crashed"] * 3
    await store.close()


@pytest.mark.holds("tasks.md", "Workers take no tasks while a model refuses their calls")
async def test_a_worker_takes_nothing_while_its_model_refuses(store: TaskStore, redis_server: Any) -> None:
    model = Answers(refuses=True)
    async with working(store, redis_server, model):
        await store.submit(task("t1"))
        await has_ended(store, "t1")
        made = model.made
        await store.submit(task("t2"))
        await asyncio.sleep(1.5)
        assert await status(store, "t2") is TaskStatus.WAITING
        assert model.made == made
        model.refuses = False
        await has_ended(store, "t2")
    assert await status(store, "t2") is TaskStatus.SUCCEEDED


async def test_a_worker_takes_tasks_of_revisions_that_it_has_adopted(
    store: TaskStore, redis_server: Any, tmp_path: Path
) -> None:
    adopted = tmp_path / "adopted.json"
    adopted.write_text('["r1"]')
    for name, revision in (("t1", "r1"), ("t2", "r2"), ("t3", "r3")):
        await store.submit(task(name, revision=revision))
    async with working(store, redis_server, Answers(), revision="r2", adopted_path=str(adopted)) as worker:
        await has_ended(store, "t1")
        await has_ended(store, "t2")
        figures = await store.figures()
        assert list(figures.workers) == ["w1"]
        assert worker.vitals.is_ready
    assert await status(store, "t3") is TaskStatus.WAITING


async def test_two_workers_of_one_name_are_two(store: TaskStore, redis_server: Any) -> None:
    """Both hold tasks; that the first is lost says nothing of the second's."""
    first = await running(store, task("t1"), "w1#one")
    second = await running(store, task("t2"), "w1#two")
    assert (await store.figures()).workers == {"w1": 2}
    redis_server.ask("zadd", store.keys.leases, "1", first.id)
    redis_server.ask("zadd", store.keys.workers, "1", "w1#one")
    assert [claim.id for claim in await store.claim("w3", 9)] == ["t1"]
    assert (await store.renew([second])).lost == frozenset()
