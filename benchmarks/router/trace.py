"""The trace as its callers' requests: when each is due, of which conversation, and the messages it carries.

The trace holds lengths and the ids of a prompt's blocks, and no text; two prompts share what their first
equal ids cover. So text is made from the ids, and equal ids give equal text. How it is divided into messages
is read from the trace, too: a prompt that begins with all of an earlier one, and is longer by its answer and
more, is that conversation's next turn: the earlier messages, the answer and what the user says next. Any
other prompt is what it shares with an earlier one, and then other words: a conversation that begins, or one
that was edited. The block that all prompts share is the system prompt.

A caller who sets a session header sets one for a conversation, and keeps it when it is edited: prompts that
share more than the system prompt have one session. In the trace they come one after another, as one
person's do.
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
CLOCK_MILLISECONDS = 3000  # the recorder's clock went in steps
UNSENT_TOKENS = 20  # of an answer at most: its end mark, and blanks that a caller strips
SYSTEM, USER, ASSISTANT = (padded(f"<|{role}|>") for role in ("system", "user", "assistant"))
MARK = re.compile(r"<\|(system|user|assistant)\|> *")


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One line of the trace. `blocks` are the ids of its blocks, the last one begun only."""

    due_seconds: float
    prompt_tokens: int
    reply_tokens: int
    blocks: tuple[int, ...]

    @property
    def full_blocks(self) -> tuple[int, ...]:
        """What a cache can keep: the blocks that the prompt fills."""
        return self.blocks[: self.prompt_tokens // BLOCK_TOKENS]

    @property
    def session(self) -> str:
        """The conversation, known by the first block that it does not share with all others."""
        return str(self.blocks[min(1, len(self.blocks) - 1)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message of a chat."""

    role: str
    content: str


@dataclass(slots=True)
class Writer:
    """Gives each turn its text, in the trace's order, for a turn may go on from an earlier one."""

    _texts: dict[int, str] = field(default_factory=dict)
    _latest: dict[int, Turn] = field(default_factory=dict)

    def messages(self, turn: Turn) -> tuple[Message, ...]:
        """The chat that the engine's template makes exactly this prompt of, to a few tokens."""
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
        """What the turn shares with earlier ones, and words of its own up to its length."""
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
    """So many lines behind the skipped ones, from time zero on; those of one step of the recorder's clock are
    spread evenly over it, in order.
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
