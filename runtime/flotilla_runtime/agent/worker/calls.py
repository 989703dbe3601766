"""Makes the calls of a task: to the fleet's models, indexes and tools.

A call returns a `Reply` and never raises for an error of the other side, so an agent can plan with every
outcome. Errors that may be temporary (no connection, 429, 5xx) are tried again with full jitter; others, such
as a request that the model refuses, are not. Cancelling a call closes its connection, so the model stops
working on it too.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import httpx2
import structlog

from flotilla_runtime.agent.budgets import Amount, Budget
from flotilla_runtime.agent.journal import CallKind, CallOutcome
from flotilla_runtime.agent.models import (
    Endpoint,
    ModelClient,
    ModelOutcome,
    ModelProblemReason,
    ModelReply,
    ModelRequest,
    Timeouts,
    Usage,
)
from flotilla_runtime.agent.models.client import ignored
from flotilla_runtime.agent.models.journal_form import value_of
from flotilla_runtime.agent.models.values import ModelEvent
from flotilla_runtime.agent.programs import ContextOf, stated_context
from flotilla_runtime.agent.protocols import (
    Call,
    Certainty,
    Reconciled,
    Reply,
    SearchRequest,
    Session,
    Spent,
)
from flotilla_runtime.agent.retries import INDEX_RETRIES, MODEL_RETRIES, RetryPolicy
from flotilla_runtime.agent.tools.runner import ToolRunner
from flotilla_runtime.agent.worker.reservations import cost_of, reserved
from flotilla_runtime.agent.worker.texts import Texts
from flotilla_runtime.backoff import Draw
from flotilla_runtime.contract import (
    HEADER_TENANT,
    HEADER_TRACE,
    IndexConnection,
    ModelConnection,
    RetrieveRequest,
    RetrieveResponse,
    SecretError,
    WorkerConfig,
)
from flotilla_runtime.contract.failure_texts import what_failed
from flotilla_runtime.http_errors import said_of
from flotilla_runtime.secret_files import secret_in

MAY_PASS: Final = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
TAKES_NO_CALLS: Final = frozenset(
    {ModelProblemReason.NO_CONNECTION, ModelProblemReason.RATE_LIMITED, ModelProblemReason.UNAVAILABLE}
)
OUTCOMES: Final[Mapping[ModelOutcome, CallOutcome]] = {
    ModelOutcome.SUCCEEDED: CallOutcome.SUCCEEDED,
    ModelOutcome.TIMED_OUT: CallOutcome.TIMED_OUT,
    ModelOutcome.PROMPT_TOO_LONG: CallOutcome.PROMPT_TOO_LONG,
}
BYTES_PER_TOKEN: Final = 4  # of an answer, about
LONGEST_QUERY: Final = 8192  # characters, the limit of RetrieveRequest
SHOWN_PROBLEM: Final = 300  # characters of a received error that are written to the journal
MOST_IDLE: Final = 100  # connections
CONNECT_TIMEOUT_SECONDS: Final = 5.0
BEYOND_DEADLINE_SECONDS: Final = 1.0  # an index reports its own time-out; this leaves time for that answer

SaltOf = Callable[[str], Awaitable[str]]

log = structlog.get_logger(__name__)


async def no_salt(tenant: str) -> str:
    """Refuse, because a request without a salt would share what the model keeps with other tenants."""
    raise RuntimeError(f"there is no salt for the tenant {tenant}")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Failure:
    """Why a search has no good answer."""

    problem: str


class Caller:
    """Makes calls with one pool of connections."""

    def __init__(
        self,
        client: httpx2.AsyncClient,
        config: WorkerConfig,
        *,
        environment: Mapping[str, str],
        draw: Draw = random.uniform,
        model_retries: RetryPolicy = MODEL_RETRIES,
        index_retries: RetryPolicy = INDEX_RETRIES,
        context_of: ContextOf = stated_context,
        tools: ToolRunner | None = None,
        texts: Texts | None = None,
        salt_of: SaltOf = no_salt,
    ) -> None:
        self._client = client
        self._texts = texts
        self._salt_of = salt_of
        self._models_client = ModelClient(client, environment=environment, draw=draw, retries=model_retries)
        self._models = {model.name: model for model in config.models}
        self._indexes = {index.name: index for index in config.indexes}
        self._draw = draw
        self._index_retries = index_retries
        self._context_of = context_of
        self._tools = tools or ToolRunner({})

    async def reservation(self, call: Call, session: Session, budget: Budget) -> tuple[Call, Amount]:
        """Return the call cut to what context and budget leave, and the most that it can use."""
        if call.kind is not CallKind.MODEL or not isinstance(call.request, ModelRequest):
            return call, Amount()
        model = self._models[call.target]
        counted = await self._models_client.count_prompt(_endpoint(model), call.request)
        request, amount = reserved(
            call.request,
            counted,
            context_tokens=await self._context_of(model),
            pricing=model.pricing,
            budget=budget,
            max_output_tokens=model.max_output_tokens,
        )
        return replace(call, request=request, most_bytes=BYTES_PER_TOKEN * request.max_tokens), amount

    async def make(self, call: Call, session: Session) -> Reply:
        """Make one call."""
        try:
            return await self._made(call, session)
        except Exception as problem:
            log.exception("call_broke", call=call.id, kind=call.kind, target=call.target)
            said = _shown(what_failed(problem))
            return Reply(outcome=CallOutcome.FAILED, problem=said, certainty=Certainty.UNKNOWN)

    async def reconcile(self, call: Call, session: Session) -> Reconciled | None:
        """Ask the tool's `reconcile` whether an Unsafe call happened; None if nobody knows."""
        return await self._tools.reconcile(call)

    async def _made(self, call: Call, session: Session) -> Reply:
        match call.request:
            case ModelRequest() as request:
                model = self._models[call.target]
                traced = replace(
                    request, traceparent=call.traceparent, cache_salt=await self._salt(model, session)
                )
                return await self._asked(model, traced, call, session)
            case SearchRequest() as request:
                return await self._retrieve(call, request, session.tenant)
            case _:
                return await self._tools.make(call, session.task_id)

    async def _salt(self, model: ModelConnection, session: Session) -> str | None:
        """The salt of the task's tenant; no request goes without one to a model that isolates tenants."""
        return await self._salt_of(session.tenant) if model.isolate_tenants else None

    async def _asked(
        self, model: ModelConnection, request: ModelRequest, call: Call, session: Session
    ) -> Reply:
        async def allow_more(asked: ModelRequest, used: Usage, until: float) -> ModelRequest | None:
            if call.more is None:
                return None
            spent = Spent(tokens=used.tokens, nano_usd=cost_of(used, model.pricing), waits_until=until)
            reserved_anew = await call.more(replace(call, request=asked), spent)
            return None if reserved_anew is None else reserved_anew.request

        ask = partial(self._models_client.complete, _endpoint(model), request, allow_more=allow_more)
        hear = call.on_event or ignored
        if self._texts is None:
            return _told(await ask(hear), model)
        text = self._texts.begin(session.task_id, session.token, call.id, answers=request.answers)

        def heard(event: ModelEvent) -> None:
            text.take(event)
            hear(event)

        try:
            reply = await ask(heard)
        finally:
            text.end()
        return _told(reply, model)

    async def _retrieve(self, call: Call, asked: SearchRequest, tenant: str) -> Reply:
        index = self._indexes.get(call.target)
        if index is None:
            return Reply(outcome=CallOutcome.INVALID, problem=f"the fleet has no index {call.target}")
        request = RetrieveRequest(query=asked.query[:LONGEST_QUERY], top_k=asked.top_k)
        limit = index.deadline_milliseconds / 1000 + BEYOND_DEADLINE_SECONDS
        try:
            headers = _with_key(index)
        except OSError as error:
            problem = f"the key of the index cannot be read from {index.key_path}: {error.strerror}"
            return Reply(outcome=CallOutcome.FAILED, problem=problem)
        except SecretError as error:
            return Reply(outcome=CallOutcome.FAILED, problem=f"the key of the index cannot be sent: {error}")
        try:
            async with asyncio.timeout(limit):
                body = request.model_dump(by_alias=True, exclude_none=True)
                headers[HEADER_TENANT] = _header(tenant)
                if call.traceparent is not None:
                    headers[HEADER_TRACE] = call.traceparent
                response, tries = await self._posted(index.url, body, headers)
        except TimeoutError:
            return Reply(outcome=CallOutcome.TIMED_OUT, problem=f"no answer within {limit:g} s")
        if not isinstance(response, httpx2.Response):
            return Reply(outcome=CallOutcome.FAILED, problem=response.problem, tries=tries)
        try:
            found = RetrieveResponse.model_validate_json(response.content)
        except ValueError as problem:
            return Reply(
                outcome=CallOutcome.FAILED,
                problem=_shown(f"the index gives no passages: {what_failed(problem)}"),
                tries=tries,
            )
        return Reply(
            outcome=CallOutcome.SUCCEEDED,
            value=[passage.model_dump(by_alias=True, exclude_none=True) for passage in found.passages],
            generation=found.generation,
            tries=tries,
        )

    async def _posted(
        self, url: str, body: Mapping[str, Any], headers: httpx2.Headers
    ) -> tuple[httpx2.Response | _Failure, int]:
        """The answer or the failure, and the number of tries."""
        policy = self._index_retries
        failure = _Failure(problem="")
        for failures in range(1, policy.tries + 1):
            retry_after: float | None = None
            try:
                response = await self._client.post(url, json=body, headers=headers)
            except httpx2.LocalProtocolError as error:
                return _Failure(problem=f"{url}: {said_of(error)}"), failures
            except (httpx2.HTTPError, httpx2.InvalidURL) as error:
                failure = _Failure(problem=f"{url}: {said_of(error)}")
            else:
                if response.is_success:
                    return response, failures
                problem = f"{url} answered {response.status_code}: {_shown(response.text)}"
                failure = _Failure(problem=problem)
                if response.status_code not in MAY_PASS:
                    return failure, failures
                retry_after = _seconds(response.headers.get("Retry-After"))
            if failures < policy.tries:
                await asyncio.sleep(policy.pause_seconds(failures, retry_after, self._draw))
        return replace(failure, problem=f"{failure.problem} ({policy.tries} tries)"), policy.tries


