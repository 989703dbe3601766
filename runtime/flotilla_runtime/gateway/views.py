"""Renders tasks for callers; pure. What a journal has to tell comes from `history`."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from flotilla_runtime.agent.budgets import NANO_PER_UNIT
from flotilla_runtime.agent.journal import TaskStatus
from flotilla_runtime.agent.tasks import TaskRecord
from flotilla_runtime.contract import Priority, TaskLimits
from flotilla_runtime.gateway.history import (
    ApprovalView,
    Event,
    History,
    PathStep,
    TimeView,
    Wait,
    moment,
    moment_or_none,
)


class _View(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True, frozen=True)


class UsageView(_View):
    """The usage of a task; `costUSD` is null where the price of a model is unknown."""

    steps: int
    tokens: int
    cost_usd: float | None = Field(default=None, alias="costUSD")


class TaskSummary(_View):
    """A task in a list of tasks; without an `agent`, it is the fleet's own that does it."""

    id: str
    status: TaskStatus
    waits_for: Wait | None
    reason: str | None
    priority: Priority
    tenant: str
    agent: str | None
    conversation_id: str | None
    submitted_at: datetime
    started_at: datetime | None
    ended_at: datetime | None


class LimitsView(_View):
    """The most that a task may use, with the tasks that it spawns."""

    max_steps: int
    max_tokens: int
    max_cost_usd: float | None = Field(default=None, alias="maxCostUSD")
    max_wall_seconds: float
    max_depth: int
    max_fan_out: int

    @classmethod
    def of(cls, limits: TaskLimits) -> "LimitsView":
        """The limits for callers."""
        return cls.model_validate(limits.model_dump())


class TaskView(TaskSummary):
    """A task with all details; `reason` is set once the task has ended.

    `replayOf` is the task with whose results it began, and `approvals` has what somebody may decide on.
    `criticalPath` is the longest chain of calls and waits for a worker, each begun when the one before it had
    ended: what would have to be faster for the task to end sooner.
    `timeline` has the latest events of the task without what calls were asked and answered; earlier ones,
    whose number is `timelineLeftOut`, are in its event stream. It and the path are empty, and `time` is null,
    once the journal is forgotten.
    """

    message: str | None
    input: str
    metadata: Mapping[str, str]
    limits: LimitsView
    attempts: int
    result: Any
    partial: Any
    usage: UsageView
    time: TimeView | None
    critical_path: tuple[PathStep, ...]
    replay_of: str | None
    approvals: tuple[ApprovalView, ...]
    timeline: tuple[Event, ...]
    timeline_left_out: int


class TaskList(_View):
    """A page of tasks, newest first; `nextCursor` is null on the last page."""

    tasks: tuple[TaskSummary, ...]
    next_cursor: str | None


class TaskReceipt(_View):
    """The answer to whatever changes a task."""

    id: str
    status: TaskStatus


def task_summary(record: TaskRecord) -> TaskSummary:
    """A task for a list of tasks."""
    return TaskSummary.model_validate(_summary_fields(record))


def task_view(
    record: TaskRecord, history: History, timeline: tuple[Event, ...], now_ms: int, left_out: int = 0
) -> TaskView:
    """A task with all details."""
    return TaskView(
        **_summary_fields(record),
        message=record.message,
        input=record.input,
        metadata=record.metadata,
        limits=LimitsView.of(record.limits),
        attempts=record.attempts,
        result=record.result,
        partial=record.partial,
        usage=_usage(record, history),
        time=history.time(now_ms),
        critical_path=history.critical_path(now_ms),
        replay_of=record.replay_of,
        approvals=() if record.status.is_final else history.approvals(),
        timeline=timeline,
        timeline_left_out=left_out,
    )


def _usage(record: TaskRecord, history: History) -> UsageView:
    """The counts of the scripts, which include spawned tasks; in tasks of version 0.1.0, the journal's."""
    used = record.used
    if not used.steps and not used.tokens:
        return UsageView(steps=history.steps, tokens=history.tokens, cost_usd=history.cost_usd)
    cost = used.nano_usd / NANO_PER_UNIT if record.is_priced and used.tokens else None
    return UsageView(steps=used.steps, tokens=used.tokens, cost_usd=cost)


def _summary_fields(record: TaskRecord) -> dict[str, Any]:
    return {
        "id": record.id,
        "status": record.status,
        "waits_for": _wait(record),
        "reason": record.reason,
        "priority": record.priority,
        "tenant": record.tenant,
        "agent": record.agent or None,
        "conversation_id": record.conversation_id,
        "submitted_at": moment(record.submitted_at),
        "started_at": moment_or_none(record.started_at),
        "ended_at": moment_or_none(record.ended_at),
    }


def _wait(record: TaskRecord) -> Wait | None:
    if record.status is not TaskStatus.SUSPENDED or record.waits_for is None:
        return None
    until = moment_or_none(record.waits_until)
    return Wait(kind=record.waits_for, call=record.waits_call or "", until_time=until)
