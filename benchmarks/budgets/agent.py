"""The agent of the benchmark: each task of a tree makes all its calls and spawns all its children at once."""

import asyncio
import json
from collections import Counter
from typing import Any

from budgets.plans import Asked, calls_of, children_of
from flotilla_runtime.agent.engine.context import Context, Task
from flotilla_runtime.agent.failures import ChildFailedError, LimitReachedError, ModelFailedError


async def agent(ctx: Context, task: Task) -> dict[str, Any]:
    """Count what became of the calls of this task and of those that it spawned."""
    order = json.loads(task.input)
    tree, path = int(order["tree"]), str(order["path"])
    ends: Counter[str] = Counter()
    async with asyncio.TaskGroup() as group:
        for asked in calls_of(tree, path):
            group.create_task(_asked(ctx, asked, ends))
        for child in children_of(path):
            group.create_task(_spawned(ctx, tree, child, ends))
    return dict(ends)


async def _asked(ctx: Context, asked: Asked, ends: "Counter[str]") -> None:
    with ctx.scope(asked.name):
        try:
            await ctx.llm(asked.prompt, role=asked.role, max_tokens=asked.max_tokens)
        except LimitReachedError:
            ends["refused"] += 1
        except ModelFailedError:
            ends["failed"] += 1
        else:
            ends["answered"] += 1


async def _spawned(ctx: Context, tree: int, path: str, ends: "Counter[str]") -> None:
    with ctx.scope(path):
        try:
            ends.update(await ctx.spawn(json.dumps({"tree": tree, "path": path})))
        except ChildFailedError:
            ends["children_failed"] += 1
