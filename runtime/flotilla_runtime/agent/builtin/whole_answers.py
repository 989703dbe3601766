"""Answers that the model stopped writing for want of tokens: they are continued, or end the task.

An answer is never taken for a whole one in silence. Where nothing is left to continue it, the task ends as
MaxTokens, and `partial` has the text. The bound of the model's answers holds for an answer and all that
continues it: else an answer without an end would take it nine times.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from flotilla_runtime.agent.answers import Answer
from flotilla_runtime.agent.engine.context import Context
from flotilla_runtime.agent.failures import PromptTooLongError, TaskFailedError
from flotilla_runtime.agent.journal import EndReason
from flotilla_runtime.contract import DEFAULT_ROLE

MOST_CONTINUATIONS: Final = 8


async def whole_answer(
    ctx: Context,
    messages: Sequence[Mapping[str, Any]],
    *,
    name: str,
    partial: Callable[[str], Any],
    max_tokens: int | None = None,
) -> str:
    """The whole text of an answer; `partial` says what the task has while only this much is known."""
    answer = await ctx.llm(messages, name=name, hashed=name, max_tokens=max_tokens, answers=True)
    return await continued(ctx, messages, answer, name=name, partial=partial)


async def continued(
    ctx: Context,
    messages: Sequence[Mapping[str, Any]],
    answer: Answer,
    *,
    name: str,
    partial: Callable[[str], Any],
) -> str:
    """The text of this answer and of what continues it, until it is whole."""
    most = ctx.program.model(DEFAULT_ROLE).max_output_tokens
    text, written = answer.text, answer.output_tokens
    number = 0
    while answer.is_cut:
        number += 1
        ctx.partial = partial("" if ctx.validating.is_needed else text)  # nobody has checked this text
        if most is not None and written >= most:
            raise TaskFailedError(
                EndReason.MAX_TOKENS,
                f"the answer was not whole after {most} tokens, the maxOutputTokens of its model",
            )
        if number > MOST_CONTINUATIONS or (number > 1 and not answer.text):
            raise TaskFailedError(
                EndReason.MAX_TOKENS, f"the answer was not whole after {number - 1} continuations"
            )
        more = f"{name}/more/{number}"
        said = [*messages, {"role": "assistant", "content": text}]
        try:
            answer = await ctx.llm(
                said,
                name=more,
                hashed=more,
                max_tokens=None if most is None else most - written,
                continues=True,
                answers=True,
            )
        except PromptTooLongError:
            raise TaskFailedError(
                EndReason.MAX_TOKENS,
                "the model's context leaves no room to continue the answer, which is not whole",
            ) from None
        text += answer.text
        written += answer.output_tokens
    return text
