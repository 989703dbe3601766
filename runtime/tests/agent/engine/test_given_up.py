"""Calls that the agent gives up while others work or wait for them: spawned tasks, questions, approvals.

What the store does with a spawned task that is given up is held against a real Redis in
test_memory_journal.py.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from agent_support.lives import Story, crashed_everywhere
from agent_support.memory import MemoryStore, Stored
from agent_support.postal import Village, village_crashed_everywhere
from agent_support.running import ScriptedCalls, begin, program_of, run, tool_of, usual
from flotilla_runtime.agent.engine.context import Context, Task
from flotilla_runtime.agent.engine.run import Interrupt, RunOutcome, TaskRun
from flotilla_runtime.agent.journal import CallKind, CallOutcome, Done, Intended, TaskStatus
from flotilla_runtime.agent.protocols import Call, Reply
from flotilla_runtime.agents import Turn
from flotilla_runtime.contract import Effect, TaskLimits
from router_support.waiting import until

WORK = tool_of("work", Effect.PURE)
NO_LONGER = "the task that spawned it no longer waits for it"
HOUR = 3600


async def slowly(call: Call) -> Reply:
    await asyncio.sleep(0.1)
    return usual(call)


async def sleeper(ctx: Context, state: Any, message: Any) -> Turn:
    await ctx.sleep(HOUR)
    return Turn(answer="late")


def outcomes(task: Stored, kind: CallKind) -> list[str | None]:
    """How the calls of this kind ended; None for one that has no result."""
    done = {entry.call: str(entry.outcome) for entry in task.entries if isinstance(entry, Done)}
    intents = [entry for entry in task.entries if isinstance(entry, Intended) and entry.kind is kind]
    return [done.get(intent.call) for intent in intents]


async def racing(ctx: Context, task: Task) -> Any:
    if task.input == "part":
        await ctx.sleep(HOUR)
    ways = {
        "spawned": lambda: ctx.spawn("part"),
        "asked": lambda: ctx.actor("one", sleeper).ask("part"),
        "quick": lambda: ctx.tool("work", {}),
    }
    return (await ctx.race(ways)).winner


@pytest.mark.holds(
    "agent-code.md",
    "A spawned task, a question or an approval that is given up or loses a race is cancelled, "
    "wherever a worker is lost; a run that stops gives nothing up",
)
async def test_the_tasks_of_branches_that_lose_a_race_are_cancelled_through_a_crash_anywhere() -> None:
    for village in await village_crashed_everywhere(lambda: Village(program_of(racing, WORK), usual)):
        assert village.result == "quick"
        below = [task for task in village.store.tasks.values() if task is not village.task]
        assert outcomes(village.task, CallKind.SPAWN) == ["Cancelled"] * len(below)
        for task in below:
            assert task.finish is not None
            assert task.finish.status is TaskStatus.CANCELLED


async def waiting(ctx: Context, task: Task) -> Any:
    async def approved() -> Any:
        await asyncio.sleep(0.02)  # a replay knows the winner before
        return await ctx.approve("pay", {"euro": 5})

    ways = {
        "approved": approved,
        "signalled": lambda: ctx.signal("news", timeout_seconds=HOUR),
        "asleep": lambda: ctx.sleep(HOUR),
        "quick": lambda: ctx.tool("work", {}),
    }
    winner = (await ctx.race(ways)).winner
    return [winner, await ctx.tool("work", {"after": winner})]


@pytest.mark.holds(
    "agent-code.md",
    "A spawned task, a question or an approval that is given up or loses a race is cancelled, "
    "wherever a worker is lost; a run that stops gives nothing up",
)
async def test_nobody_is_asked_any_more_for_what_has_lost_a_race_through_a_crash_anywhere() -> None:
    for story in await crashed_everywhere(lambda: Story(program_of(waiting, WORK), slowly)):
        assert story.result[0] == "quick"
        for kind in (CallKind.APPROVE, CallKind.SIGNAL, CallKind.SLEEP):
            assert None not in outcomes(story.task, kind)


async def impatient(ctx: Context, task: Task) -> Any:
    """Gives up one spawned task, and has another one done in its place."""
    if task.input == "slow":
        await ctx.sleep(HOUR)
    if task.input != "go":
        return task.input
    busy = asyncio.ensure_future(ctx.tool("work", {}))  # so that the task is not suspended
    try:
        async with asyncio.timeout(0.05):
            await ctx.spawn("slow", name="slow")
    except TimeoutError:
        await busy
    return await ctx.spawn("quick", name="quick")


@pytest.mark.holds(
    "agent-code.md",
    "A spawned task, a question or an approval that is given up or loses a race is cancelled, "
    "wherever a worker is lost; a run that stops gives nothing up",
)
async def test_a_spawned_task_that_is_given_up_leaves_its_place_and_no_replay_awaits_it() -> None:
    store, program = MemoryStore(), program_of(impatient, WORK)
    store.submit("t1", "go", TaskLimits(max_fan_out=1))
    assert await run(store, program, ScriptedCalls(slowly)) is RunOutcome.SUSPENDED
    slow, quick = [task for task in store.tasks.values() if task.parent == "t1"]
    assert slow.finish is not None
    assert (slow.finish.status, slow.finish.message) == (TaskStatus.CANCELLED, NO_LONGER)
    assert await run(store, program, ScriptedCalls(), quick.id) is RunOutcome.ENDED
    assert await run(store, program, ScriptedCalls()) is RunOutcome.ENDED
    parent = store.tasks["t1"]
    assert parent.finish is not None
    assert parent.finish.result == "quick"
    assert outcomes(parent, CallKind.SPAWN) == [CallOutcome.CANCELLED, CallOutcome.SUCCEEDED]


async def dozing(ctx: Context, task: Task) -> Any:
    """Gives up a sleep, which would have ended by itself in a replay."""
    busy = asyncio.ensure_future(ctx.tool("work", {"beside": True}))  # so that the task is not suspended
    try:
        async with asyncio.timeout(0.02):
            await ctx.sleep(0.06)
    except TimeoutError:
        await busy
        return await ctx.tool("work", {"after": "a time-out"})
    return await ctx.tool("work", {"after": "a sleep"})


async def test_a_sleep_that_is_given_up_does_not_end_in_a_replay() -> None:
    for story in await crashed_everywhere(lambda: Story(program_of(dozing, WORK), slowly)):
        given_up = outcomes(story.task, CallKind.SLEEP) == [CallOutcome.CANCELLED]
        after = "a time-out" if given_up else "a sleep"
        asked = [call.request for call in story.calls.asked if "after" in call.request]
        assert {one["after"] for one in asked} == {after}


async def spawning_beside_work(ctx: Context, task: Task) -> Any:
    return await asyncio.gather(ctx.spawn("part"), ctx.approve("pay", {}), ctx.tool("work", {}))


@pytest.mark.holds(
    "agent-code.md",
    "A spawned task, a question or an approval that is given up or loses a race is cancelled, "
    "wherever a worker is lost; a run that stops gives nothing up",
)
@pytest.mark.parametrize(
    "stop",
    [
        pytest.param(lambda one, _: one.interrupt(Interrupt.LEAVE), id="the worker leaves"),
        pytest.param(lambda one, _: one.interrupt(Interrupt.LOST), id="another worker holds the task"),
        pytest.param(lambda _, running: running.cancel(), id="the worker's process ends"),
    ],
)
async def test_a_run_that_stops_gives_nothing_up(stop: Callable[[TaskRun, Any], Any]) -> None:
    store, calls = MemoryStore(), ScriptedCalls(hold=asyncio.Event())
    store.submit("t1", "go")
    one = begin(store, program_of(spawning_beside_work, WORK), calls)
    running = asyncio.create_task(one.run())
    await until(lambda: len(store.tasks) == 2 and len(store.tasks["t1"].open) == 3)
    stop(one, running)
    await asyncio.wait({running})
    await asyncio.sleep(0.05)
    task, child = store.tasks.values()
    assert [entry for entry in task.entries if isinstance(entry, Done)] == []
    assert (child.finish, child.cancel_requested) == (None, False)
