"""The agent of the benchmark: it does the story of its task, by a pattern or one call after another.

A troubled story has a branch that fails and one that hangs beside those that end well. Its result says
whether all that could be there was there.
"""

import json
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

from flotilla_runtime.agents import (
    CallFailedError,
    Context,
    DocumentChunk,
    Source,
    Task,
    ToolDeclaration,
    ToolFailedError,
    Turn,
)
from patterns.stories import (
    BRANCH_SECONDS,
    CHUNKS,
    DESKS,
    GROUP,
    LETTER_MS,
    LETTERS,
    ROLES,
    SOURCES,
    STEPS,
    TOOL_MS,
    Mode,
    Order,
    Story,
    items_of,
    plan_of,
)

MOST_TOKENS: Final = 4
WORK: Final = "work"
ONCE: Final = "once"


async def agent(ctx: Context, task: Task) -> dict[str, Any]:
    """Do the story, and say how long it took."""
    order = Order(**json.loads(task.input))
    began = await ctx.now()
    is_whole = await DO[order.story](ctx, order)
    took = (await ctx.now()) - began
    return {"seconds": took.total_seconds(), "is_whole": is_whole}


def _work(ctx: Context, order: Order, name: str, ms: int, ends: str = "well") -> Awaitable[Any]:
    return ctx.tool(WORK, {"name": f"{order.task}/{name}", "ms": ms, "ends": ends})


def _branches(ctx: Context, order: Order) -> dict[str, Callable[[], Awaitable[Any]]]:
    """Six tools; of troubled ones, two more that fail and hang."""
    ways: dict[str, Callable[[], Awaitable[Any]]] = {
        f"tool-{ms}": partial(_work, ctx, order, f"tool-{ms}", ms) for ms in TOOL_MS
    }
    if order.mode is Mode.TROUBLED:
        ways["fails"] = partial(_work, ctx, order, "fails", 10, "fails")
        ways["hangs"] = partial(_work, ctx, order, "hangs", 10, "hangs")
    return ways


async def _fan_out(ctx: Context, order: Order) -> bool:
    ways = _branches(ctx, order)
    if order.mode is Mode.SEQUENTIAL:
        return all([await way() for way in ways.values()])
    gathered = await ctx.fan_out(ways, timeout_seconds=BRANCH_SECONDS)
    return gathered.document["expected"] == len(ways) and set(gathered.missing) <= {"fails", "hangs"}


async def _documents(ctx: Context, order: Order) -> bool:
    texts = {f"d{number}": f"Document {number} is short." for number in range(CHUNKS)}

    async def read(chunk: DocumentChunk) -> str:
        if order.mode is Mode.TROUBLED and chunk.document in ("d0", "d1"):
            await _work(ctx, order, chunk.document, 10, "fails" if chunk.document == "d0" else "hangs")
        return (await ctx.llm(chunk.text, max_tokens=MOST_TOKENS)).text

    if order.mode is Mode.SEQUENTIAL:
        return all([await ctx.llm(text, max_tokens=MOST_TOKENS) for text in texts.values()])
    done = await ctx.documents(texts, read, workers=CHUNKS, timeout_seconds=BRANCH_SECONDS)
    expected = CHUNKS - (2 if order.mode is Mode.TROUBLED else 0)
    return done.expected == CHUNKS and done.received == expected


async def _ensemble(ctx: Context, order: Order) -> bool:
    prompt = f"Is {order.task} even?"
    if order.mode is Mode.SEQUENTIAL:
        return all([await ctx.llm(prompt, role=role, max_tokens=MOST_TOKENS) for role in ROLES])
    voted = await ctx.ensemble(prompt, ROLES, max_tokens=MOST_TOKENS, timeout_seconds=BRANCH_SECONDS)
    return bool(voted.answers.present)


async def _search(ctx: Context, order: Order) -> bool:
    """Four tools are four sources; they are the same path of the server under four names."""
    query, is_troubled = f"{order.task}/search", order.mode is Mode.TROUBLED
    ends = ("well", "well", "fails", "hangs") if is_troubled else ("well",) * len(SOURCES)
    told = [{"ms": TOOL_MS[0], "ends": end} for end in ends]
    if order.mode is Mode.SEQUENTIAL:
        pairs = zip(SOURCES, told, strict=True)
        return all([await ctx.tool(tool, {"name": query, **more}) for tool, more in pairs])
    sources = [
        Source(tool=tool, query_argument="name", arguments=more)
        for tool, more in zip(SOURCES, told, strict=True)
    ]
    searched = await ctx.search(query, sources, timeout_seconds=BRANCH_SECONDS)
    return len(searched.hits) > 0 and len(searched.missing) == sum(end != "well" for end in ends)


