"""One try of a call: sends the request and reads the stream to its end. Never raises for the other side.

Only what the model writes counts as a token: a comment or an empty chunk, which proxies send to keep a
connection open, does not put a time-out off. All that is read has a limit. No redirect is followed, since it
would take the key elsewhere, and no compressed answer is read, since it could be small and hold gigabytes.
Cancelling the try closes its connection, and an engine then stops working on it.
"""

import asyncio
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import httpx2

from flotilla_runtime.agent.models import failures
from flotilla_runtime.agent.models.answers import ChunkError, StreamedAnswer
from flotilla_runtime.agent.models.failures import Failure
from flotilla_runtime.agent.models.retry_after import retry_after_seconds
from flotilla_runtime.agent.models.sse import EventParser, EventTooLongError
from flotilla_runtime.agent.models.values import (
    ModelProblem,
    ModelProblemReason,
    OnEvent,
    Timeouts,
    Usage,
    shown,
)
from flotilla_runtime.contract import HEADER_REPLICA
from flotilla_runtime.contract.failure_texts import shown_address
from flotilla_runtime.engine_errors import says_too_long

CONNECT_SECONDS: Final = 5.0
USAGE_SECONDS: Final = 5.0  # how long the counts may come after the answer's end
CLOSING_SECONDS: Final = 0.25  # how long the connection's end may take after the last event, to use it again
LONGEST_ERROR_BYTES: Final = 64 * 2**10
LEAST_STREAM_BYTES: Final = 2**20
STREAM_BYTES_PER_TOKEN: Final = 4 * 2**10  # vLLM needs about 400, 10 times as much with tokens' probabilities
SHORTEST_SECRET: Final = 8  # a shorter key guards nothing, and may be a part of any word
DONE: Final = b"[DONE]"
REPLICA: Final = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")  # the name of an object


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """The request of one try, and its limits; `deadline` is the whole call's, by the event loop's clock."""

    url: str
    headers: Mapping[str, str]
    body: Mapping[str, Any]
    prompt_tokens: int
    max_tokens: int
    timeouts: Timeouts
    deadline: float

    @property
    def address(self) -> str:
        return shown_address(self.url)


@dataclass(frozen=True, slots=True, kw_only=True)
class TryEnd:
    """How a try ended: with a whole answer, or with a failure. `has_told` if there was an event."""

    usage: Usage
    has_told: bool
    answer: StreamedAnswer | None = None
    failure: Failure | None = None
    first_token_ms: int | None = None
    replica: str | None = None


