"""Sends a reply as a stream of events, with the faults that streams are given."""

import asyncio
from dataclasses import dataclass
from itertools import count

from aiohttp import web

from engine_double import shapes
from engine_double.engine import EventQueue
from engine_double.faults import Faults
from engine_double.replies import Delta, FinishedBy, filler_reply
from engine_double.work import Finished

COMMENT = b": still here\n\n"
BETWEEN_COMMENTS_SECONDS = 0.1
FILLER_AT_ONCE = 32
BETWEEN_FILLERS_SECONDS = 0.001


@dataclass(frozen=True, slots=True, kw_only=True)
class Spoken:
    """Contents of a stream: the reply token by token, why it ends, and with which counts."""

    answer: shapes.Answer
    deltas: list[Delta]
    finished_by: FinishedBy
    with_usage: bool
    with_continuous_usage: bool


class Stream:
    """One stream."""

    def __init__(self, request: web.Request, spoken: Spoken, faults: Faults) -> None:
        self._request = request
        self._spoken = spoken
        self._faults = faults
        self._response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})

    async def send(self, events: EventQueue) -> web.StreamResponse:
        """Send the reply, each token when the engine has it."""
        spoken, faults = self._spoken, self._faults
        await self._response.prepare(self._request)
        if spoken.answer.chat:
            await self._say(shapes.opening(spoken.answer), 0)
        for number, delta in enumerate(spoken.deltas):
            if await self._breaks(number):
                return self._response
            await until_generated(events)
            is_last = number == len(spoken.deltas) - 1
            reason = spoken.finished_by if is_last and not faults.endless_streams else None
            chunk = shapes.token(spoken.answer, delta, reason, last=is_last and not spoken.with_usage)
            await self._say(chunk, number + 1)
        if faults.endless_streams:
            await self._say_without_end()
        finished = await until_finished(events)
        if spoken.with_usage:
            cached = finished.record.cached_tokens
            await self._write(shapes.event(shapes.closing(spoken.answer, len(spoken.deltas), cached)))
        await self._write(shapes.DONE)
        await self._response.write_eof()
        return self._response

    async def _breaks(self, number: int) -> bool:
        """Whether the stream is over before this token, by a fault."""
        faults = self._faults
        if number == faults.stall_streams_after_tokens:
            while True:
                await self._response.write(COMMENT)
                await asyncio.sleep(BETWEEN_COMMENTS_SECONDS)
        if number == faults.cut_streams_after_tokens:
            _cut(self._request)
            return True
        if number == faults.error_in_streams_after_tokens:
            broken = shapes.error(500, "InternalServerError", "EngineCore encountered an issue.")
            await self._write(shapes.event(broken) + shapes.DONE)
        is_over = number in (faults.error_in_streams_after_tokens, faults.end_streams_after_tokens)
        if is_over:
            await self._response.write_eof()
        return is_over

    async def _say_without_end(self) -> None:
        """Filler text, until the caller goes away; fast, but not as fast as the processor can."""
        filler = filler_reply(FILLER_AT_ONCE).deltas()
        for number in count(len(self._spoken.deltas)):
            delta = filler[number % len(filler)]
            await self._say(shapes.token(self._spoken.answer, delta, None, last=False), number)
            if number % FILLER_AT_ONCE == 0:
                await asyncio.sleep(BETWEEN_FILLERS_SECONDS)

    async def _say(self, chunk: shapes.JSON, tokens: int) -> None:
        if self._spoken.with_continuous_usage:
            chunk = shapes.counted(chunk, self._spoken.answer, tokens)
        await self._write(shapes.event(chunk))

    async def _write(self, data: bytes) -> None:
        size = self._faults.stream_bytes or len(data)
        for start in range(0, len(data), size):
            await self._response.write(data[start : start + size])


async def until_generated(events: EventQueue) -> None:
    """Wait until the engine has the next token."""
    while isinstance(await events.get(), Finished):
        continue


async def until_finished(events: EventQueue) -> Finished:
    """Wait until the engine has ended the request."""
    while not isinstance(event := await events.get(), Finished):
        continue
    return event


def _cut(request: web.Request) -> None:
    """Break the connection in the middle of the body, as a dying engine does."""
    if request.transport is not None:
        request.transport.abort()
