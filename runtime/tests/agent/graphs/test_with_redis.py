"""Graphs on a real Redis: the conformance suite of LangGraph, and a life with a kill at every third write."""

import asyncio
import os
import pickle
import time
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any, cast

import ormsgpack
import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, Checkpoint, empty_checkpoint
from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.checkpoint.conformance.capabilities import Capability
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import interrupt

from agent_support.crashing import CrashingJournal
from agent_support.memory import CrashError, CrashPoints
from agent_support.running import ScriptedCalls, program_of, said
from agent_support.stores import loaded, open_store, running, task, with_lines
from flotilla_runtime.agent.engine.checkpoints import Checkpoints
from flotilla_runtime.agent.engine.pace import Pace
from flotilla_runtime.agent.engine.run import Clock, Means, TaskRun
from flotilla_runtime.agent.graphs.compiling import agent_of
from flotilla_runtime.agent.graphs.fields import packed
from flotilla_runtime.agent.graphs.saver import FlotillaSaver
from flotilla_runtime.agent.journal import Done, Intended, TaskStatus
from flotilla_runtime.agent.protocols import CheckpointChange
from flotilla_runtime.agent.store.task_store import TaskStore
from flotilla_runtime.agent.tasks import Decision
from flotilla_runtime.graphs import FlotillaChatModel

pytestmark = pytest.mark.services

CLOCK = Clock(monotonic_seconds=time.monotonic)


@pytest.mark.holds(
    "graphs.md", "The checkpointer passes LangGraph's conformance suite, extended capabilities too"
)
async def test_the_checkpointer_conforms_in_redis(redis_server: Any) -> None:
    store = await with_lines(open_store(redis_server))
    claim = await running(store, task("t1"))

    @checkpointer_test(name="in Redis")
    async def in_redis() -> AsyncGenerator[BaseCheckpointSaver[Any], None]:
        kept = Checkpoints(claim, store, Pace(lambda: 0), None)
        saver = FlotillaSaver(lambda: kept)
        yield saver
        await saver._drop(await saver._fields())

    report = await validate(in_redis)
    assert {name: one.failures for name, one in report.results.items() if one.failures} == {}
    assert {name for name, one in report.results.items() if one.passed} == {one.value for one in Capability}
    await store.close()


@pytest.mark.attack("A checkpoint in Redis names a function that the worker that reads it is to call")
async def test_a_forged_checkpoint_builds_nothing(redis_server: Any, tmp_path: Path) -> None:
    store = await with_lines(open_store(redis_server))
    claim = await running(store, task("t1"))
    kept = Checkpoints(claim, store, Pace(lambda: 0), None)
    saver = FlotillaSaver(lambda: kept)
    config: RunnableConfig = {"configurable": {"thread_id": "t1", "checkpoint_ns": ""}}
    checkpoint = {**empty_checkpoint(), "channel_values": {"x": "plain"}, "channel_versions": {"x": "1"}}
    await saver.aput(config, cast(Checkpoint, checkpoint), {}, {"x": "1"})
    (value,) = [one for one in await store.checkpoint_fields("t1") if one.startswith('["v"')]

    async def read(kind: str, body: bytes) -> Any:
        await kept.write(CheckpointChange(put={value: packed(value=(kind, body))}))
        found = await saver.aget_tuple(config)
        assert found is not None
        return found.checkpoint["channel_values"]["x"]

    order, mark = f"touch {tmp_path}/taken", tmp_path / "taken"
    named = ormsgpack.packb(("os", "system", order))
    for code in range(6):
        await read("msgpack", ormsgpack.packb(ormsgpack.Ext(code, named)))
        assert not mark.exists()
    for kind in ("json", "pickle"):
        with pytest.raises(ValueError, match="not read"):
            await read(kind, pickle.dumps(Taking(order)))
        assert not mark.exists()
    pickle.loads(pickle.dumps(Taking(order)))
    assert mark.exists(), "whoever reads it as it wants to be read is taken"
    await store.close()


class Taking:
    def __init__(self, order: str) -> None:
        self.order = order

    def __reduce__(self) -> Any:
        return os.system, (self.order,)


async def think(state: MessagesState) -> Mapping[str, Any]:
    return {"messages": [await FlotillaChatModel().ainvoke(state["messages"])]}


async def ask(state: MessagesState) -> Mapping[str, Any]:
    decision = interrupt(state["messages"][-1].text)
    return {"messages": [("ai", f"{decision['by']}: {decision['comment']}")]}


GRAPH = StateGraph(MessagesState).add_node("think", think).add_node("ask", ask)
PROGRAM = program_of(agent_of("m:g", GRAPH.add_edge(START, "think").add_edge("think", "ask")))


async def lived(store: TaskStore, task_id: str, crash_at: int | None) -> tuple[list[str], int]:
    """The calls that were made, and the points that were passed until the crash."""
    points = CrashPoints(crash_at=crash_at)
    calls = ScriptedCalls(script=lambda call: said("May I?"), points=points)
    await store.submit(task(task_id))
    passed = 0
    async with asyncio.timeout(20):
        while not (await loaded(store, task_id)).record.status.is_final:
            for claim in await store.claim("w", 1):
                found = await store.load(claim.id)
                assert found is not None
                journal = CrashingJournal(store, points)
                means = Means(worker="w", journal=journal, calls=calls, clock=CLOCK)
                try:
                    await TaskRun(claim, found, PROGRAM, means).run()
                except* CrashError:
                    pass
                passed = max(passed, len(points.passed))
                if points.has_crashed:
                    points = calls.points = CrashPoints()
            await decided(store, task_id)
            await asyncio.sleep(0.01)
    return calls.made, passed


async def decided(store: TaskStore, task_id: str) -> None:
    record = (await loaded(store, task_id)).record
    if record.status is TaskStatus.SUSPENDED:
        assert record.waits_call is not None
        await store.approve(task_id, record.waits_call, Decision(approved=True, by="boss", comment="yes"))


@pytest.mark.holds(
    "graphs.md",
    "After the loss of a worker a graph goes on from its last step; no node that had ended is run again",
)
async def test_a_kill_at_a_write_repeats_no_call_and_asks_nobody_twice(redis_server: Any) -> None:
    store = open_store(redis_server, lease_seconds=0.05)
    _, points = await lived(store, "t", None)
    assert points > 20
    for crash_at in range(0, points, 3):  # test_running.py does it at every one, in memory
        made, _ = await lived(store, f"t{crash_at}", crash_at)
        found = await loaded(store, f"t{crash_at}")
        assert found.record.result == "boss: yes"
        done = [entry.call for entry in found.entries if isinstance(entry, Done)]
        asked = [
            one for one in found.entries if isinstance(one, Intended) and one.call.startswith("approve/")
        ]
        assert (len(done), len(set(done)), len(asked)) == (2, 2, 1), "one answer and one decision"
        assert len(made) <= 2, "a call whose result was not written is made again"
        assert await store.checkpoint_fields(f"t{crash_at}") == []
    await store.close()
