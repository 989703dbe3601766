"""Traces of the levers in the journal: replays and the fleet's figures read them there.

The levers themselves are tested in runtime/tests/agent/levers.
"""

from dataclasses import replace
from typing import Any

import pytest

from agent_support.memory import CrashError, CrashPoints, MemoryStore
from agent_support.running import ScriptedCalls, failed, program_of, run, said, tool_of
from flotilla_runtime.agent.engine.context import Context, Task
from flotilla_runtime.agent.failures import ToolFailedError
from flotilla_runtime.agent.journal import Done
from flotilla_runtime.agent.protocols import Call, Finish, Reply
from flotilla_runtime.contract import CACHE_HIT, CACHE_MISS, Effect

PURE = [tool_of(name, Effect.PURE) for name in ("weather", "rates")]


def scripted(call: Call) -> Reply:
    match call.target:
        case "weather":
            return replace(said("sun"), cached=True)
        case "rates":
            return replace(said("1.1"), cached=False)
    return replace(said("Because."), answered_by="small", rate_limit="openai", limited_ms=700)


async def agent(ctx: Context, task: Task) -> Any:
    return [await ctx.tool("weather"), await ctx.tool("rates"), (await ctx.llm("why?")).text]


async def retrier(ctx: Context, task: Task) -> Any:
    try:
        return await ctx.tool("weather")
    except ToolFailedError as error:
        return error.retry_after_seconds


def finish(store: MemoryStore) -> Finish:
    ended = store.tasks["t1"].finish
    assert ended is not None
    return ended


def submitted(points: CrashPoints | None = None) -> MemoryStore:
    store = MemoryStore(points)
    store.submit("t1", "go")
    return store


@pytest.mark.holds("agents.md", "Who answered, and what a call waited for, are in the journal")
@pytest.mark.holds("agents.md", "`status.cacheHitRate` is the share that the cache answered")
@pytest.mark.parametrize("crash_at", [None, 1, 3, 5, 7, 9])
async def test_results_are_marked_and_counted_once_also_when_a_worker_is_lost(crash_at: int | None) -> None:
    points = CrashPoints(crash_at)
    store, calls = submitted(points), ScriptedCalls(scripted, points)
    if crash_at is not None:
        with pytest.raises(CrashError):
            await run(store, program_of(agent, *PURE), calls)
        store.points = points = CrashPoints()
        store.now_ms += 60_000
        calls = ScriptedCalls(scripted, points)
    await run(store, program_of(agent, *PURE), calls)
    done = {entry.call: entry for entry in store.tasks["t1"].entries if isinstance(entry, Done)}
    assert [done[f"tool/{name}"].cached for name in ("weather", "rates")] == [True, False]
    model = done["llm/Default"]
    assert (model.answered_by, model.rate_limit, model.limited_ms) == ("small", "openai", 700)
    ended = finish(store)
    assert ended.result == ["sun", "1.1", "Because."]
    assert ended.busy_ms["RateLimit/openai"] == 700, "the wait is the limit's, not the model's"
    assert ended.busy_ms["Model/small"] == max(0, model.took_ms - 700)
    assert ended.calls == {CACHE_HIT: 1, CACHE_MISS: 1, "Tool/rates": 1, "Model/small": 1}


@pytest.mark.holds(
    "agents.md",
    "Calls of a model that fails wait for a trial, at most two minutes; a tool's fail at once and "
    "say when to try again",
)
async def test_an_agent_hears_when_a_tool_that_was_not_called_may_take_calls_again() -> None:
    store = submitted()
    open_for = replace(failed("not called"), retry_after_ms=5000)
    await run(store, program_of(retrier, *PURE), ScriptedCalls(lambda _: open_for))
    assert finish(store).result == 5.0
    [done] = [entry for entry in store.tasks["t1"].entries if isinstance(entry, Done)]
    assert done.retry_after_ms == 5000
