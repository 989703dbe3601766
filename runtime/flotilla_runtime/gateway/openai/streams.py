"""Streams a task in the form of OpenAI's: chunks of a chat completion, or the events of a response.

The events of a response are numbered by how much text was given, so they have the same numbers at every
gateway and at every time, and a client resumes behind any of them.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from flotilla_runtime.gateway.answer_text import AnswerText, TextBrokenError
from flotilla_runtime.gateway.events import COMMENT_EVERY_SECONDS, Sight, followed
from flotilla_runtime.gateway.openai import answers
from flotilla_runtime.gateway.openai.errors import error_document, refusal
from flotilla_runtime.gateway.problems import ProblemError, unavailable
from flotilla_runtime.gateway.service import Outcome

COMMENT: Final = ": still here\n\n"
DONE: Final = "data: [DONE]\n\n"
STOPPING_RETRY_SECONDS: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """The task of one stream, and how to ask for its state."""

    sight: Sight
    fleet: str
    begun: Outcome
    ask: Callable[[], Awaitable[Outcome]]


def broken(task: str) -> ProblemError:
    """The problem of a text that was taken back after it was given."""
    return refusal(
        f"a part of the text was taken back, because a try of the model died; the task {task} goes on, and "
        "its answer can be read when it has ended",
        None,
        "text_withdrawn",
    )


async def texts(stream: Stream, given: AnswerText) -> AsyncIterator[str | None]:
    """The pieces of the answer as they come, and None from time to time. Raises a problem where it breaks."""
    task = stream.begun.record.id
    clock = asyncio.get_running_loop().time
    comment_at = clock() + COMMENT_EVERY_SECONDS
    try:
        async for heard in followed(stream.sight, task, 0):
            if heard.event is not None and (new := given.heard(heard.event)):
                yield new
            elif clock() >= comment_at:
                yield None
                comment_at = clock() + COMMENT_EVERY_SECONDS
    except TextBrokenError:
        raise broken(task) from None


async def outcome_of(stream: Stream) -> Outcome:
    """The end of the task. Raises a problem if the gateway stops before it."""
    outcome = await stream.ask()
    if not outcome.record.status.is_final:
        raise unavailable(
            f"this gateway stops; the task {outcome.record.id} goes on, and can be followed at another one",
            STOPPING_RETRY_SECONDS,
        )
    return outcome


async def chat_chunks(stream: Stream, *, counts: bool) -> AsyncIterator[str]:
    """A chat completion as server-sent events."""
    record, given = stream.begun.record, AnswerText()

    def chunk(delta: dict[str, Any], reason: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": reason, "logprobs": None}
        return _data(answers.chat_chunk(record, stream.fleet, choices=[choice]))

    yield chunk({"role": "assistant", "content": ""})
    try:
        async for new in texts(stream, given):
            yield COMMENT if new is None else chunk({"content": new})
        outcome = await outcome_of(stream)
        reason = answers.finish_reason(outcome.record)
        rest = _rest(given, outcome)
        if rest:
            yield chunk({"content": rest})
        yield chunk({}, reason)
    except ProblemError as problem:
        yield _data(error_document(problem))
        return
    if counts:
        yield _data(answers.chat_chunk(record, stream.fleet, choices=[], usage=answers.usage(outcome)))
    yield DONE


async def response_events(stream: Stream, after: int) -> AsyncIterator[str]:
    """The events of a response behind the one of this number, as server-sent events."""
    given, told = AnswerText(), Numbered(stream, after)
    for event in told.events(_beginning(stream)):
        yield event
    try:
        async for new in texts(stream, given):
            for event in [COMMENT] if new is None else told.text(new):
                yield event
        outcome = await outcome_of(stream)
        final = answers.response(outcome, stream.fleet)
        for event in told.text(_rest(given, outcome) if final["output"] else ""):
            yield event
    except ProblemError as problem:
        yield told.error(problem)
        return
    for event in told.events(_end(stream, outcome, given.given)):
        yield event


class Numbered:
    """Numbers the events of a response, and leaves out those that the client has."""

    def __init__(self, stream: Stream, after: int) -> None:
        self._place = _place(stream.begun)
        self._after = after
        self._next = 0

    def events(self, events: Iterator[dict[str, Any]]) -> Iterator[str]:
        """Events without text, one number each."""
        for event in events:
            self._next += 1
            if self._next - 1 > self._after:
                yield _event({**event, "sequence_number": self._next - 1})

    def text(self, new: str) -> Iterator[str]:
        """A piece of the text, from where the client has it; its number is that of its last character."""
        self._next += len(new)
        known = max(0, len(new) - (self._next - 1 - self._after))
        if known < len(new):
            event = {**self._place, "type": "response.output_text.delta", "delta": new[known:]}
            yield _event({**event, "logprobs": [], "sequence_number": self._next - 1})

    def error(self, problem: ProblemError) -> str:
        """The end of a stream that cannot go on."""
        error = error_document(problem)["error"]
        told = {"type": "error", "code": error["code"], "message": error["message"], "param": None}
        return _event({**told, "sequence_number": self._next})


def _beginning(stream: Stream) -> Iterator[dict[str, Any]]:
    begun = answers.response(stream.begun, stream.fleet)
    begun = {**begun, "status": "in_progress", "output": [], "usage": None, "error": None}
    item = answers.message_item(stream.begun.record, None, "in_progress")
    yield {"type": "response.created", "response": begun}
    yield {"type": "response.in_progress", "response": begun}
    yield {"type": "response.output_item.added", "output_index": 0, "item": item}
    yield {**_place(stream.begun), "type": "response.content_part.added", "part": answers.text_part("")}


def _end(stream: Stream, outcome: Outcome, text: str) -> Iterator[dict[str, Any]]:
    final = answers.response(outcome, stream.fleet)
    status = "completed" if final["status"] == "completed" else "incomplete"
    place, part = _place(outcome), answers.text_part(text)
    item = answers.message_item(outcome.record, text, status)
    yield {**place, "type": "response.output_text.done", "text": text, "logprobs": []}
    yield {**place, "type": "response.content_part.done", "part": part}
    yield {"type": "response.output_item.done", "output_index": 0, "item": item}
    kind = final["status"] if final["status"] in ("completed", "incomplete") else "failed"
    yield {"type": f"response.{kind}", "response": final}


def _place(outcome: Outcome) -> dict[str, Any]:
    return {"item_id": f"msg_{outcome.record.id}", "output_index": 0, "content_index": 0}


def _rest(given: AnswerText, outcome: Outcome) -> str:
    try:
        return given.ended(answers.final_answer(outcome.record))
    except TextBrokenError:
        raise broken(outcome.record.id) from None


def _data(document: dict[str, Any]) -> str:
    return f"data: {json.dumps(document, ensure_ascii=False)}\n\n"


def _event(document: dict[str, Any]) -> str:
    return f"event: {document['type']}\n{_data(document)}"
