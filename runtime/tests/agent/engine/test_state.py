"""The state of agents between tasks, crashed before and after every write; see also test_store_state.py."""

from typing import Any

import pytest

from agent_support.memory import CrashError, CrashPoints, MemoryStore
from agent_support.running import ScriptedCalls, program_of, run
from flotilla_runtime.agent.engine.context import Context, Task
from flotilla_runtime.agent.engine.run import RunOutcome
from flotilla_runtime.agent.journal import CallKind, EndReason, Intended
from flotilla_runtime.contract import Effect


async def counter(ctx: Context, task: Task) -> Any:
    """Counts its tasks, and notes the last one, unless another task was quicker."""
    before = await ctx.state.get("count")
    swapped = await ctx.state.compare_and_swap("count", before, (before or 0) + 1)
    again = await ctx.state.compare_and_swap("count", before, 99)
    await ctx.state.put("last", {"task": task.id})
    await ctx.state.put("gone", None)
    return [before, swapped, again, await ctx.state.get("count"), await ctx.state.get("last")]


@pytest.mark.holds(
    "agent-code.md",
    "`ctx.state` keeps values for each tenant and agent; a read is replayed, and a write happens once",
)
async def test_values_are_kept_between_tasks() -> None:
    store = MemoryStore()
    for number, name in enumerate(("t1", "t2")):
        store.submit(name, "go")
        await run(store, program_of(counter), ScriptedCalls(), name)
        finish = store.tasks[name].finish
        assert finish is not None
        assert finish.result == [number or None, True, False, number + 1, {"task": name}]
    intents = [one for one in store.tasks["t1"].entries if isinstance(one, Intended)]
    assert {(one.kind, one.effect) for one in intents} == {
        (CallKind.STATE, Effect.PURE),
        (CallKind.STATE, Effect.IDEMPOTENT),
    }
    assert [one.call for one in intents[:3]] == ["state/count", "state/count#2", "state/count#3"]


@pytest.mark.holds(
    "agent-code.md",
    "`ctx.state` keeps values for each tenant and agent; a read is replayed, and a write happens once",
)
async def test_after_a_crash_at_any_point_each_write_has_happened_once() -> None:
    store = MemoryStore(CrashPoints())
    store.submit("t1", "go")
    await run(store, program_of(counter), ScriptedCalls())
    points, writes = store.points.passed, store.state_writes
    for point in range(len(points)):
        store = MemoryStore(CrashPoints(crash_at=point))
        store.submit("t1", "go")
        try:
            await run(store, program_of(counter), ScriptedCalls())
        except* CrashError:
            store.points = CrashPoints()
        if store.tasks["t1"].finish is None:
            assert await run(store, program_of(counter), ScriptedCalls()) is RunOutcome.ENDED
        assert store.state_writes == writes, points[point]
        finish = store.tasks["t1"].finish
        assert finish is not None
        assert finish.result == [None, True, False, 1, {"task": "t1"}]


@pytest.mark.holds("agent-code.md", "Keys, values and states are bounded")
@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        pytest.param("", 1, "'' is no key", id="no key"),
        pytest.param("a#2", 1, "'a#2' is no key", id="a key that could be another call"),
        pytest.param("x" * 151, 1, "is no key", id="a long key"),
        pytest.param("k", object(), "the value of the key k cannot be written as JSON", id="no JSON"),
        pytest.param("k", "x" * 70_000, "and at most 65536 are stored", id="a long value"),
    ],
)
async def test_what_cannot_be_kept_is_refused_with_words(key: str, value: Any, says: str) -> None:
    async def agent(ctx: Context, task: Task) -> None:
        await ctx.state.put(key, value)

    store = MemoryStore()
    store.submit("t1", "go")
    await run(store, program_of(agent), ScriptedCalls())
    finish = store.tasks["t1"].finish
    assert finish is not None
    assert finish.reason is EndReason.INVALID
    assert says in finish.message
