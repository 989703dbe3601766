"""Text as the double reads it: four characters are a token, and a block's key covers all text before it.

The text of each turn of a conversation is a prefix of the next turn's, because every message is padded to
whole tokens. So the next turn finds the conversation in the simulated KV cache.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

CHARACTERS_PER_TOKEN = 4
FILLER_WORDS = ("sail", "ing ", "the ", "wind", "and ", "tide", "far ", "out ")


def tokens_in(text: str) -> int:
    """How many tokens a text has."""
    return -(-len(text) // CHARACTERS_PER_TOKEN)


def bytes_in(text: str) -> int:
    """How many tokens a text has for a tokenizer that knows none of its words: one for each byte."""
    return len(text.encode())


def pieces(text: str, characters: int | None = None) -> list[str]:
    """The text token by token, or in pieces of so many characters."""
    size = characters or CHARACTERS_PER_TOKEN
    return [text[start : start + size] for start in range(0, len(text), size)]


def padded(text: str) -> str:
    """The text filled up to whole tokens."""
    return text.ljust(tokens_in(text) * CHARACTERS_PER_TOKEN)


def rendered_chat(
    messages: Sequence[Mapping[str, Any]], tools: Sequence[Any], *, is_continued: bool = False
) -> str:
    """The prompt text of a conversation, up to where the answer begins or goes on."""
    lines = [padded(f"tools:{json.dumps(tools, sort_keys=True)}")] if tools else []
    lines += [
        padded(f"<|{message.get('role', '')}|>") + padded(message_text(message)) for message in messages
    ]
    return "".join(lines) + ("" if is_continued else padded("<|assistant|>"))


def message_text(message: Mapping[str, Any]) -> str:
    """The text of a message: its content, which may be in parts, and its tool calls."""
    content = message.get("content") or ""
    if isinstance(content, list):
        content = "".join(part.get("text", "") for part in content if isinstance(part, dict))
    calls = "".join(
        call["function"]["name"] + call["function"]["arguments"] for call in message.get("tool_calls") or ()
    )
    return str(content) + calls


def block_keys(text: str, block_tokens: int, salt: str | None = None) -> tuple[int, ...]:
    """The keys of the blocks that a text fills; each covers the text up to the block's end, and the salt."""
    size = block_tokens * CHARACTERS_PER_TOKEN
    keys: list[int] = []
    previous = 0 if salt is None else hash(salt)
    for start in range(0, len(text) - size + 1, size):
        previous = hash((previous, text[start : start + size]))
        keys.append(previous)
    return tuple(keys)


def filler(tokens: int) -> str:
    """A text of this many tokens, always the same for the same number."""
    repeats = -(-tokens // len(FILLER_WORDS))
    return "".join((FILLER_WORDS * repeats)[:tokens])


def embedding(text: str, dimension: int) -> list[float]:
    """A unit vector made of the text's words; texts that share words have similar vectors."""
    vector = [0.0] * dimension
    for word in text.lower().split():
        digest = hashlib.blake2b(word.strip(".,;:!?()\"'").encode(), digest_size=8).digest()
        place = int.from_bytes(digest[:4], "big") % dimension
        vector[place] += 1.0 if digest[4] & 1 else -1.0
    length = math.sqrt(math.fsum(value * value for value in vector))
    if length == 0.0:
        vector[0], length = 1.0, 1.0
    return [value / length for value in vector]
