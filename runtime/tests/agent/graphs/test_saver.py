"""Our checkpointer passes LangGraph's own conformance suite, in memory and in a real Redis."""

from collections.abc import AsyncGenerator
from typing import Any

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.checkpoint.conformance.capabilities import Capability

from agent_support.memory import MemoryStore
from flotilla_runtime.agent.engine.checkpoints import Checkpoints
from flotilla_runtime.agent.engine.pace import Pace
from flotilla_runtime.agent.graphs.saver import FlotillaSaver


def checkpoints_in_memory() -> Checkpoints:
    store = MemoryStore()
    store.submit("t1", "go")
    claim, _ = store.claim("t1")
    return Checkpoints(claim, store, Pace(lambda: store.now_ms), None)


async def test_the_checkpointer_conforms() -> None:
    @checkpointer_test(name="in memory")
    async def in_memory() -> AsyncGenerator[BaseCheckpointSaver[Any], None]:
        kept = checkpoints_in_memory()
        yield FlotillaSaver(lambda: kept)

    report = await validate(in_memory)
    failures = {name: one.failures for name, one in report.results.items() if one.failures}
    assert failures == {}
    assert {name for name, one in report.results.items() if one.passed} == {
        str(one.value) for one in Capability
    }
