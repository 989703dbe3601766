"""The double's replies: a scripted reply when one matches the request, else filler text of the wanted length.

A script is a list of replies. A request gets the first one that matches it and is not used up. A reply may be
used `times` times, without a number any number of times. So a list of plain replies is a sequence, and a last
reply with a pattern and without `times` answers every request that matches it.
"""

import json
import re
from dataclasses import dataclass, field
from itertools import chain, zip_longest
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from engine_double.text import filler, pieces

Pattern = Annotated[str, Field(max_length=1000)]


class ScriptedCall(BaseModel):
    """A tool call in a scripted reply; arguments that are a text are said as they are, JSON or not."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    arguments: dict[str, Any] | str = {}


class ScriptedReply(BaseModel):
    """One reply of a script, and the patterns of the requests that get it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    content: str = ""
    tool_calls: tuple[ScriptedCall, ...] = ()
    matches: Pattern | None = None
    """A regular expression for the last message, whatever its role; without one, every message matches."""
    matches_anywhere: Pattern | None = None
    """A regular expression that at least one message must match."""
    times: Annotated[int, Field(ge=1)] | None = 1
    status: Annotated[int, Field(ge=400, le=599)] | None = None
    """Answer with this error instead."""
    retry_after: str | None = None
    """The header Retry-After of the error."""
    delay_seconds: Annotated[float, Field(ge=0)] = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A tool call, with its arguments as JSON text."""

    name: str
    arguments: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A whole reply, before it is cut to the caller's token limit."""

    content: str
    tool_calls: tuple[ToolCall, ...] = ()

    @property
    def text(self) -> str:
        """The whole reply as text, which fills the KV cache."""
        return self.content + "".join(call.name + call.arguments for call in self.tool_calls)

    def deltas(self, *, argument_characters: int | None = None, interleaved: bool = False) -> list["Delta"]:
        """The reply token by token; at least one.

        Arguments are cut after so many characters, else where their tokens end. Interleaved calls come in
        turn, a piece of each.
        """
        spoken = [Delta(content=piece) for piece in pieces(self.content)]
        calls = [
            [
                Delta(call=number, name=call.name),
                *(
                    Delta(call=number, arguments=piece)
                    for piece in pieces(call.arguments, argument_characters)
                ),
            ]
            for number, call in enumerate(self.tool_calls)
        ]
        in_order = chain.from_iterable(zip_longest(*calls) if interleaved else calls)
        spoken.extend(delta for delta in in_order if delta is not None)
        return spoken or [Delta(content="")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """One token of a reply: a piece of its content, a call's name, or a piece of a call's arguments."""

    content: str | None = None
    call: int | None = None
    name: str | None = None
    arguments: str | None = None


FinishedBy = Literal["stop", "length", "tool_calls"]


@dataclass(slots=True)
class Script:
    """The replies that are not used up."""

    _replies: list[tuple[ScriptedReply, int | None]] = field(default_factory=list)

    def add(self, replies: list[ScriptedReply]) -> None:
        """Append replies to the script."""
        self._replies.extend((reply, reply.times) for reply in replies)

    def clear(self) -> None:
        """Remove all replies."""
        self._replies.clear()

    def remaining(self) -> int:
        """How many replies are left."""
        return len(self._replies)

    def take(self, texts: list[str]) -> ScriptedReply | None:
        """The reply to a conversation with these messages, or None; a reply that is used up is removed."""
        for place, (reply, left) in enumerate(self._replies):
            if not _fits(reply, texts):
                continue
            if left is not None and left > 1:
                self._replies[place] = (reply, left - 1)
            elif left is not None:
                del self._replies[place]
            return reply
        return None


def _fits(reply: ScriptedReply, texts: list[str]) -> bool:
    last = texts[-1] if texts else ""
    if reply.matches is not None and not re.search(reply.matches, last):
        return False
    anywhere = reply.matches_anywhere
    return anywhere is None or any(re.search(anywhere, text) for text in texts)


def scripted(reply: ScriptedReply) -> Reply:
    """The reply that a script's entry stands for."""
    calls = tuple(ToolCall(name=call.name, arguments=arguments_text(call)) for call in reply.tool_calls)
    return Reply(content=reply.content, tool_calls=calls)


def arguments_text(call: ScriptedCall) -> str:
    """The arguments as the model writes them."""
    return call.arguments if isinstance(call.arguments, str) else json.dumps(call.arguments)


def filler_reply(tokens: int) -> Reply:
    """A reply of this many tokens of filler text."""
    return Reply(content=filler(tokens))
