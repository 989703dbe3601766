"""A tree of tasks in one worker with a single place, against a real Redis: it ends, and it is cancelled."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from agent_support.running import said
from agent_support.stores import open_store
from flotilla_runtime.agent.budgets import Amount, Budget
from flotilla_runtime.agent.engine.run import Clock
from flotilla_runtime.agent.journal import TaskStatus
from flotilla_runtime.agent.protocols import Call, Reconciled, Reply, Session
from flotilla_runtime.agent.store.task_store import TaskStore
from flotilla_runtime.agent.tasks import LoadedTask, NewTask, child_id
from flotilla_runtime.agent.worker.loading import load_program
from flotilla_runtime.agent.worker.worker import Worker
from flotilla_runtime.contract import (
    ModelConnection,
    QueueConfig,
    Retrieval,
    SubAgentConfig,
    TaskLimits,
    WorkerConfig,
)
from router_support.waiting import until

pytestmark = pytest.mark.services

QUEUE = QueueConfig(fleet="default/support")
LIMITS = TaskLimits(max_steps=30, max_fan_out=2)


@pytest.fixture
async def store(redis_server: Any) -> AsyncIterator[TaskStore]:
    opened = open_store(redis_server)
    yield opened
    await opened.close()


class Model:
    """The fleet's agent asks its two agents twice and then answers; `holds` keeps theirs from answering."""

    def __init__(self) -> None:
        self.holds = asyncio.Event()
        self.holds.set()
        self.sessions: list[tuple[str, str]] = []

    async def reservation(self, call: Call, session: Session, budget: Budget) -> tuple[Call, Amount]:
        return call, Amount(tokens=100)

    async def reconcile(self, call: Call, session: Session) -> Reconciled | None:
        return None

    async def make(self, call: Call, session: Session) -> Reply:
        self.sessions.append((session.agent, session.tenant))
        if session.agent:
            await self.holds.wait()
            return said(f"{session.agent} is done.")
        if len([one for one in call.request.messages if one["role"] == "tool"]) >= 4:
            return said("All is done.")
        asked = [
            {"id": f"c{at}", "name": name, "arguments": json.dumps({"task": "go"})}
            for at, name in enumerate("ab")
        ]
        return said({"text": "", "toolCalls": asked})


@asynccontextmanager
async def one_place(store: TaskStore, model: Model) -> AsyncIterator[Worker]:
    config = WorkerConfig(
        queue=QUEUE,
        prompt="You answer.",
        retrieval=Retrieval.TOOL,
        models=(ModelConnection(role="Default", name="m", url="http://model/v1", model="m"),),
        agents=tuple(
            SubAgentConfig(name=name, description=f"Does {name}.", prompt="Do it.") for name in "ab"
        ),
        concurrency=1,
        handover_seconds=0.1,
    )
    clock = Clock(monotonic_seconds=time.monotonic)
    worker = Worker(
        name="w1", store=store, calls=model, config=config, clock=clock, program=load_program(config)
    )
    stopping = asyncio.Event()
    running = asyncio.create_task(worker.run(stopping))
    try:
        yield worker
    finally:
        stopping.set()
        await running


async def submitted(store: TaskStore) -> str:
    task = NewTask(id="0" * 25 + "1", input="go", caller="ann", tenant="red", limits=LIMITS)
    await store.submit(task)
    return task.id


async def ended(store: TaskStore, *tasks: str) -> list[LoadedTask]:
    async with asyncio.timeout(20):
        while True:
            found = [await store.load(task) for task in tasks]
            if all(one is not None and one.record.status.is_final for one in found):
                return [one for one in found if one is not None]
            await asyncio.sleep(0.02)


@pytest.mark.holds(
    "agents.md",
    "The calls of another agent are tasks of its own, on the same limits, for the same tenant and caller",
)
@pytest.mark.holds("agents.md", "A worker with one place comes to the end of any tree, within its width")
async def test_one_worker_with_one_place_comes_to_the_end_of_a_tree(store: TaskStore) -> None:
    model = Model()
    async with one_place(store, model):
        task = await submitted(store)
        (root,) = await ended(store, task)
    assert root.record.status is TaskStatus.SUCCEEDED, root.record.message
    assert root.record.result["answer"] == "All is done."
    assert sorted(model.sessions) == sorted([("", "red")] * 3 + [("a", "red"), ("b", "red")] * 2)
    child = await store.load(child_id(task, "turn/1/agent/a"))
    assert child is not None
    assert (child.record.agent, child.record.parent, child.record.root) == ("a", task, task)
    assert root.record.used.steps == 7, "the steps of the whole tree"


@pytest.mark.holds("agents.md", "Who cancels a task cancels those that it spawned")
async def test_who_cancels_a_task_cancels_what_its_agents_do(store: TaskStore) -> None:
    model = Model()
    model.holds.clear()
    async with one_place(store, model):
        task = await submitted(store)
        await until(lambda: any(agent for agent, _ in model.sessions))
        await store.cancel(task)
        children = [child_id(task, f"turn/1/agent/{name}") for name in "ab"]
        trees = await ended(store, task, *children)
    assert [one.record.status for one in trees] == [TaskStatus.CANCELLED] * 3


@pytest.mark.holds(
    "tasks.md",
    "A task goes to the agent that it names, replays too; a name that there is not is refused with "
    "those that there are",
)
async def test_a_task_is_done_by_the_agent_that_it_names(store: TaskStore) -> None:
    model = Model()
    async with one_place(store, model):
        named: dict[str, Any] = {"input": "go", "caller": "ann", "limits": LIMITS, "agent": "b"}
        await store.submit(NewTask(id="0" * 25 + "2", **named))
        (alone,) = await ended(store, "0" * 25 + "2")
    assert alone.record.result["answer"] == "b is done."
    assert (alone.record.agent, alone.record.parent) == ("b", None)
