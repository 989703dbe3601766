"""The agents of the benchmark. They run in the workers."""

import json
from typing import Any, Final

from fleet.calls import Kind
from flotilla_runtime.agent.engine.context import Context, Task

MOST_TOKENS: Final = 16


async def agent(ctx: Context, task: Task) -> dict[str, Any]:
    """Ask the model once, then call a tool with an effect."""
    order = json.loads(task.input)
    number, pace = int(order["task"]), str(order["pace"])
    answer = await ctx.llm(f"[task {number} answer] Be {pace}.", max_tokens=MOST_TOKENS)
    told = await ctx.tool(Kind.BOOK, {"task": number, "step": "book", "beforeMs": 0, "afterMs": 0})
    return {"answer": answer.text, "told": told}
