"""An ensemble: two models classify a ticket, and a third one judges where they differ."""

from typing import Any

from flotilla_runtime.agents import Context, Task

KIND = {
    "type": "object",
    "properties": {"kind": {"enum": ["bug", "question", "complaint"]}},
    "required": ["kind"],
}


async def agent(ctx: Context, task: Task) -> dict[str, Any]:
    """Let the models with the roles Default and Routine vote."""
    opinion = await ctx.ensemble(
        f"What kind of ticket is this? {task.input}",
        ["Default", "Routine"],
        judge="Judge",
        schema=KIND,
        timeout_seconds=30,
    )
    return {"kind": opinion.answer.value, "by": opinion.chosen_by, "role": opinion.role}
