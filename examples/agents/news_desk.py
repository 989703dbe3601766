"""A desk with a researcher, whose answers are held to a rule. docs/agents.md shows it."""

from typing import Any

from flotilla_runtime.agents import ChildFailedError, Context, Task

LONGEST = 60  # words


async def agent(ctx: Context, task: Task) -> str:
    """Let the researcher find out, write an answer, and repair it once where a validator refuses it."""
    try:
        found = (await ctx.spawn(f"Find out: {task.input}", agent="researcher"))["answer"]
    except ChildFailedError as failed:
        found = f"nothing ({failed.problem})"
    draft = (await ctx.llm(f"{task.input}\n\nAnswer from this: {found}")).text
    if refusals := await ctx.validate(draft):
        wrong = "; ".join(one.reason for one in refusals)
        draft = (await ctx.llm(f"Write this anew, because {wrong}:\n\n{draft}")).text
    return draft


def is_short(result: str) -> dict[str, Any]:
    """A validator: `python: "news_desk:is_short"`."""
    words = len(result.split())
    return {"accepted": words <= LONGEST, "reason": f"it has {words} words, and may have {LONGEST}"}
