"""The prompt of the built-in loop: the fleet's own prompt, numbered passages, and the question.

Tokens are estimated from bytes, because a worker does not have the tokenizer of the model. Three bytes per
token overestimates the tokens of prose and code in every script tried (English prose has about four and a
half bytes per token). If the estimate is still too low, the model refuses the prompt, and the loop tries
again with fewer passages.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Any, Final

from flotilla_runtime.agent.models import ToolDeclaration
from flotilla_runtime.contract import Passage

BYTES_PER_TOKEN: Final = 3
MESSAGE_TOKENS: Final = 24  # the tokens that a chat template adds around two messages
ANSWER_SHARE: Final = 16  # passages leave one sixteenth of the context to the answer
MOST_LEFT_TOKENS: Final = 1024
LEAST_ANSWER_TOKENS: Final = 32
HISTORY_SHARE: Final = 4  # what was said before may take a quarter of the context
PASSAGES_SHARE: Final = 2  # passages may take half of the context, which leaves room for long questions
MOST_PASSAGES_TOKENS: Final = 8192

FROM_PASSAGES: Final = (
    "Answer the question from the numbered passages only. Be short and exact. After each statement write the "
    "number of the passage it comes from, like [1]. If the passages do not answer the question, say so."
)
_FRAME: Final = "Passages:\n\n{passages}Question: {question}"
WITHOUT_PASSAGES: Final = "No passage was found for this question. Say so before you answer."


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A passage, and the index and generation from which it comes."""

    index: str
    generation: str
    passage: Passage


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """The messages of one model call; `sources` are its passages, numbered from 1, `history` what was said
    before.
    """

    system: str
    user: str
    sources: tuple[Source, ...]
    history: Sequence[Mapping[str, str]] = ()

    @property
    def messages(self) -> list[Mapping[str, str]]:
        """The messages for the chat completions API."""
        system, user = {"role": "system", "content": self.system}, {"role": "user", "content": self.user}
        return [system, *self.history, user]

    @property
    def tokens(self) -> int:
        """The estimated number of tokens."""
        return MESSAGE_TOKENS + estimated_tokens(self.system) + estimated_tokens(self.user)


def estimated_tokens(text: str) -> int:
    """A number of tokens that the text will hardly exceed."""
    return -(-len(text.encode(errors="replace")) // BYTES_PER_TOKEN)


def messages_tokens(messages: Sequence[Mapping[str, str]]) -> int:
    """The estimated number of tokens of these messages."""
    return sum(MESSAGE_TOKENS + estimated_tokens(message["content"]) for message in messages)


def latest_messages(history: Sequence[Mapping[str, str]], most_tokens: int) -> tuple[Mapping[str, str], ...]:
    """The end of a history that has so many tokens at most, from a question on."""
    taken, left = len(history), most_tokens
    while taken and (left := left - messages_tokens(history[taken - 1 : taken])) >= 0:
        taken -= 1
    while taken < len(history) and history[taken]["role"] != "user":
        taken += 1
    return tuple(history[taken:])


def answer_tokens(context_tokens: int) -> int:
    """The tokens that the passages leave to an answer in a context of this size; it may take more."""
    return min(MOST_LEFT_TOKENS, context_tokens // ANSWER_SHARE)


def next_answer_tokens(context_tokens: int, shrinks: int) -> int | None:
    """The most tokens of an answer; None is what the context leaves.

    Where the model has found a prompt too long, the context may be shorter than it is said to be.
    """
    return None if shrinks == 0 else answer_tokens(context_tokens)


def passages_tokens(context_tokens: int, shrinks: int) -> int:
    """The room for passages; it is halved each time the model finds the prompt too long."""
    return min(MOST_PASSAGES_TOKENS, context_tokens // PASSAGES_SHARE) >> shrinks


def interleaved(by_index: Iterable[Sequence[Source]]) -> list[Source]:
    """Merge the passages of several indexes by rank: scores of different embedders are not comparable."""
    ranks = zip_longest(*by_index)
    return [source for source in chain.from_iterable(ranks) if source is not None]


def compose(
    *,
    instructions: str,
    question: str,
    sources: Sequence[Source],
    context_tokens: int,
    shrinks: int = 0,
    retrieves: bool = True,
    history: Sequence[Mapping[str, str]] = (),
) -> Prompt:
    """The prompt with as much of the history and as many passages as fit.

    The history comes first, its end before its beginning, then passages, the best first. One that does not
    fit is left out.
    """
    system = _system(instructions, FROM_PASSAGES if retrieves else "")
    bare = Prompt(system=system, user=_FRAME.format(passages="", question=question), sources=())
    left = context_tokens - answer_tokens(context_tokens) - bare.tokens
    earlier = latest_messages(history, min(left, context_tokens // HISTORY_SHARE) >> shrinks)
    left -= messages_tokens(earlier)
    room = min(passages_tokens(context_tokens, shrinks), left)
    taken: list[Source] = []
    for source in sources:
        needed = estimated_tokens(numbered(len(taken) + 1, source))
        if needed <= room:
            taken.append(source)
            room -= needed
    if retrieves and not taken:
        system = _system(instructions, WITHOUT_PASSAGES)
    return Prompt(system=system, user=_user(question, taken), sources=tuple(taken), history=earlier)


def _system(instructions: str, rule: str) -> str:
    return f"{instructions.strip()}\n\n{rule}".strip()


def _user(question: str, sources: Sequence[Source]) -> str:
    if not sources:
        return question
    passages = "".join(numbered(number, source) for number, source in enumerate(sources, start=1))
    return _FRAME.format(passages=passages, question=question)


def numbered(number: int, source: Source) -> str:
    """A passage as the model reads it."""
    passage = source.passage
    head = " — ".join(part for part in (passage.title, passage.heading) if part)
    return f"[{number}] {head}\n{passage.text.strip()}\n\n"


def estimated_request_tokens(messages: Sequence[Mapping[str, Any]], tools: Sequence[ToolDeclaration]) -> int:
    """The tokens that a prompt of these messages and tools will hardly exceed."""
    parts = [*messages, *(tool.document for tool in tools)]
    return MESSAGE_TOKENS + sum(estimated_tokens(json.dumps(part, ensure_ascii=False)) for part in parts)
