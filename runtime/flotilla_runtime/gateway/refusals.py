"""The problems for a Redis, or an object store, that does not answer in time; pure."""

from typing import Final

from flotilla_runtime.agent.errors import (
    PayloadsUnavailableError,
    StoreUnavailableError,
    UncertainError,
    UnconfirmedError,
)
from flotilla_runtime.agent.tasks import NewTask
from flotilla_runtime.gateway.problems import ProblemError, unavailable, uncertain

RETRY_AFTER_SECONDS: Final = 2


def given_up(problem: StoreUnavailableError) -> ProblemError:
    """The problem for a request that can be sent again as it is."""
    said = "Redis, which holds the fleet's tasks, does not answer"
    if isinstance(problem, PayloadsUnavailableError):
        said = "the object store, which holds large inputs and results, does not answer"
    return unavailable(f"{said}; try again in {RETRY_AFTER_SECONDS} s", RETRY_AFTER_SECONDS)


def uncertain_submission(problem: UncertainError, task: NewTask) -> ProblemError:
    """The problem for a submission of which nobody knows whether it is kept."""
    said = "Redis, which holds the fleet's tasks, has not answered, so the task may be stored or not"
    if isinstance(problem, UnconfirmedError):
        said = (
            "the task is stored, but no replica of Redis has confirmed in time that it has it, so it may be "
            "lost with the primary"
        )
    if task.idempotency_key is not None:
        again = "send the request again with the same idempotencyKey, which finds it"
        return unavailable(f"{said}; {again}, in {RETRY_AFTER_SECONDS} s", RETRY_AFTER_SECONDS)
    return uncertain(
        f"{said}; see whether GET /v1/tasks/{task.id} finds it, and submit it anew only if not, because "
        "without an idempotencyKey the same request makes a second task"
    )
