"""How many tokens a prompt has at most, where nobody counted them. Pure.

A token stands for at least one byte of the text, so a text has no more tokens than bytes, in any script. That
holds for tokenizers that work on bytes or fall back on them, as those of all models that vLLM serves as chat
models do. Some normalise the text first, which can make it longer. The chat template adds to each message a
frame, and before them an introduction of its own.
"""

import json
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from flotilla_runtime.agent.models.requests import GO_ON
from flotilla_runtime.agent.models.values import ModelRequest, ToolDeclaration

TEMPLATE_TOKENS: Final = 256  # an introduction, such as the date or a default system prompt
TOOLS_TOKENS: Final = 1024  # how to call tools, in the templates' words
MESSAGE_TOKENS: Final = 32  # the frame of a message or a tool call
FORMS: Final = ("NFC", "NFKC")


def text_bound(text: str) -> int:
    """The most tokens that a text can have."""
    longest = len(text.encode(errors="replace"))
    if not text.isascii():
        forms = (unicodedata.normalize(form, text) for form in FORMS)
        longest = max(longest, *(len(form.encode(errors="replace")) for form in forms))
    return longest


def messages_bound(messages: Iterable[Mapping[str, Any]]) -> int:
    """The most tokens that messages add to a prompt, also to one whose own tokens were counted."""
    return sum(_message_bound(message) for message in messages)


def prompt_bound(messages: Iterable[Mapping[str, Any]], tools: Sequence[ToolDeclaration] = ()) -> int:
    """The most tokens that a prompt can have."""
    declared = TOOLS_TOKENS + sum(MESSAGE_TOKENS + _json_bound(tool.document) for tool in tools)
    return TEMPLATE_TOKENS + messages_bound(messages) + (declared if tools else 0)


def bound_of(request: ModelRequest) -> int:
    """The most tokens that this request's prompt can have."""
    if request.prompt_tokens is not None:
        return request.prompt_tokens
    went_on = text_bound(GO_ON) + MESSAGE_TOKENS if request.continues else 0
    return prompt_bound(request.messages, request.tools) + went_on


def _message_bound(message: Mapping[str, Any]) -> int:
    bound = MESSAGE_TOKENS
    for name, value in message.items():
        if name == "tool_calls" and value:
            bound += sum(MESSAGE_TOKENS + _json_bound(call) for call in value)
        elif isinstance(value, str):
            bound += text_bound(value)
        elif value is not None:
            bound += _json_bound(value)
    return bound


def _json_bound(value: Any) -> int:
    """Templates write JSON in several ways; this is the longest of them, or as text."""
    spelled = json.dumps(value, indent=4, ensure_ascii=True)
    return max(len(spelled), text_bound(json.dumps(value, indent=4, ensure_ascii=False)))