async def _map_reduce(ctx: Context, order: Order) -> bool:
    items = items_of(order.mode)

    async def mapped(item: str, role: str) -> str:
        if order.mode is Mode.TROUBLED and item in items[:2]:
            await _work(ctx, order, item, 10, "fails" if item == items[0] else "hangs")
        return (await ctx.llm(item, role=role, max_tokens=MOST_TOKENS)).text

    async def joined(parts: Any, role: str) -> str:
        return (await ctx.llm("\n".join(parts), role=role, max_tokens=MOST_TOKENS)).text

    at_once = 1 if order.mode is Mode.SEQUENTIAL else 64
    timeout = None if order.mode is Mode.SEQUENTIAL else BRANCH_SECONDS
    reduced = await ctx.map_reduce(
        items, mapped, joined, group_size=GROUP, at_once=at_once, timeout_seconds=timeout
    )
    lost = 2 if order.mode is Mode.TROUBLED else 0
    return bool(reduced.value) and reduced.received == len(items) - lost


async def _pipeline(ctx: Context, order: Order) -> bool:
    prompt = f"Use the tools. {plan_of(order)}"
    if order.mode is not Mode.SEQUENTIAL:
        piped = await ctx.pipeline(prompt, [WORK])
        well = [one for one in piped.used if (one.call.arguments or {}).get("ends") == "well"]
        return bool(well) and all(one.missing is None for one in well)
    declared: ToolDeclaration = ctx.program.tools[WORK].declaration
    answer = await ctx.llm(prompt, tools=[declared])
    return all([await ctx.tool(call.name, call.arguments) for call in answer.tool_calls])


async def _race(ctx: Context, order: Order) -> bool:
    """The usual way takes a second, or never ends; another one is tried soon."""
    if order.mode is Mode.SEQUENTIAL:
        return bool(await _work(ctx, order, "usual", 1000))
    name = {"name": f"race-{order.task}", "ms": TOOL_MS[0]}
    raced = await ctx.race(
        {
            "usual": lambda: ctx.tool(WORK, {**name, "ends": "loses"}),
            "other": lambda: ctx.tool(WORK, {**name, "ends": "wins"}),
        },
        stagger_seconds=0.05,
    )
    return raced.winner == "other"


class Desk:
    """An actor that works on each letter, and counts those it has done."""

    async def receive(self, ctx: Context, state: int | None, message: dict[str, Any] | None) -> Turn:
        """Do a letter; without one, say how many are done."""
        done = state or 0
        if message is None:
            return Turn(state=done, answer=done)
        await ctx.tool(WORK, message)
        return Turn(state=done + 1)


async def _letters(ctx: Context, order: Order, desk: str) -> int:
    """Send a desk its letters, and ask how many it has done; one of a desk in trouble fails or hangs."""
    actor = ctx.actor(f"{order.task}/{desk}", Desk)
    ends = desk if desk in ("fails", "hangs") else "well"
    for letter in range(LETTERS):
        message = {"name": f"{order.task}/{desk}/{letter}", "ms": LETTER_MS, "ends": ends}
        if ends == "well":
            await actor.tell(message)
        else:
            await actor.ask(message)
    return int(await actor.ask())


async def _actor(ctx: Context, order: Order) -> bool:
    desks = [f"desk-{number}" for number in range(DESKS)]
    if order.mode is Mode.SEQUENTIAL:
        return {await _letters(ctx, order, desk) for desk in desks} == {LETTERS}
    troubled = ["fails", "hangs"] if order.mode is Mode.TROUBLED else []
    ways = {desk: partial(_letters, ctx, order, desk) for desk in [*desks, *troubled]}
    gathered = await ctx.fan_out(ways, timeout_seconds=BRANCH_SECONDS)
    return gathered.missing.keys() <= set(troubled) and set(gathered.present.values()) == {LETTERS}


async def _steps(ctx: Context, order: Order) -> bool:
    """Twelve steps, one in twenty of which fails: the runtime tries it again, and once the agent."""
    for step in range(STEPS):
        asked = {"name": f"{order.task}/{order.mode}/{step}", "ms": 1, "ends": "sometimes"}
        if order.mode is Mode.SEQUENTIAL:  # without retries
            try:
                await ctx.tool(ONCE, asked)
            except CallFailedError:
                return False
            continue
        try:
            await ctx.tool(WORK, asked)
        except ToolFailedError:
            await ctx.tool(WORK, asked)
    return True


DO: Final[dict[Story, Callable[[Context, Order], Awaitable[bool]]]] = {
    Story.FAN_OUT: _fan_out,
    Story.DOCUMENTS: _documents,
    Story.ENSEMBLE: _ensemble,
    Story.SEARCH: _search,
    Story.MAP_REDUCE: _map_reduce,
    Story.PIPELINE: _pipeline,
    Story.RACE: _race,
    Story.ACTOR: _actor,
    Story.STEPS: _steps,
}
