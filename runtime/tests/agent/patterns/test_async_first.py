"""Nothing that an agent awaits blocks the event loop, in which a worker runs all its tasks.

Each pattern runs with enough to do, and no step may take 50 ms of the processor. A step is measured in three
lives, because the first one may import or compile something.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from agent_support.postal import Village
from agent_support.running import PASSAGE, config_of, found, program_of, said, tool_of, usual
from agent_support.steps import long_steps
from flotilla_runtime.agent.journal import CallKind, TaskStatus
from flotilla_runtime.agent.protocols import Call, Reply
from flotilla_runtime.agents import Answer, Context, EndReason, Task, TaskFailedError, Turn
from flotilla_runtime.contract import Effect

LONGEST_STEP_SECONDS = 0.05
LIVES = 3
WIDTH = 30
LONG = "Some words make a sentence. " * 20_000
Make = Callable[[Context], Awaitable[Any]]


async def keeps(ctx: Context, state: list[Any] | None, message: Any) -> Turn:
    seen = [*(state or []), message]
    return Turn(state=seen, answer=len(seen))


async def fan_out(ctx: Context) -> int:
    branches = {str(one): lambda: ctx.tool("look", {"at": "x" * 1000}) for one in range(WIDTH)}
    return len((await ctx.fan_out(branches)).present)


async def race(ctx: Context) -> Any:
    return (await ctx.race({str(one): lambda: ctx.tool("look") for one in range(WIDTH)})).value


async def documents(ctx: Context) -> int:
    async def read(chunk: Any) -> str:
        return (await ctx.llm(chunk.text)).text

    return (await ctx.documents({"long": LONG}, read, chunk_tokens=4000)).received


async def ensemble(ctx: Context) -> Any:
    return (await ctx.ensemble("Which?", ["Default", "Routine", "Judge"])).answer.text


async def search(ctx: Context) -> int:
    return len((await ctx.search("Why?", ["a", "b", "look"])).hits)


async def map_reduce(ctx: Context) -> int:
    async def read(item: Any, role: str) -> Answer:
        return await ctx.llm(f"{item} {LONG[:2000]}", role=role)

    async def join(parts: Sequence[Any], role: str) -> Answer:
        return await ctx.llm(" ".join(map(str, parts)), role=role)

    return (await ctx.map_reduce([*range(WIDTH)], read, join, group_size=5)).received


async def pipeline(ctx: Context) -> int:
    return len((await ctx.pipeline("Look.", ["look"])).used)


async def state(ctx: Context) -> Any:
    await ctx.state.put("key", "x" * 60_000)
    return await ctx.state.get("key")


async def actor(ctx: Context) -> Any:
    one = ctx.actor("one", keeps)
    for number in range(5):
        await one.tell({"number": number, "text": "x" * 5_000})
    return await one.ask("last")


async def compensate(ctx: Context) -> None:
    for number in range(10):
        await ctx.compensate("look", {"number": number, "text": "x" * 10_000})
    raise TaskFailedError(EndReason.TOOL_FAILED, "no")


async def blocks(_ctx: Context) -> None:
    wait()


def wait() -> None:
    until = time.thread_time() + 0.2
    while time.thread_time() < until:
        pass  # as no pattern may


async def slow_steps(make: Make) -> list[str]:
    """The steps of a life that held the loop up."""

    async def agent(ctx: Context, _task: Task) -> Any:
        return await make(ctx)

    def script(call: Call) -> Reply:
        if call.kind is CallKind.MODEL:
            return said("So it is.")
        if call.kind is CallKind.RETRIEVE:
            return found(PASSAGE)
        return Reply(outcome=usual(call).outcome, value=[{"text": "so"}])

    config = config_of(indexes=("a", "b"))
    village = Village(program_of(agent, tool_of("look", Effect.PURE), config=config), script)
    with long_steps(LONGEST_STEP_SECONDS) as told:
        await asyncio.create_task(village.to_the_end())
    finish = village.task.finish
    assert finish is not None
    assert (finish.status is TaskStatus.SUCCEEDED) == (make is not compensate), finish.message
    return told


@pytest.mark.holds("patterns.md", "No pattern blocks the event loop")
@pytest.mark.parametrize(
    "make",
    [fan_out, race, documents, ensemble, search, map_reduce, pipeline, state, actor, compensate],
    ids=lambda make: make.__name__,
)
async def test_no_pattern_holds_the_event_loop_up(make: Make) -> None:
    for _ in range(LIVES):
        if not (told := await slow_steps(make)):
            return
    raise AssertionError(told)


async def test_what_holds_it_up_is_told() -> None:
    assert await slow_steps(blocks)
