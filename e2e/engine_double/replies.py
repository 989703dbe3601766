"""What the double answers: a scripted reply where one fits the request, else filler of the wanted length.

A script is a list of replies. The first one that fits the request and is not used up is taken; `times` says
how often it may be, and no number means for ever. So a list of plain replies is a sequence, and a last reply
with a pattern and without `times` is the answer to everything that matches it.
"""

import json
import re
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from engine_double.text import filler, pieces

Pattern = Annotated[str, Field(max_length=1000)]


class ScriptedCall(BaseModel):
    """A tool call that the model is made to ask for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    arguments: dict[str, Any] = {}


class ScriptedReply(BaseModel):
    """One reply of a script, and for which requests it is meant."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    content: str = ""
    tool_calls: tuple[ScriptedCall, ...] = ()
    matches: Pattern | None = None
    """A regular expression that must be found in the last message, whoever sent it; none fits everything."""
    matches_anywhere: Pattern | None = None
    """A regular expression that must be found in some message."""
    times: Annotated[int, Field(ge=1)] | None = 1
    status: Annotated[int, Field(ge=400, le=599)] | None = None
    """Answer with this error instead."""
    delay_seconds: Annotated[float, Field(ge=0)] = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A tool call with its arguments as the text that goes over the wire."""

    name: str
    arguments: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A whole reply, before it is cut to the caller's limit."""

    content: str
    tool_calls: tuple[ToolCall, ...] = ()

    @property
    def text(self) -> str:
        """All of it as the text that fills the cache."""
        return self.content + "".join(call.name + call.arguments for call in self.tool_calls)

    def deltas(self) -> list["Delta"]:
        """The reply token by token; at least one."""
        spoken = [Delta(content=piece) for piece in pieces(self.content)]
        for number, call in enumerate(self.tool_calls):
            spoken.append(Delta(call=number, name=call.name))
            spoken.extend(Delta(call=number, arguments=piece) for piece in pieces(call.arguments))
        return spoken or [Delta(content="")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """One token of a reply: of its content, the name of a call, or a piece of a call's arguments."""

    content: str | None = None
    call: int | None = None
    name: str | None = None
    arguments: str | None = None


FinishedBy = Literal["stop", "length", "tool_calls"]


@dataclass(slots=True)
class Script:
    """The replies still to come."""

    _replies: list[tuple[ScriptedReply, int | None]] = field(default_factory=list)

    def add(self, replies: list[ScriptedReply]) -> None:
        """Append replies to the script."""
        self._replies.extend((reply, reply.times) for reply in replies)

    def clear(self) -> None:
        """Forget what has not been used."""
        self._replies.clear()

    def remaining(self) -> int:
        """How many entries are left."""
        return len(self._replies)

    def take(self, texts: list[str]) -> ScriptedReply | None:
        """The reply for a conversation, given the text of its messages."""
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
    """A scripted reply as it is spoken."""
    calls = tuple(
        ToolCall(name=call.name, arguments=json.dumps(call.arguments, separators=(", ", ": ")))
        for call in reply.tool_calls
    )
    return Reply(content=reply.content, tool_calls=calls)


def filler_reply(tokens: int) -> Reply:
    """Filler of so many tokens."""
    return Reply(content=filler(tokens))
