"""The built-in agent of fleets with `retrieval: First` and no tools: it searches, then it answers.

It takes two turns, so that models too small to plan serve too: it searches every index at once, then the
model answers from the passages found. An index that fails is left out and named in the result. The task fails
only when all indexes fail; what is known is kept in `partial`.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from flotilla_runtime.agent.answers import Found
from flotilla_runtime.agent.builtin import prompts
from flotilla_runtime.agent.builtin.citations import cite
from flotilla_runtime.agent.builtin.prompts import Source
from flotilla_runtime.agent.builtin.searches import Searches, result_of
from flotilla_runtime.agent.builtin.whole_answers import whole_answer
from flotilla_runtime.agent.engine.context import Context, Task
from flotilla_runtime.agent.engine.validating import Refusals
from flotilla_runtime.agent.failures import (
    ModelFailedError,
    PromptTooLongError,
    SearchFailedError,
    TaskFailedError,
)
from flotilla_runtime.agent.journal import EndReason
from flotilla_runtime.agent.verdicts import repair_words
from flotilla_runtime.contract import DEFAULT_ROLE

MOST_SHRINKS: Final = 4  # after four halvings a sixteenth of the room for passages is left


async def answer_from_passages(ctx: Context, task: Task, context_tokens: int) -> dict[str, Any]:
    """Search every index, then let the model answer from what was found."""
    config = ctx.program.config
    searches = Searches(indexes=[index.name for index in config.indexes])
    await search_all(ctx, task, searches)

    def composed(shrinks: int) -> prompts.Prompt:
        return prompts.compose(
            instructions=config.prompt,
            question=task.input,
            sources=searches.sources,
            context_tokens=context_tokens,
            shrinks=shrinks,
            retrieves=bool(config.indexes),
            history=task.history,
        )

    prompt, answer = await _answered(ctx, composed, searches, context_tokens)
    result = result_of(answer, cite(answer, prompt.sources), searches.missing)
    if not (refusals := await ctx.validate(result)):
        return result
    anew = await _repaired(ctx, prompt, answer, refusals, searches)
    return result if anew is None else result_of(anew, cite(anew, prompt.sources), searches.missing)


async def _repaired(
    ctx: Context, prompt: prompts.Prompt, answer: str, refusals: Refusals, searches: Searches
) -> str | None:
    """The answer anew after it was refused; None where the model gives none."""
    said = [{"role": "assistant", "content": answer}, {"role": "user", "content": repair_words(refusals)}]
    messages = [*prompt.messages, *said]
    try:
        return await whole_answer(ctx, messages, name="repair", partial=searches.partial)
    except ModelFailedError:
        return None


async def search_all(ctx: Context, task: Task, searches: Searches) -> None:
    """Search every index at the same time; raises TaskFailedError if none answers."""

    async def search(index: str, found: Awaitable[Found]) -> None:
        try:
            searches.found[index] = sources_of(index, await found)
        except SearchFailedError as problem:
            searches.missing_by_index[index] = problem.problem
        ctx.partial = searches.partial()

    async with asyncio.TaskGroup() as group:
        for place, index in enumerate(searches.indexes):
            found = ctx.retrieve(index, task.input, steps=1 if place == 0 else 0)
            group.create_task(search(index, found))
    if searches.none_answered:
        problems = "; ".join(f"{index}: {problem}" for index, problem in searches.missing.items())
        raise TaskFailedError(EndReason.TOOL_FAILED, f"no index answered: {problems}")


def sources_of(index: str, found: Found) -> list[Source]:
    """The passages that an index found, as sources of an answer."""
    return [Source(index=index, generation=found.generation, passage=passage) for passage in found.passages]


def refuse_long_question(task: Task, instructions: str, context_tokens: int, *, retrieves: bool) -> None:
    """Raise TaskFailedError if the question alone leaves no room for an answer."""
    room = context_tokens - prompts.answer_tokens(context_tokens)
    bare = prompts.compose(
        instructions=instructions,
        question=task.input,
        sources=(),
        context_tokens=context_tokens,
        retrieves=retrieves,
    )
    if bare.tokens > room:
        raise TaskFailedError(
            EndReason.INVALID,
            f"the question and the fleet's prompt have about {bare.tokens} tokens, and the model's context "
            f"has room for {room}; ask a shorter question",
        )


def answer_id(number: int) -> str:
    """The id of the model call that answers; each shorter prompt gets the next number."""
    return f"answer/{number}"


async def _answered(
    ctx: Context,
    composed: Callable[[int], prompts.Prompt],
    searches: Searches,
    context_tokens: int,
) -> tuple[prompts.Prompt, str]:
    """The answer, and the prompt that the model did not find too long."""
    problem = ""
    model = ctx.program.model(DEFAULT_ROLE).name
    for shrinks in range(MOST_SHRINKS + 1):
        prompt = composed(shrinks)
        try:
            answer = await whole_answer(
                ctx,
                prompt.messages,
                name=answer_id(shrinks + 1),
                partial=searches.partial,
                max_tokens=prompts.next_answer_tokens(context_tokens, shrinks),
            )
        except PromptTooLongError as too_long:
            problem = too_long.problem
        except ModelFailedError as failed:
            problem = failed.problem
            break
        else:
            return prompt, answer
    raise TaskFailedError(EndReason.MODEL_FAILED, f"the model {model} gave no answer: {problem}")
