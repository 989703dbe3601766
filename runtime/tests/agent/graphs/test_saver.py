"""Our checkpointer passes LangGraph's own conformance suite, in memory and in a real Redis."""

from collections.abc import AsyncGenerator
from typing import Any, cast

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, Checkpoint, empty_checkpoint
from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.checkpoint.conformance.capabilities import Capability

from agent_support.memory import MemoryStore
from flotilla_runtime.agent.engine.checkpoints import Checkpoints
from flotilla_runtime.agent.engine.pace import Pace
from flotilla_runtime.agent.graphs import saver as saver_module
from flotilla_runtime.agent.graphs.saver import FlotillaSaver


def checkpoints_in_memory() -> Checkpoints:
    store = MemoryStore()
    store.submit("t1", "go")
    claim, _ = store.claim("t1")
    return Checkpoints(claim, store, Pace(lambda: store.now_ms), None)


@pytest.mark.holds(
    "graphs.md", "The checkpointer passes LangGraph's conformance suite, extended capabilities too"
)
async def test_the_checkpointer_conforms() -> None:
    @checkpointer_test(name="in memory")
    async def in_memory() -> AsyncGenerator[BaseCheckpointSaver[Any], None]:
        kept = checkpoints_in_memory()
        yield FlotillaSaver(lambda: kept)

    report = await validate(in_memory)
    failures = {name: one.failures for name, one in report.results.items() if one.failures}
    assert failures == {}
    assert {name for name, one in report.results.items() if one.passed} == {one.value for one in Capability}


async def put(saver: FlotillaSaver, text: str, **metadata: Any) -> RunnableConfig:
    """A further checkpoint of the thread t with this value."""
    config: RunnableConfig = {"configurable": {"thread_id": "t", "checkpoint_ns": ""}}
    before = await saver.aget_tuple(config)
    known = None if before is None else before.checkpoint["channel_versions"]["x"]
    version = saver.get_next_version(cast("str | None", known), None)
    checkpoint = {**empty_checkpoint(), "channel_values": {"x": text}, "channel_versions": {"x": version}}
    at = config if before is None else before.config
    return await saver.aput(at, cast(Checkpoint, checkpoint), cast(Any, metadata), {"x": version})


async def listed(saver: FlotillaSaver) -> list[Any]:
    return [one.checkpoint["channel_values"]["x"] async for one in saver.alist(None)]


@pytest.mark.holds(
    "graphs.md",
    "Checkpoints are fenced, bounded, count for the caller, and end with the task or its conversation",
)
@pytest.mark.parametrize(
    ("metadata", "left"),
    [
        pytest.param({}, 1, id="the newest is whole"),
        pytest.param({"counters_since_delta_snapshot": {"x": (1, 1)}}, 4, id="it needs those before it"),
    ],
)
async def test_large_checkpoints_are_pruned_to_the_newest(
    metadata: Any, left: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saver_module, "PRUNE_BYTES", 1)
    kept = checkpoints_in_memory()
    saver = FlotillaSaver(lambda: kept)
    for number in range(4):
        await put(saver, f"{number}" * 500, **metadata)
    found = await listed(saver)
    assert (found[0], len(found)) == ("3" * 500, left)
    values = [one for one in await kept.fields() if one.startswith('["v"')]
    assert len(values) == left
