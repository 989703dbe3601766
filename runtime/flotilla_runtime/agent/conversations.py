"""The messages of a conversation: the questions of its tasks and their answers. Pure."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

MOST_TEXT_BYTES: Final = 32 * 1024  # of one message
MOST_TURN_BYTES: Final = 128 * 1024  # of what one task adds
CUT: Final = "…"


class Role(StrEnum):
    """The author of a message."""

    USER = "user"
    ASSISTANT = "assistant"


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """Something that was said."""

    role: Role
    text: str

    @property
    def document(self) -> dict[str, str]:
        """The message in OpenAI's form."""
        return {"role": str(self.role), "content": self.text}


def conversation_key(tenant: str, conversation: str) -> str:
    """A conversation's name in keys of Redis: the same id of another tenant is another conversation."""
    return hashlib.sha256(f"{tenant}\n{conversation}".encode()).hexdigest()[:32]


def answer_text(result: Any) -> str:
    """The answer of a result as text: its `answer`, a text as it is, else JSON."""
    said = result.get("answer") if isinstance(result, dict) else result
    return said if isinstance(said, str) else json.dumps(result, ensure_ascii=False)


def turn_messages(history: Sequence[Message], question: str, result: Any) -> tuple[Message, ...]:
    """Return the messages that a task adds to its conversation: given history, question and answer.

    Long texts are cut. What is beyond a turn's share is left out, the oldest first.
    """
    said = (
        *history,
        Message(role=Role.USER, text=question),
        Message(role=Role.ASSISTANT, text=answer_text(result)),
    )
    return latest([Message(role=one.role, text=_cut(one.text)) for one in said], MOST_TURN_BYTES)


def latest(messages: Sequence[Message], most_bytes: int) -> tuple[Message, ...]:
    """The last messages that have so many bytes together, from a question on."""
    taken = len(messages)
    while taken and (most_bytes := most_bytes - len(messages[taken - 1].text.encode(errors="replace"))) >= 0:
        taken -= 1
    while taken < len(messages) and messages[taken].role is not Role.USER:
        taken += 1
    return tuple(messages[taken:])


def messages_text(messages: Iterable[Message]) -> str:
    """Messages as text for Redis."""
    told = [[str(one.role), one.text.encode(errors="replace").decode()] for one in messages]
    return json.dumps(told, ensure_ascii=False, separators=(",", ":"))


def messages_of(text: str) -> tuple[Message, ...]:
    """The messages of a text from Redis."""
    return tuple(Message(role=Role(role), text=said) for role, said in json.loads(text))


def said_in(turns: Iterable[str]) -> tuple[Message, ...]:
    """The messages of turns, each with its caller in front."""
    return tuple(message for turn in turns for message in messages_of(turn.partition(" ")[2]))


def _cut(text: str) -> str:
    content = text.encode(errors="replace")
    if len(content) <= MOST_TEXT_BYTES:
        return text
    return content[: MOST_TEXT_BYTES - len(CUT.encode())].decode(errors="ignore") + CUT
