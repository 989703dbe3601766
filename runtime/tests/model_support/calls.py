"""Requests and clients for the tests of model calls."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx2

from flotilla_runtime.agent.models import (
    Endpoint,
    Finished,
    ModelClient,
    ModelEvent,
    ModelReply,
    ModelRequest,
    TextDelta,
    Timeouts,
    ToolCall,
    ToolCallComplete,
    Withdrawn,
)
from flotilla_runtime.agent.retries import RetryPolicy
from flotilla_runtime.backoff import Backoff
from flotilla_runtime.contract import Priority
from leaks.planted import planted

QUICK = RetryPolicy(tries=3, backoff=Backoff(base_seconds=0.001, limit_seconds=0.002))
PATIENT = Timeouts(first_token_seconds=60, between_tokens_seconds=60, total_seconds=120)
KEY = planted("sk-model")
ASK = ModelRequest(
    session_id="task-1",
    priority=Priority.BATCH,
    messages=({"role": "user", "content": "why?"},),
    max_tokens=64,
    prompt_tokens=10,
)


@dataclass(slots=True)
class Seen:
    """The text and calls that a caller knows who follows the events."""

    text: str = ""
    calls: dict[str, ToolCall] = field(default_factory=dict)
    withdrawn: list[ModelEvent] = field(default_factory=list)
    events: list[ModelEvent] = field(default_factory=list)
    reply: ModelReply | None = None

    def take(self, event: ModelEvent) -> None:
        """Follow one event."""
        assert self.reply is None, "nothing comes after the end"
        self.events.append(event)
        match event:
            case TextDelta(text=text):
                self.text += text
            case ToolCallComplete(call=call):
                self.calls[call.id] = call
            case Withdrawn():
                self.withdrawn.append(event)
                self.text, self.calls = "", {}
            case Finished(reply=reply):
                self.reply = reply


def endpoint(url: str, timeouts: Timeouts = PATIENT, *, is_vllm: bool = True) -> Endpoint:
    """An endpoint that wants a key."""
    return Endpoint(url=url, model="smol", is_vllm=is_vllm, key_environment="K", timeouts=timeouts)


@asynccontextmanager
async def client(
    retries: RetryPolicy = QUICK, key: str = KEY, wall: Callable[[], float] = time.time
) -> AsyncIterator[ModelClient]:
    """A client whose pauses are short."""
    async with httpx2.AsyncClient() as connections:
        yield ModelClient(connections, environment={"K": key}, retries=retries, draw=max, wall_seconds=wall)


async def asked(
    url: str,
    request: ModelRequest = ASK,
    *,
    timeouts: Timeouts = PATIENT,
    is_vllm: bool = True,
    retries: RetryPolicy = QUICK,
) -> tuple[ModelReply, Seen]:
    """The reply, and what the events said; the two agree."""
    seen = Seen()
    async with client(retries) as models:
        reply = await models.complete(endpoint(url, timeouts, is_vllm=is_vllm), request, seen.take)
    assert seen.reply == reply
    if reply.problem is None:
        assert (seen.text, tuple(seen.calls.values())) == (reply.text, reply.tool_calls)
    return reply, seen
