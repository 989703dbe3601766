"""Why a try failed, whether another may do better, and how a call ends that has this problem. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import httpx2

from flotilla_runtime.agent.models.values import ModelOutcome, ModelProblem, ModelProblemReason, shown
from flotilla_runtime.engine_errors import says_too_long
from flotilla_runtime.http_errors import said_of

Why = ModelProblemReason

MAY_PASS: Final = frozenset(
    {
        Why.NO_CONNECTION,
        Why.RATE_LIMITED,
        Why.UNAVAILABLE,
        Why.BROKEN_STREAM,
        Why.UNFINISHED_STREAM,
        Why.NO_FIRST_TOKEN,
        Why.STALLED,
    }
)
TEMPORARY_STATUSES: Final = frozenset({408, 409, 425})
UNREAD_STATUSES: Final = TEMPORARY_STATUSES | {429, 503}  # given before an engine has seen the prompt
OUTCOMES: Final[Mapping[Why, ModelOutcome]] = {
    Why.PROMPT_TOO_LONG: ModelOutcome.PROMPT_TOO_LONG,
    Why.NO_FIRST_TOKEN: ModelOutcome.TIMED_OUT,
    Why.STALLED: ModelOutcome.TIMED_OUT,
    Why.OUT_OF_TIME: ModelOutcome.TIMED_OUT,
    Why.REQUEST_REFUSED: ModelOutcome.REFUSED,
    Why.UNAUTHORIZED: ModelOutcome.REFUSED,
    Why.REDIRECTED: ModelOutcome.REFUSED,
    Why.BAD_ENDPOINT: ModelOutcome.REFUSED,
    Why.MODEL_REFUSED: ModelOutcome.REFUSED,
    Why.CONTENT_FILTERED: ModelOutcome.REFUSED,
    Why.BAD_SCHEMA: ModelOutcome.REFUSED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a try failed. With `has_read_prompt` the model may have read the prompt, and its tokens count."""

    problem: ModelProblem
    has_read_prompt: bool
    retry_after_seconds: float | None = None

    @property
    def may_pass(self) -> bool:
        return self.problem.reason in MAY_PASS


def outcome_of(problem: ModelProblem | None) -> ModelOutcome:
    """How a call ends that has this problem."""
    if problem is None:
        return ModelOutcome.SUCCEEDED
    return OUTCOMES.get(problem.reason, ModelOutcome.FAILED)


def of_status(url: str, status: int, body: str, retry_after_seconds: float | None = None) -> Failure:
    """The failure that an answer without success means."""
    reason = _reason(status, body)
    return Failure(
        problem=ModelProblem(reason=reason, message=f"{url} answered {status}: {shown(body)}", status=status),
        has_read_prompt=200 <= status < 300 or (status >= 500 and status not in UNREAD_STATUSES),
        retry_after_seconds=retry_after_seconds,
    )


def _reason(status: int, body: str) -> Why:
    if status == 429:
        return Why.RATE_LIMITED
    if status >= 500 or status in TEMPORARY_STATUSES:
        return Why.UNAVAILABLE
    if status < 200 or 300 <= status < 400:
        return Why.REDIRECTED
    if status < 300:
        return Why.NOT_A_COMPLETION
    if status in (401, 403):
        return Why.UNAUTHORIZED
    return Why.PROMPT_TOO_LONG if says_too_long(body) else Why.REQUEST_REFUSED


def of_error(url: str, error: httpx2.HTTPError | httpx2.InvalidURL, *, has_begun: bool) -> Failure:
    """The failure that an error of the connection means; `has_begun` if the answer had."""
    message = f"{url}: {said_of(error)}"
    if isinstance(error, httpx2.InvalidURL | httpx2.UnsupportedProtocol | httpx2.LocalProtocolError):
        return Failure(problem=ModelProblem(reason=Why.BAD_ENDPOINT, message=message), has_read_prompt=False)
    was_connected = not isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.ProxyError)
    reason = Why.BROKEN_STREAM if has_begun else Why.NO_CONNECTION
    return Failure(problem=ModelProblem(reason=reason, message=message), has_read_prompt=was_connected)
