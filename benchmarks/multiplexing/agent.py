"""The agent of the benchmark: a tool, a call with the whole history, a tool, and so on."""

import json
from typing import Any

from flotilla_runtime.agents import Context, Task
from multiplexing.plans import REPLY_TOKENS, Order, grown, tool_ms

TOOL = "work"


async def agent(ctx: Context, task: Task) -> dict[str, Any]:
    """Make the calls of the order; the history grows with each."""
    order = Order(**json.loads(task.input))
    history = f"[task {order.task} talk] "
    for step in range(order.calls):
        await ctx.tool(TOOL, {"name": f"{order.task}/{step}", "ms": tool_ms(order, step), "ends": "well"})
        history += grown(order, step)
        await ctx.llm(history, max_tokens=REPLY_TOKENS)
    return {"task": order.task}
