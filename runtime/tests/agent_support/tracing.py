"""An agent with a fan-out and a model, in real workers."""

from functools import partial
from typing import Any

from flotilla_runtime.agents import Context, Task


async def agent(ctx: Context, task: Task) -> dict[str, Any]:
    asked = {name: partial(ctx.retrieve, "manual", name) for name in ("left", "right")}
    await ctx.fan_out(asked)
    if task.input == "wait":
        await ctx.signal("go", timeout_seconds=3600)
    return {"said": (await ctx.llm("So?")).text}
