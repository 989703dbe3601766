"""A race: a quote from the usual supplier, or from another one if it takes too long."""

import asyncio
from typing import Any

from flotilla_runtime.agents import Context, Task


async def usual(item: str) -> dict[str, Any]:
    """A quote of the usual supplier, which is slow today."""
    await asyncio.sleep(5)
    return {"item": item, "euro": 10}


async def other(item: str) -> dict[str, Any]:
    """A quote of another supplier."""
    return {"item": item, "euro": 12}


async def agent(ctx: Context, task: Task) -> dict[str, Any]:
    """Ask the second supplier half a second after the first; take the first quote with a price."""
    raced = await ctx.race(
        {
            "usual": lambda: ctx.tool("usual", {"item": task.input}),
            "other": lambda: ctx.tool("other", {"item": task.input}),
        },
        stagger_seconds=0.5,
        is_valid=lambda quote: quote["euro"] > 0,
    )
    return {"from": raced.winner, "quote": raced.value}
