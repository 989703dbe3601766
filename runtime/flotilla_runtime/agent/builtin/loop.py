"""The built-in agent of a fleet with a prompt. It is a coroutine on `ctx` like any other."""

from typing import Any

from flotilla_runtime.agent.builtin.acting import Actor
from flotilla_runtime.agent.builtin.passages import answer_from_passages, refuse_long_question
from flotilla_runtime.agent.engine.context import Context, Task
from flotilla_runtime.contract import DEFAULT_ROLE, Retrieval


async def built_in(ctx: Context, task: Task) -> dict[str, Any]:
    """Answer from passages where there is nothing to plan, else work in turns."""
    config = ctx.program.config
    context_tokens = await ctx.program.context_of(ctx.program.model(DEFAULT_ROLE))
    refuse_long_question(task, config.prompt, context_tokens, retrieves=bool(config.indexes))
    if config.retrieval is Retrieval.FIRST and not (ctx.program.tools or ctx.program.agents):
        return await answer_from_passages(ctx, task, context_tokens)
    return await Actor(ctx, task, context_tokens).result()
