"""Map-reduce: reviews are summed up by a cheap model, in groups, and the last time by the capable one."""

from collections.abc import Sequence
from typing import Any

from flotilla_runtime.agents import Answer, Context, Task


async def agent(ctx: Context, task: Task) -> dict[str, Any]:
    """Sum the reviews up, one a line; say how many are in the digest."""

    async def read(review: str, role: str) -> Answer:
        return await ctx.llm(f"Sum up in ten words: {review}", role=role)

    async def join(parts: Sequence[str], role: str) -> Answer:
        return await ctx.llm("Make one summary of these:\n" + "\n".join(parts), role=role)

    reduced = await ctx.map_reduce(task.input.splitlines(), read, join, group_size=10, timeout_seconds=60)
    return {"digest": reduced.value, "of": reduced.expected, "in it": reduced.received}
