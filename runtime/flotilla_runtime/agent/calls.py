"""Makes the HTTP calls of a task to the fleet's models and indexes.

A call returns a `Reply` and never raises for an error of the other side, so the loop can plan with every
outcome. Errors that may be temporary (no connection, 429, 5xx) are tried again with full jitter; others, such
as a request that the model refuses, are not. Cancelling a call closes its connection, so the model stops
working on it too.
"""

import asyncio
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import httpx

from flotilla_runtime.agent.journal import CallOutcome
from flotilla_runtime.agent.loop import Call, ModelCall, RetrieveCall
from flotilla_runtime.agent.retries import INDEX_RETRIES, MODEL_RETRIES, RetryPolicy
from flotilla_runtime.backoff import Draw
from flotilla_runtime.contract import (
    HEADER_PRIORITY,
    HEADER_SESSION,
    IndexConnection,
    Priority,
    RetrieveRequest,
    RetrieveResponse,
    WorkerConfig,
)
from flotilla_runtime.engine_errors import says_too_long

MAY_PASS: Final = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
LONGEST_QUERY: Final = 8192  # characters, the limit of RetrieveRequest
SHOWN_PROBLEM: Final = 300  # characters of a received error that are written to the journal
CONNECT_TIMEOUT_SECONDS: Final = 5.0
UNSENDABLE: Final = "the request cannot be sent, because its key has characters that no header may have"
BEYOND_DEADLINE_SECONDS: Final = 1.0  # an index reports its own time-out; this leaves time for that answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """What all calls of one task send along."""

    task_id: str
    priority: Priority


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """How a call ended, and its result."""

    outcome: CallOutcome
    value: Any = None
    generation: str | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    tries: int = 1
    problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Failure:
    """Why a call has no good answer; `body` is that of the last answer, empty when there was none."""

    problem: str
    body: str = ""


class Caller:
    """Makes the loop's calls with one pool of connections."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        config: WorkerConfig,
        *,
        environment: Mapping[str, str],
        draw: Draw = random.uniform,
        model_retries: RetryPolicy = MODEL_RETRIES,
        index_retries: RetryPolicy = INDEX_RETRIES,
    ) -> None:
        self._client = client
        self._models = {model.name: model for model in config.models}
        self._indexes = {index.name: index for index in config.indexes}
        self._draw = draw
        self._model_retries = model_retries
        self._index_retries = index_retries
        self._environment = environment

    async def make(self, call: Call, session: Session) -> Reply:
        """Make one call."""
        match call:
            case RetrieveCall():
                return await self._retrieve(call)
            case ModelCall():
                return await self._ask_model(call, session)

    async def _retrieve(self, call: RetrieveCall) -> Reply:
        request = RetrieveRequest(query=call.query[:LONGEST_QUERY])
        index = self._indexes[call.target]
        limit = index.deadline_milliseconds / 1000 + BEYOND_DEADLINE_SECONDS
        try:
            headers = _with_key(index)
        except OSError as error:
            problem = f"the key of the index cannot be read from {index.key_path}: {error.strerror}"
            return Reply(outcome=CallOutcome.FAILED, problem=problem)
        try:
            async with asyncio.timeout(limit):
                response, tries = await self._posted(
                    index.url,
                    request.model_dump(by_alias=True, exclude_none=True),
                    headers,
                    self._index_retries,
                )
        except TimeoutError:
            return Reply(outcome=CallOutcome.TIMED_OUT, problem=f"no answer within {limit:g} s")
        if not isinstance(response, httpx.Response):
            return Reply(outcome=CallOutcome.FAILED, problem=response.problem, tries=tries)
        try:
            found = RetrieveResponse.model_validate_json(response.content)
        except ValueError as problem:
            return Reply(outcome=CallOutcome.FAILED, problem=_shown(str(problem)), tries=tries)
        return Reply(
            outcome=CallOutcome.SUCCEEDED,
            value=[passage.model_dump(by_alias=True, exclude_none=True) for passage in found.passages],
            generation=found.generation,
            tries=tries,
        )

    async def _ask_model(self, call: ModelCall, session: Session) -> Reply:
        model = self._models[call.target]
        body: dict[str, Any] = {
            "model": model.model,
            "messages": call.messages,
            "max_tokens": call.max_tokens,
            "temperature": 0,
        }
        headers = {
            HEADER_SESSION: session.task_id,
            HEADER_PRIORITY: session.priority,
        }
        if model.key_environment is not None:
            headers["Authorization"] = f"Bearer {self._environment[model.key_environment]}"
        response, tries = await self._posted(
            f"{model.url.rstrip('/')}/chat/completions", body, httpx.Headers(headers), self._model_retries
        )
        if not isinstance(response, httpx.Response):
            too_long = says_too_long(response.body)
            outcome = CallOutcome.PROMPT_TOO_LONG if too_long else CallOutcome.FAILED
            return Reply(outcome=outcome, problem=response.problem, tries=tries)
        try:
            answer = response.json()
            text = answer["choices"][0]["message"]["content"] or ""
            usage = answer.get("usage") or {}
            return Reply(
                outcome=CallOutcome.SUCCEEDED,
                value=text,
                input_tokens=int(usage.get("prompt_tokens", 0)),
                output_tokens=int(usage.get("completion_tokens", 0)),
                tries=tries,
            )
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as problem:
            return Reply(
                outcome=CallOutcome.FAILED,
                problem=f"the answer is not a chat completion: {problem!r}",
                tries=tries,
            )

    async def _posted(
        self, url: str, body: Mapping[str, Any], headers: httpx.Headers, policy: RetryPolicy
    ) -> tuple[httpx.Response | _Failure, int]:
        """The answer or the failure, and the number of tries."""
        failure = _Failure(problem="")
        for failures in range(1, policy.tries + 1):
            retry_after: float | None = None
            try:
                response = await self._client.post(url, json=body, headers=headers)
            except httpx.LocalProtocolError:  # its text would quote the key
                return _Failure(problem=f"{url}: {UNSENDABLE}"), failures
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                failure = _Failure(problem=f"{url}: {type(error).__name__} {error}".strip())
            else:
                if response.is_success:
                    return response, failures
                failure = _Failure(
                    problem=f"{url} answered {response.status_code}: {_shown(response.text)}",
                    body=response.text,
                )
                if response.status_code not in MAY_PASS:
                    return failure, failures
                retry_after = _seconds(response.headers.get("Retry-After"))
            if failures < policy.tries:
                await asyncio.sleep(policy.pause_seconds(failures, retry_after, self._draw))
        return replace(failure, problem=f"{failure.problem} ({policy.tries} tries)"), policy.tries


def http_client(config: WorkerConfig) -> httpx.AsyncClient:
    """One client for all tasks of a worker, with enough connections for all calls they may make at once."""
    connections = config.concurrency * max(1, len(config.indexes))
    return httpx.AsyncClient(
        timeout=httpx.Timeout(config.model_timeout_seconds, connect=CONNECT_TIMEOUT_SECONDS, pool=None),
        limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
    )


def _with_key(index: IndexConnection) -> httpx.Headers:
    """The headers of a search. The key's file is read each time, because a new key replaces its content."""
    if index.key_path is None:
        return httpx.Headers()
    return httpx.Headers([(b"Authorization", b"Bearer " + Path(index.key_path).read_bytes().strip())])


def _seconds(header: str | None) -> float | None:
    return float(header) if header and header.isdecimal() else None


def _shown(text: str) -> str:
    return text if len(text) <= SHOWN_PROBLEM else f"{text[:SHOWN_PROBLEM]}…"