def http_client(config: WorkerConfig) -> httpx2.AsyncClient:
    """One client for all tasks of a worker. It opens as many connections as there are calls at once.

    It keeps few that no call uses: at each request, httpx2 asks the system about each of them.
    """
    return httpx2.AsyncClient(
        timeout=httpx2.Timeout(config.model_timeout_seconds, connect=CONNECT_TIMEOUT_SECONDS, pool=None),
        limits=httpx2.Limits(max_connections=None, max_keepalive_connections=MOST_IDLE),
    )


def _endpoint(model: ModelConnection) -> Endpoint:
    return Endpoint(
        url=model.url,
        model=model.model,
        is_vllm=model.tokenizes,
        key_environment=model.key_environment,
        timeouts=Timeouts(**model.timeouts.model_dump()),
    )


def _told(reply: ModelReply, model: ModelConnection) -> Reply:
    """A model's reply as the journal has it."""
    return Reply(
        outcome=OUTCOMES.get(reply.outcome, CallOutcome.FAILED),
        first_token_ms=reply.first_token_ms,
        value=value_of(reply) if reply.problem is None else None,
        input_tokens=reply.usage.input_tokens,
        cached_input_tokens=reply.usage.cached_input_tokens,
        output_tokens=reply.usage.output_tokens,
        nano_usd=cost_of(reply.usage, model.pricing),
        tries=max(1, reply.tries),
        problem=None if reply.problem is None else _shown(reply.problem.message),
        is_refused=reply.problem is not None and reply.problem.reason in TAKES_NO_CALLS,
        replica=reply.replica,
    )


def _header(text: str) -> str:
    """A name as the value of a header."""
    return text if text.isascii() and text.isprintable() else quote(text)


def _with_key(index: IndexConnection) -> httpx2.Headers:
    """The headers of a search. The key's file is read each time, because a new key replaces its content."""
    if index.key_path is None:
        return httpx2.Headers()
    return httpx2.Headers({"Authorization": f"Bearer {secret_in(Path(index.key_path))}"})


def _seconds(header: str | None) -> float | None:
    return float(header) if header and header.isdecimal() else None


def _shown(text: str) -> str:
    return text if len(text) <= SHOWN_PROBLEM else f"{text[:SHOWN_PROBLEM]}…"
