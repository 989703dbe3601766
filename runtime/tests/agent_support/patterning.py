"""An agent that uses patterns in real workers."""

from functools import partial
from typing import Any

from flotilla_runtime.agents import Context, Task


async def agent(ctx: Context, task: Task) -> dict[str, Any]:
    def work(name: str) -> Any:
        return partial(ctx.tool, "work", {"name": name})

    gathered = await ctx.fan_out({name: work(name) for name in ("good", "bad", "hangs")}, timeout_seconds=2)
    raced = await ctx.race({"hangs": work("hangs"), "good": work("wins")})
    piped = await ctx.pipeline(task.input, ["work"])
    return {
        "missing": {name: str(one.reason) for name, one in gathered.missing.items()},
        "winner": raced.winner,
        "used": [one.value for one in piped.used],
    }
