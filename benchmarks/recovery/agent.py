"""The agent of the benchmark: it carries out the plan of its task, and runs in the workers.

Each step is made in a scope with the step's name, so the journal's call ids begin with it.
"""

import asyncio
import json
from typing import Any, Final

from fleet.calls import Kind
from flotilla_runtime.agent.engine.context import Context, Task
from recovery.plans import Step, steps_of, turns_of

MOST_TOKENS: Final = 24


def prompt_of(task: int, step: str) -> str:
    """Question for the model; the recorder of the double finds task and step in it."""
    return f"[task {task} {step}] Say how it goes on."


async def agent(ctx: Context, task: Task) -> dict[str, Any]:
    """Make the steps of each turn at once, turn after turn."""
    order = json.loads(task.input)
    number = int(order["task"])
    turns = turns_of(order["seed"], number, order["longestMs"])
    for turn in turns:
        async with asyncio.TaskGroup() as group:
            for step in turn:
                group.create_task(_made(ctx, number, step))
    return {"task": number, "steps": sum(1 for _ in steps_of(turns))}


async def _made(ctx: Context, task: int, step: Step) -> None:
    with ctx.scope(step.name):
        if step.kind is Kind.MODEL:
            await ctx.llm(prompt_of(task, step.name), max_tokens=MOST_TOKENS)
        else:
            await ctx.tool(
                step.kind,
                {
                    "task": task,
                    "step": step.name,
                    "beforeMs": step.before_ms,
                    "afterMs": step.after_ms,
                },
            )