class Try:
    """One try."""

    def __init__(
        self, client: httpx2.AsyncClient, question: Question, on_event: OnEvent, wall: Callable[[], float]
    ) -> None:
        self._client = client
        self._question = question
        self._on_event = on_event
        self._wall = wall
        self._answer = StreamedAnswer()
        self._began = self._now()
        self._first_token: float | None = None
        self._has_answered = False
        self._replica: str | None = None
        self._has_told = False
        self._most_bytes = LEAST_STREAM_BYTES + STREAM_BYTES_PER_TOKEN * question.max_tokens
        first = self._began + question.timeouts.first_token_seconds
        self._timer = asyncio.timeout_at(min(first, question.deadline))

    async def run(self) -> TryEnd:
        """Make the try."""
        try:
            failure = await self._timed()
        except ChunkError as error:
            failure = self._read(self._judged(error))
        except EventTooLongError:
            failure = self._read(self._too_large("an event of the stream"))
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            failure = failures.of_error(self._question.address, error, has_begun=self._has_answered)
        if self._answer.finish_reason is not None:  # whatever happened behind the answer's end
            return self._ended(answer=self._answer)
        return self._ended(failure=failure or self._read(self._unfinished()))

    async def _timed(self) -> Failure | None:
        try:
            async with self._timer:
                return await self._asked()
        except TimeoutError:
            if not self._timer.expired():
                raise
            return self._read(self._too_slow())

    async def _asked(self) -> Failure | None:
        question = self._question
        content = json.dumps(question.body, ensure_ascii=False, separators=(",", ":"))
        async with self._client.stream(
            "POST",
            question.url,
            content=content.encode(errors="replace"),
            headers={**question.headers, "Content-Type": "application/json", "Accept-Encoding": "identity"},
            follow_redirects=False,
            timeout=httpx2.Timeout(None, connect=CONNECT_SECONDS),
        ) as response:
            self._replica = _replica(response)
            self._has_answered = response.status_code == httpx2.codes.OK
            if not self._has_answered:
                return await self._refused(response)
            wrong = _wrong_content(response)
            if wrong is not None:
                body = await _start_of(response)
                return self._read(_no_completion(f"{wrong}: {shown(self._without_key(body))}"))
            await self._read_stream(response)
        return None

    async def _refused(self, response: httpx2.Response) -> Failure:
        after = retry_after_seconds(response.headers.get("Retry-After"), self._wall())
        body = self._without_key(await _start_of(response))
        return failures.of_status(self._question.address, response.status_code, body, after)

    async def _read_stream(self, response: httpx2.Response) -> None:
        parser = EventParser()
        received = 0
        is_done = False
        async for part in response.aiter_raw():
            received += len(part)
            if received > self._most_bytes:
                raise ChunkError(self._too_large("the answer"))
            for data in parser.feed(part):
                if data == DONE:
                    is_done = True
                    self._wait_until(self._now() + CLOSING_SECONDS)
                if not is_done:
                    self._take(data)

    def _take(self, data: bytes) -> None:
        written = self._answer.written_bytes
        for event in self._answer.read(data):
            self._has_told = True
            self._on_event(event)
        now = self._now()
        if self._answer.finish_reason is not None:
            self._wait_until(now + USAGE_SECONDS)
        elif self._answer.written_bytes > written:
            self._first_token = self._first_token or now
            self._wait_until(now + self._question.timeouts.between_tokens_seconds)

    def _wait_until(self, moment: float) -> None:
        self._timer.reschedule(min(moment, self._question.deadline))

    def _ended(self, *, answer: StreamedAnswer | None = None, failure: Failure | None = None) -> TryEnd:
        used = self._answer.usage(self._question.prompt_tokens, self._question.max_tokens)
        if failure is not None and not failure.has_read_prompt:
            used = Usage()
        first = None if self._first_token is None else round((self._first_token - self._began) * 1000)
        return TryEnd(
            usage=used,
            has_told=self._has_told,
            answer=answer,
            failure=failure,
            first_token_ms=first,
            replica=self._replica,
        )

    def _too_slow(self) -> ModelProblem:
        timeouts = self._question.timeouts
        if self._now() >= self._question.deadline:
            limit = f"timeouts.totalSeconds ({timeouts.total_seconds:g} s)"
            return self._problem(ModelProblemReason.OUT_OF_TIME, f"did not end its answer within {limit}")
        if self._first_token is None:
            limit = f"timeouts.firstTokenSeconds ({timeouts.first_token_seconds:g} s)"
            return self._problem(ModelProblemReason.NO_FIRST_TOKEN, f"wrote nothing within {limit}")
        limit = f"timeouts.betweenTokensSeconds ({timeouts.between_tokens_seconds:g} s)"
        return self._problem(ModelProblemReason.STALLED, f"stopped in its answer for {limit}")

    def _unfinished(self) -> ModelProblem:
        return self._problem(ModelProblemReason.UNFINISHED_STREAM, "ended its stream before its answer's end")

    def _too_large(self, what: str) -> ModelProblem:
        return self._problem(ModelProblemReason.ANSWER_TOO_LARGE, f"sent too much: {what} has no end")

    def _judged(self, error: ChunkError) -> ModelProblem:
        """The problem of a chunk; an error that came as one is quoted."""
        if error.said is None:
            return error.problem
        too_long = says_too_long(error.said)
        reason = ModelProblemReason.PROMPT_TOO_LONG if too_long else error.problem.reason
        return self._problem(reason, f"broke off: {shown(self._without_key(error.said))}")

    def _problem(self, reason: ModelProblemReason, message: str) -> ModelProblem:
        return ModelProblem(reason=reason, message=f"{self._question.address} {message}")

    def _without_key(self, text: str) -> str:
        """A received text without our key, which a server may send back."""
        key = self._question.headers.get("Authorization", "").removeprefix("Bearer ")
        return text.replace(key, "…") if len(key) >= SHORTEST_SECRET else text

    def _read(self, problem: ModelProblem) -> Failure:
        """The failure of a try whose prompt may have been read."""
        return Failure(problem=problem, has_read_prompt=True)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


def _replica(response: httpx2.Response) -> str | None:
    """The replica that answered, as the router says. Another server may write there what it likes."""
    said = response.headers.get(HEADER_REPLICA, "")
    return said if REPLICA.fullmatch(said) else None


def _wrong_content(response: httpx2.Response) -> str | None:
    """Why this answer cannot be read as a stream of events."""
    encoding = response.headers.get("Content-Encoding", "identity")
    if encoding.lower() not in ("", "identity"):
        return f"it is encoded as {shown(encoding)}"
    kind = response.headers.get("Content-Type", "")
    if kind.partition(";")[0].strip().lower() != "text/event-stream":
        return f"its type is {shown(kind) or 'not said'}, not text/event-stream"
    return None


async def _start_of(response: httpx2.Response) -> str:
    """The beginning of a body."""
    body = bytearray()
    async for part in response.aiter_raw():
        body += part
        if len(body) >= LONGEST_ERROR_BYTES:
            break
    return body[:LONGEST_ERROR_BYTES].decode(errors="replace")


def _no_completion(problem: str) -> ModelProblem:
    message = f"the answer is not a chat completion: {problem}"
    return ModelProblem(reason=ModelProblemReason.NOT_A_COMPLETION, message=message)
