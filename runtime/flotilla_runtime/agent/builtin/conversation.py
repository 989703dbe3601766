"""The prompt of the acting agent: the question, the turns so far and the results of their calls. Pure.

Passages are numbered across the whole task, and keep their numbers when a search finds them again, so the
answer can cite them. Where the turns outgrow the model's context, the older ones are replaced by a summary;
the journal keeps them all. A single observation that is too long is cut, and says so.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from flotilla_runtime.agent.builtin import prompts
from flotilla_runtime.agent.builtin.prompts import Source
from flotilla_runtime.agent.models import (
    ModelOutcome,
    ModelReply,
    ToolCall,
    assistant_message,
    tool_message,
)

ACT: Final = (
    "Work in turns. In each turn call the tools that you need, several at once if they do not depend on each "
    "other. Their results come back to you. When you know enough, answer without calling a tool."
)
CITE: Final = (
    "Some results are numbered passages. After each statement of your answer that comes from one, write its "
    "number, like [1]."
)
SUMMARISE: Final = (
    "Below is what an assistant has done so far to work on a task. Sum it up for the assistant, who goes on "
    "from your summary alone: what was found, with figures, names and the numbers of passages like [1]; what "
    "was tried and failed; what is left to do. Be short. Add nothing."
)
SO_FAR: Final = "What you have done so far, summed up:\n\n{summary}"
CUT: Final = "\n… (cut off: {left} more bytes)"
NOTHING_FOUND: Final = "No passage was found."
OBSERVATIONS_SHARE: Final = 2  # the observations of one turn may take half of the context


@dataclass(slots=True, kw_only=True)
class Sources:
    """The passages of all searches, numbered from 1 in the order in which they came."""

    all: list[Source] = field(default_factory=list)
    _numbers: dict[tuple[str, str, str], int] = field(default_factory=dict)

    def number(self, source: Source) -> int:
        """The number of this passage."""
        key = (source.index, source.generation, source.passage.id)
        if key not in self._numbers:
            self.all.append(source)
            self._numbers[key] = len(self.all)
        return self._numbers[key]

    def shown(self, found: Sequence[Source]) -> str:
        """Passages as the model reads them."""
        texts = [prompts.numbered(self.number(source), source) for source in found]
        return "".join(texts).rstrip() or NOTHING_FOUND


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """The text that the model is told of a finished call."""

    call: ToolCall
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A turn of the model, and what came of its calls, in their order; or why its answer was refused."""

    text: str
    observations: tuple[Observation, ...]
    refusal: str = ""

    def messages(self, most_bytes: int) -> list[dict[str, Any]]:
        """The turn as messages; each observation has at most so many bytes."""
        calls = tuple(observation.call for observation in self.observations)
        reply = ModelReply(outcome=ModelOutcome.SUCCEEDED, tries=1, text=self.text, tool_calls=calls)
        return [
            assistant_message(reply),
            *(tool_message(one.call, cut(one.text, most_bytes)) for one in self.observations),
            *([{"role": "user", "content": self.refusal}] if self.refusal else ()),
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """The messages of a task. `summary` stands for the turns that are no longer shown, `history` is what was
    said in the task's conversation before.
    """

    system: str
    question: str
    history: Sequence[Mapping[str, str]] = ()
    summary: str = ""
    turns: tuple[Turn, ...] = ()

    def after(self, turn: Turn) -> "Conversation":
        """The conversation with one more turn."""
        return replace(self, turns=(*self.turns, turn))

    def refused(self, answer: str, refusal: str) -> "Conversation":
        """The conversation with an answer that was refused, and why."""
        return self.after(Turn(text=answer, observations=(), refusal=refusal))

    def summed_up(self, summary: str) -> "Conversation":
        """The conversation with a summary in place of all turns but the last."""
        return replace(self, summary=summary, turns=self.turns[-1:])

    def messages(self, context_tokens: int) -> list[dict[str, Any]]:
        """The messages for a model with this context."""
        first: list[dict[str, Any]] = [{"role": "system", "content": self.system}]
        most_history = context_tokens // prompts.HISTORY_SHARE
        first += [dict(message) for message in prompts.latest_messages(self.history, most_history)]
        first.append({"role": "user", "content": self.question})
        if self.summary:
            first.append({"role": "user", "content": SO_FAR.format(summary=self.summary)})
        most = context_tokens * prompts.BYTES_PER_TOKEN // OBSERVATIONS_SHARE
        for turn in self.turns:
            first += turn.messages(max(1, most // max(1, len(turn.observations))))
        return first

    def told(self, most_bytes: int) -> str:
        """The older turns as a text to be summed up, of at most so many bytes."""
        parts = [f"Task: {self.question}"]
        if self.summary:
            parts.append(SO_FAR.format(summary=self.summary))
        older = self.turns[:-1]
        used = sum(len(part.encode(errors="replace")) for part in parts)
        share = max(1, (most_bytes - used) // max(1, len(older)))
        return cut("\n\n".join([*parts, *(cut(_told(turn), share) for turn in older)]), most_bytes)


def cut(text: str, most_bytes: int) -> str:
    """The text, or its beginning with a word on how much is missing."""
    content = text.encode(errors="replace")
    left = len(content) - most_bytes
    return text if left <= 0 else content[:most_bytes].decode(errors="ignore") + CUT.format(left=left)


def observed(value: Any) -> str:
    """The value of a call as the model reads it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _told(turn: Turn) -> str:
    calls = (
        f"Called {one.call.name}({one.call.arguments_text}), which gave: {one.text}"
        for one in turn.observations
    )
    told = [turn.text, *calls, turn.refusal]
    return "\n".join(part for part in told if part)
