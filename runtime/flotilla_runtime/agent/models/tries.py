"""Repeats the tries of a call until one is answered, within the call's time and allowance of tokens."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import httpx2

from flotilla_runtime.agent.models.failures import Failure
from flotilla_runtime.agent.models.requests import body_of
from flotilla_runtime.agent.models.streaming import Question, Try, TryEnd
from flotilla_runtime.agent.models.tokens import bound_of
from flotilla_runtime.agent.models.values import (
    AllowMore,
    Endpoint,
    ModelProblem,
    ModelProblemReason,
    ModelRequest,
    OnEvent,
    Usage,
    Withdrawn,
)
from flotilla_runtime.agent.retries import RetryPolicy
from flotilla_runtime.backoff import Draw

LEAST_ANSWER_TOKENS: Final = 16  # a try that may write less is not worth its prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """The means of all calls: the connections, the policy for tries, randomness and the time of day."""

    client: httpx2.AsyncClient
    retries: RetryPolicy
    draw: Draw
    wall_seconds: Callable[[], float]


class Tries:
    """The tries of one call, and what they have used so far of its allowance."""

    def __init__(
        self,
        means: Means,
        endpoint: Endpoint,
        headers: Mapping[str, str],
        on_event: OnEvent,
        allow_more: AllowMore,
    ) -> None:
        self.count = 0
        self.used = Usage()
        self._means = means
        self._endpoint = endpoint
        self._headers = headers
        self._on_event = on_event
        self._allow_more = allow_more
        self._deadline = _now() + endpoint.timeouts.total_seconds

    def room(self, request: ModelRequest) -> int:
        """How many tokens the next try may write; 0 if too few are left for one."""
        if request.allowance_tokens is None:
            return request.max_tokens
        left = request.allowance_tokens - self.used.tokens - bound_of(request)
        least = min(LEAST_ANSWER_TOKENS, request.max_tokens)
        return min(left, request.max_tokens) if left >= least else 0

    async def with_room(self, request: ModelRequest) -> ModelRequest:
        """The request, with a new allowance if too little of the old one is left for a try."""
        if self.room(request):
            return request
        allowed = await self._allow_more(request, self.used, self._deadline)
        if allowed is None:
            return request
        self.used = Usage()
        return allowed

    async def until_answered(self, request: ModelRequest) -> TryEnd:
        """The first try that is answered, or the last one that failed."""
        policy = self._means.retries
        failure: Failure | None = None
        for failures in range(1, policy.tries + 1):
            request = await self.with_room(request)
            room = self.room(request)
            if not room:
                return _spent(request, failure)
            ended = await self._one(request, room)
            failure = ended.failure
            if failure is None:
                return ended
            if ended.has_told:
                self._on_event(Withdrawn(problem=failure.problem))
            # What the server asks for has no limit but the call's time.
            asked = failure.retry_after_seconds or 0.0
            pause = asked + policy.backoff.seconds_after(failures, self._means.draw)
            has_time = _now() + pause < self._deadline
            if not (failure.may_pass and has_time) or failures == policy.tries:
                return ended
            await asyncio.sleep(pause)
        raise AssertionError("a policy has at least one try")

    async def _one(self, request: ModelRequest, room: int) -> TryEnd:
        question = Question(
            url=f"{self._endpoint.url.rstrip('/')}/chat/completions",
            headers=self._headers,
            body=body_of(self._endpoint, request, room),
            prompt_tokens=bound_of(request),
            max_tokens=room,
            timeouts=self._endpoint.timeouts,
            deadline=self._deadline,
        )
        self.count += 1
        ended = await Try(self._means.client, question, self._on_event, self._means.wall_seconds).run()
        self.used += ended.usage
        return ended


def _spent(request: ModelRequest, before: Failure | None) -> TryEnd:
    """The end of a call for whose next try too few tokens are left, and which is allowed no more."""
    message = f"too few of {request.allowance_tokens} tokens are left for a try, and the limits allow no more"
    if before is not None:
        message += f", after: {before.problem.message}"
    problem = ModelProblem(reason=ModelProblemReason.ALLOWANCE_SPENT, message=message)
    return TryEnd(usage=Usage(), has_told=False, failure=Failure(problem=problem, has_read_prompt=False))


def _now() -> float:
    return asyncio.get_running_loop().time()
