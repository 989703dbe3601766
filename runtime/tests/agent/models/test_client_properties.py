"""Whatever servers do, in whatever order: no mixture of two tries, and no token beyond the allowance.

The servers are played, since thousands of calls are made; those of the other tests are real.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flotilla_runtime.agent.models import Endpoint, ModelClient, ModelOutcome, ModelReply
from flotilla_runtime.agent.retries import RetryPolicy
from flotilla_runtime.backoff import Backoff
from model_support.calls import ASK, Seen
from model_support.raw_server import counted, event, said

PROMPT = 10
AT_ONCE = RetryPolicy(tries=5, backoff=Backoff(base_seconds=0, limit_seconds=0))
ENDPOINT = Endpoint(url="http://model/v1", model="smol", is_vllm=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """The act of the server in one try: it refuses, or writes so many tokens and then ends or breaks off."""

    status: int = 200
    tokens: int = 0
    ends: bool = True
    counts: bool = True


@dataclass(slots=True)
class Server:
    """Plays its acts; each try has a letter of its own, which is a token."""

    acts: list[Act]
    tries: int = 0
    used: int = 0
    asked_for: list[int] = field(default_factory=list)

    def answer(self, request: httpx2.Request) -> httpx2.Response:
        act = self.acts[self.tries]
        letter = chr(ord("a") + self.tries)
        self.tries += 1
        self.asked_for.append(json.loads(request.content)["max_tokens"])
        if act.status != 200:
            return httpx2.Response(act.status, stream=httpx2.ByteStream(b""))
        written = min(act.tokens, self.asked_for[-1])
        self.used += PROMPT + written
        stream = _Stream(letter, written, act)
        return httpx2.Response(200, headers={"Content-Type": "text/event-stream"}, stream=stream)


class _Stream(httpx2.AsyncByteStream):
    def __init__(self, letter: str, written: int, act: Act) -> None:
        self._letter = letter
        self._written = written
        self._act = act

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for number in range(self._written):
            yield event(said(self._letter))
            if self._act.counts:
                yield event(counted(PROMPT, number + 1))
        if not self._act.ends:
            raise httpx2.ReadError("gone")
        yield event(said("", "stop"))
        if self._act.counts:
            yield event(counted(PROMPT, self._written))
        yield b"data: [DONE]\n\n"


acts = st.builds(
    Act,
    status=st.sampled_from([200, 200, 200, 200, 429, 500, 503, 400]),
    tokens=st.integers(0, 40),
    ends=st.booleans(),
    counts=st.booleans(),
)


async def called(server: Server, allowance: int | None) -> tuple[ModelReply, Seen]:
    seen = Seen()
    async with httpx2.AsyncClient(transport=httpx2.MockTransport(server.answer)) as connections:
        models = ModelClient(connections, environment={}, retries=AT_ONCE, draw=max)
        request = replace(ASK, prompt_tokens=PROMPT, max_tokens=30, allowance_tokens=allowance)
        return await models.complete(ENDPOINT, request, seen.take), seen


@pytest.mark.holds(
    "decisions/0018-model-calls.md", "Two tries are never mixed, and all together keep to the allowance"
)
@settings(max_examples=300)
@given(st.lists(acts, min_size=5, max_size=5), st.none() | st.integers(0, 200))
def test_an_answer_is_of_one_try_and_all_tries_keep_to_the_allowance(
    played: list[Act], allowance: int | None
) -> None:
    server = Server(played)
    reply, seen = asyncio.run(called(server, allowance))
    assert reply.tries == server.tries
    assert len(set(reply.text)) <= 1
    assert seen.text == reply.text
    assert server.used <= reply.usage.tokens, "what a server did is never forgotten"
    if allowance is not None:
        assert reply.usage.tokens <= allowance
    if reply.outcome is ModelOutcome.SUCCEEDED:
        last = played[server.tries - 1]
        assert len(reply.text) == min(last.tokens, server.asked_for[-1])
