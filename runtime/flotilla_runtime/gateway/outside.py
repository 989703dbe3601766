"""Answers of people and programs outside to a task: decisions on its approvals, and signals.

Who may is checked before: a decision needs the verb `approve`, a signal the right to read the task. Each is
written by one script, so of two decisions at once the first stands.
"""

import secrets
from http import HTTPStatus
from typing import Final

from flotilla_runtime.agent.store.gateway_tasks import MOST_SIGNAL_BYTES, MOST_SIGNALS
from flotilla_runtime.agent.store.task_store import TaskStore
from flotilla_runtime.agent.tasks import (
    ApproveOutcome,
    Decision,
    SignalOutcome,
    SubmitOutcome,
    Verdict,
)
from flotilla_runtime.contract import QueueConfig
from flotilla_runtime.gateway.auth import Identity
from flotilla_runtime.gateway.history import moment
from flotilla_runtime.gateway.problems import ProblemError, not_found
from flotilla_runtime.gateway.requests import ApproveRequest, SignalRequest
from flotilla_runtime.gateway.service import TaskService, quota_refusal
from flotilla_runtime.gateway.task_ids import is_task_id
from flotilla_runtime.gateway.views import TaskReceipt

KIB: Final = 1024
SIGNAL_QUOTAS: Final = {
    SignalOutcome.STORE_FULL: SubmitOutcome.STORE_FULL,
    SignalOutcome.CALLER_STORE_FULL: SubmitOutcome.CALLER_STORE_FULL,
}


class Outside:
    """The operations on tasks that wait for somebody, or will."""

    def __init__(self, service: TaskService, store: TaskStore, queue: QueueConfig) -> None:
        self._service = service
        self._store = store
        self._queue = queue

    async def approve(self, task: str, said: ApproveRequest, caller: Identity) -> TaskReceipt:
        """Decide on a call that waits for approval, as the caller may. Raises a problem if it is too late."""
        if not is_task_id(task):
            raise not_found(task)
        decision = Decision(approved=said.approved, by=caller.name, comment=said.comment or None)
        verdict = await self._service.asked(lambda: self._store.approve(task, said.call, decision))
        if (refusal := approval_refusal(task, said.call, decision, verdict)) is not None:
            raise refusal
        found = await self._service.asked(lambda: self._store.summaries([task]))
        if not found:
            raise not_found(task)
        return TaskReceipt(id=task, status=found[0].status)

    async def signal(self, task: str, said: SignalRequest, caller: Identity) -> TaskReceipt:
        """Give a task that the caller may read a signal. Raises a problem where it takes no more."""
        await self._service.summary(task, caller)
        request = secrets.token_hex(8)
        outcome = await self._service.asked(lambda: self._store.signal(task, said.name, said.value, request))
        if (refusal := signal_refusal(task, outcome, self._queue)) is not None:
            raise refusal
        return TaskReceipt(id=task, status=(await self._service.summary(task, caller)).status)


def approval_refusal(task: str, call: str, decision: Decision, verdict: Verdict) -> ProblemError | None:
    """The problem where another decision stands than this one, or none can be made."""
    match verdict.outcome:
        case ApproveOutcome.UNKNOWN:
            return not_found(task)
        case ApproveOutcome.LATE:
            return ProblemError(
                HTTPStatus.CONFLICT,
                "too-late",
                f"nobody decided on {call!r} before its deadline, so the call is not made; submit the task "
                "anew, or replay it from this call",
            )
        case ApproveOutcome.NOT_ASKED:
            return ProblemError(
                HTTPStatus.CONFLICT,
                "nothing-to-approve",
                f"there is nothing to decide: the task does not wait for approval of {call!r}; its approvals "
                "name the calls of which it does",
            )
    stands = verdict.decision
    if stands is None or stands.is_same(decision):
        return None
    said = "approved" if stands.approved else "refused"
    when = "" if stands.at is None else f" at {moment(stands.at):%Y-%m-%dT%H:%M:%SZ}"
    comment = f", with the comment {stands.comment!r}" if stands.comment else ""
    detail = f"{stands.by} {said} {call!r}{when}{comment}; that stands"
    return ProblemError(HTTPStatus.CONFLICT, "already-decided", detail)


def signal_refusal(task: str, outcome: SignalOutcome, queue: QueueConfig) -> ProblemError | None:
    """The problem for a signal that was not kept."""
    match outcome:
        case SignalOutcome.KEPT:
            return None
        case SignalOutcome.UNKNOWN:
            return not_found(task)
        case SignalOutcome.ENDED:
            return ProblemError(
                HTTPStatus.CONFLICT, "already-ended", "the task has ended, so nothing takes the signal"
            )
        case SignalOutcome.TOO_MANY:
            return ProblemError(
                HTTPStatus.TOO_MANY_REQUESTS,
                "too-many-signals",
                f"the task keeps {MOST_SIGNALS} signals at most, and {MOST_SIGNAL_BYTES // KIB} KiB of them; "
                "send it when its agent has taken some",
                headers={"Retry-After": "5"},
            )
        case SignalOutcome.STORE_FULL | SignalOutcome.CALLER_STORE_FULL:
            return quota_refusal(SIGNAL_QUOTAS[outcome], queue)
