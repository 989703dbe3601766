"""Reads the trace as requests: when each is due, its conversation, and its messages.

The trace has no text. It has lengths and the ids of each prompt's blocks; two prompts share the text that
their first equal ids cover. So text is made from the ids, and equal ids give equal text. The messages are
derived as follows:

- A prompt that begins with a whole earlier prompt, and is longer by at least its answer, is that
  conversation's
  next turn. Its messages are the earlier ones, the answer, and a new message of the user.
- Any other prompt is the text that it shares with an earlier one, followed by new text. It is a new
  conversation, or one that was edited.
- The block that all prompts share is the system prompt.

Prompts that share more than the system prompt have the same session header: a caller sets one for each
conversation, and keeps it when the conversation is edited.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from engine_double.text import CHARACTERS_PER_TOKEN, padded

BLOCK_TOKENS = 512
BLOCK_CHARACTERS = BLOCK_TOKENS * CHARACTERS_PER_TOKEN
CLOCK_MILLISECONDS = 3000  # the resolution of the recorder's clock
UNSENT_TOKENS = (
    20  # the most tokens of an answer that the next turn leaves out: its end mark, and white space
)
SYSTEM, USER, ASSISTANT = (padded(f"<|{role}|>") for role in ("system", "user", "assistant"))
MARK = re.compile(r"<\|(system|user|assistant)\|> *")


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One line of the trace; `blocks` are the ids of its blocks, of which the last may be partly filled."""

    due_seconds: float
    prompt_tokens: int
    reply_tokens: int
    blocks: tuple[int, ...]

    @property
    def full_blocks(self) -> tuple[int, ...]:
        """The blocks that the prompt fills, which a KV cache can keep."""
        return self.blocks[: self.prompt_tokens // BLOCK_TOKENS]

    @property
    def session(self) -> str:
        """The conversation's id: its first block after the system prompt."""
        return str(self.blocks[min(1, len(self.blocks) - 1)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message of a chat."""

    role: str
    content: str


@dataclass(slots=True)
class Writer:
    """Makes the text of each turn, in the trace's order, because a turn may continue an earlier one."""

    _texts: dict[int, str] = field(default_factory=dict)
    _latest: dict[int, Turn] = field(default_factory=dict)

    def messages(self, turn: Turn) -> tuple[Message, ...]:
        """The messages from which the engine's chat template makes this prompt, to within a few tokens."""
        fresh = next((i for i, block in enumerate(turn.blocks) if block not in self._texts), None)
        whole = self._prompt(turn.blocks) if fresh is None else self._written(turn, fresh)
        for place, block in enumerate(turn.blocks):
            self._texts.setdefault(block, whole[place * BLOCK_CHARACTERS :][:BLOCK_CHARACTERS])
        if len(turn.full_blocks) > 1:
            self._latest[turn.full_blocks[-1]] = turn
        pieces = MARK.split(whole)[1:]
        return tuple(
            Message(role=role, content=content)
            for role, content in zip(pieces[::2], pieces[1::2], strict=True)
        )

    def _written(self, turn: Turn, fresh: int) -> str:
        """The text that the turn shares with earlier ones, filled up to its length with text of its own."""
        size = max(
            turn.prompt_tokens * CHARACTERS_PER_TOKEN - len(ASSISTANT),
            len(turn.full_blocks) * BLOCK_CHARACTERS,
        )
        begun = self._begun(turn, fresh)
        words = f"{turn.blocks[fresh]:08d}"
        return (begun + words * (max(0, size - len(begun)) // len(words) + 1))[: max(size, len(begun))]

    def _begun(self, turn: Turn, fresh: int) -> str:
        if fresh == 0:
            return (SYSTEM + "be kind " * BLOCK_TOKENS)[:BLOCK_CHARACTERS] + USER
        if fresh == 1:
            return self._prompt(turn.blocks[:1]) + USER
        before = self._latest.get(turn.blocks[fresh - 1])
        if before is not None:
            reply_tokens = min(before.reply_tokens, turn.prompt_tokens - before.prompt_tokens)
            if reply_tokens >= before.reply_tokens - UNSENT_TOKENS:
                reply = f"{turn.blocks[fresh]:04d}"[-4:] * max(1, reply_tokens - UNSENT_TOKENS)
                return self._prompt(before.blocks) + ASSISTANT + reply + USER
        return self._prompt(turn.blocks[:fresh])

    def _prompt(self, blocks: Iterable[int]) -> str:
        return "".join(self._texts[block] for block in blocks)


def read_turns(path: Path, count: int, *, skipped: int = 0) -> tuple[Turn, ...]:
    """The next `count` turns after the skipped ones; the first is due at zero. Turns with the same timestamp
    are spread evenly over the clock's resolution, in order.
    """
    with path.open() as lines:
        rows = [json.loads(line) for line in islice(lines, skipped, skipped + count)]
    began = rows[0]["timestamp"] if rows else 0
    of_step = Counter(row["timestamp"] for row in rows)
    place: Counter[int] = Counter()
    turns = []
    for row in rows:
        step = row["timestamp"]
        due = step - began + CLOCK_MILLISECONDS * place[step] / of_step[step]
        place[step] += 1
        turns.append(
            Turn(
                due_seconds=due / 1000,
                prompt_tokens=row["input_length"],
                reply_tokens=row["output_length"],
                blocks=tuple(row["hash_ids"]),
            )
        )
    return tuple(turns)
