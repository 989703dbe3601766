"""Asks a model: one answer, streamed, from as many tries as it takes. Never raises for the other side.

What may pass is tried again, after a pause with full jitter and what the server asks for: no connection, 408,
409, 425, 429, 5xx, a stream that breaks, stalls or has no end. The new try goes to the same address, behind
which a router picks a replica that lives. A structured answer that does not fit its schema is sent back once,
to be corrected. All tries, pauses and the correction share `timeouts.total_seconds` and `allowance_tokens`;
when dead tries have spent the latter, more is asked for.

A caller that does not care what happens meanwhile just awaits the reply.
"""

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import httpx2

from flotilla_runtime.agent.models.counting import counted_by_vllm
from flotilla_runtime.agent.models.failures import outcome_of
from flotilla_runtime.agent.models.replies import reply_of, wants_repair
from flotilla_runtime.agent.models.requests import repair
from flotilla_runtime.agent.models.structured import schema_problem
from flotilla_runtime.agent.models.tokens import bound_of
from flotilla_runtime.agent.models.tries import Means, Tries
from flotilla_runtime.agent.models.values import (
    AllowMore,
    Endpoint,
    Finished,
    ModelEvent,
    ModelProblem,
    ModelProblemReason,
    ModelReply,
    ModelRequest,
    OnEvent,
    Usage,
    Withdrawn,
)
from flotilla_runtime.agent.retries import MODEL_RETRIES, RetryPolicy
from flotilla_runtime.backoff import Draw
from flotilla_runtime.contract import (
    HEADER_PRIORITY,
    HEADER_SESSION,
    HEADER_TRACE,
    secret_value,
    what_is_wrong,
)
from flotilla_runtime.contract.failure_texts import shown_address


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptTokens:
    """The length of a prompt: as the engine counts it if it `is_measured`, else the most that it can be."""

    tokens: int
    is_measured: bool


def ignored(_event: ModelEvent) -> None:
    """For callers that only want the reply."""


async def no_more(_request: ModelRequest, _used: Usage, _until: float) -> None:
    """For callers that allow what they allow."""


class ModelClient:
    """Makes calls with one pool of connections, which must have one for each call at the same time."""

    def __init__(
        self,
        client: httpx2.AsyncClient,
        *,
        environment: Mapping[str, str],
        draw: Draw = random.uniform,
        retries: RetryPolicy = MODEL_RETRIES,
        wall_seconds: Callable[[], float] = time.time,
    ) -> None:
        self._means = Means(client=client, retries=retries, draw=draw, wall_seconds=wall_seconds)
        self._environment = environment

    async def complete(
        self,
        endpoint: Endpoint,
        request: ModelRequest,
        on_event: OnEvent = ignored,
        allow_more: AllowMore = no_more,
    ) -> ModelReply:
        """Make one call; `on_event` is told what happens meanwhile, and at last the reply."""
        reply = await self._reply(endpoint, request, on_event, allow_more)
        on_event(Finished(reply=reply))
        return reply

    async def count_prompt(self, endpoint: Endpoint, request: ModelRequest) -> PromptTokens:
        """How long the prompt is, by the endpoint's own count if it is vLLM and answers soon."""
        headers = self._headers(endpoint, request)
        if endpoint.is_vllm and not isinstance(headers, ModelProblem):
            counted = await counted_by_vllm(self._means.client, endpoint, request, headers)
            if counted is not None:
                return PromptTokens(tokens=counted, is_measured=True)
        return PromptTokens(tokens=bound_of(replace(request, prompt_tokens=None)), is_measured=False)

    async def _reply(
        self, endpoint: Endpoint, request: ModelRequest, on_event: OnEvent, allow_more: AllowMore
    ) -> ModelReply:
        headers = self._headers(endpoint, request)
        if isinstance(headers, ModelProblem):
            return _not_asked(headers)
        wrong = None if request.response_schema is None else schema_problem(request.response_schema)
        if wrong is not None:
            return _not_asked(wrong)
        tries = Tries(self._means, endpoint, headers, on_event, allow_more)
        first = reply_of(request, await tries.until_answered(request), tries.count, tries.used)
        wrong = wants_repair(first)
        if wrong is None:
            return first
        again = await tries.with_room(repair(request, first.text, wrong.message))
        if not tries.room(again):
            return first
        on_event(Withdrawn(problem=wrong))
        second = reply_of(again, await tries.until_answered(again), tries.count, tries.used)
        if second.problem is None or wants_repair(second):
            return second
        return replace(first, tries=second.tries, usage=second.usage)

    def _headers(self, endpoint: Endpoint, request: ModelRequest) -> dict[str, str] | ModelProblem:
        headers = {HEADER_SESSION: request.session_id, HEADER_PRIORITY: str(request.priority)}
        if request.traceparent is not None:
            headers[HEADER_TRACE] = request.traceparent
        name = endpoint.key_environment
        if name is None:
            return headers
        raw = self._environment.get(name, "")
        if (wrong := what_is_wrong(raw)) is not None:
            message = (
                f"the API key for {shown_address(endpoint.url)}, in the environment variable {name}, {wrong}"
            )
            return ModelProblem(reason=ModelProblemReason.UNAUTHORIZED, message=message)
        return headers | {"Authorization": f"Bearer {secret_value(raw, name)}"}


def _not_asked(problem: ModelProblem) -> ModelReply:
    return ModelReply(outcome=outcome_of(problem), tries=0, problem=problem)
