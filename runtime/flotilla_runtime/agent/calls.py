"""The calls a task makes over the network: the fleet's models and indexes, as HTTP services.

A call ends in a `Reply` and never raises for what the other side did: an outcome that the loop can plan with.
What may pass (no connection, 429, 5xx) is tried again with full jitter; what will not (a request the model
refuses) is not. Cancelling a call closes its connection, so the model stops working on it too.
"""

import asyncio
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import httpx

from flotilla_runtime.agent.journal import CallOutcome
from flotilla_runtime.agent.loop import Call, ModelCall, RetrieveCall
from flotilla_runtime.agent.retries import INDEX_RETRIES, MODEL_RETRIES, RetryPolicy
from flotilla_runtime.contract import (
    HEADER_PRIORITY,
    HEADER_SESSION,
    Priority,
    RetrieveRequest,
    RetrieveResponse,
    WorkerConfig,
)

MAY_PASS: Final = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
LONGEST_QUERY: Final = 8192  # characters that RetrieveRequest takes
SHOWN_PROBLEM: Final = 300  # characters of a foreign error that go into a journal
CONNECT_TIMEOUT_SECONDS: Final = 5.0
BEYOND_DEADLINE_SECONDS: Final = 1.0  # an index that is late says so itself, and its words should arrive
TOO_LONG_SIGNS: Final = ("context length", "context_length", "maximum context", "too long", "max_model_len")


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """What every call of one task carries."""

    task_id: str
    priority: Priority


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """How a call ended, and what came of it."""

    outcome: CallOutcome
    value: Any = None
    generation: str | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    tries: int = 1
    problem: str | None = None


class Caller:
    """Makes the loop's calls with one pool of connections."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        config: WorkerConfig,
        *,
        environment: Mapping[str, str],
        draw: Callable[[float, float], float] = random.uniform,
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
            async with asyncio.timeout(limit):
                response, tries = await self._posted(
                    index.url,
                    request.model_dump(by_alias=True, exclude_none=True),
                    {},
                    self._index_retries,
                )
        except TimeoutError:
            return Reply(outcome=CallOutcome.TIMED_OUT, problem=f"no answer within {limit:g} s")
        if not isinstance(response, httpx.Response):
            return Reply(outcome=CallOutcome.FAILED, problem=response, tries=tries)
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
            f"{model.url.rstrip('/')}/chat/completions", body, headers, self._model_retries
        )
        if not isinstance(response, httpx.Response):
            too_long = any(sign in response.lower() for sign in TOO_LONG_SIGNS)
            outcome = CallOutcome.PROMPT_TOO_LONG if too_long else CallOutcome.FAILED
            return Reply(outcome=outcome, problem=response, tries=tries)
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
                problem=f"not a chat completion: {problem!r}",
                tries=tries,
            )

    async def _posted(
        self, url: str, body: Mapping[str, Any], headers: Mapping[str, str], policy: RetryPolicy
    ) -> tuple[httpx.Response | str, int]:
        """The answer, or the problem in words, and how many times it was tried."""
        problem = ""
        for failures in range(1, policy.tries + 1):
            retry_after: float | None = None
            try:
                response = await self._client.post(url, json=body, headers=dict(headers))
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                problem = f"{url}: {type(error).__name__} {error}".strip()
            else:
                if response.is_success:
                    return response, failures
                problem = f"{url} answered {response.status_code}: {_shown(response.text)}"
                if response.status_code not in MAY_PASS:
                    return problem, failures
                retry_after = _seconds(response.headers.get("Retry-After"))
            if failures < policy.tries:
                await asyncio.sleep(policy.pause_seconds(failures, retry_after, self._draw))
        return f"{problem} ({policy.tries} tries)", policy.tries


def http_client(config: WorkerConfig) -> httpx.AsyncClient:
    """One client for all of a worker's tasks, with room for every call they may make at once."""
    connections = config.concurrency * max(1, len(config.indexes))
    return httpx.AsyncClient(
        timeout=httpx.Timeout(config.model_timeout_seconds, connect=CONNECT_TIMEOUT_SECONDS, pool=None),
        limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
    )


def _seconds(header: str | None) -> float | None:
    return float(header) if header and header.isdecimal() else None


def _shown(text: str) -> str:
    return text if len(text) <= SHOWN_PROBLEM else f"{text[:SHOWN_PROBLEM]}…"
