"""Renders tasks for callers; pure. Timeline and usage come from the journal, also while a task runs."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from flotilla_runtime.agent import story as stories
from flotilla_runtime.agent.journal import (
    Claimed,
    Done,
    Ended,
    Entry,
    HandedOver,
    Intended,
    TaskStatus,
    document_of,
)
from flotilla_runtime.agent.tasks import LoadedTask, TaskRecord
from flotilla_runtime.contract import Priority, TaskLimits


class _View(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, validate_by_name=True, frozen=True)


class UsageView(_View):
    """What a task has used; `costUSD` is not yet supported and always null."""

    steps: int
    tokens: int
    cost_usd: float | None = Field(default=None, alias="costUSD")


class MomentView(_View):
    """One event of a task."""

    at: datetime
    event: str
    call: str | None = None
    target: str | None = None
    outcome: str | None = None
    took_seconds: float | None = None
    tries: int | None = None
    worker: str | None = None
    attempt: int | None = None
    problem: str | None = None


class TaskSummary(_View):
    """A task in a list of tasks."""

    id: str
    status: TaskStatus
    reason: str | None
    priority: Priority
    submitted_at: datetime
    started_at: datetime | None
    ended_at: datetime | None


class LimitsView(_View):
    """The most that a task may use."""

    max_steps: int
    max_tokens: int
    max_wall_seconds: float

    @classmethod
    def of(cls, limits: TaskLimits) -> "LimitsView":
        """The limits for callers."""
        return cls.model_validate(limits.model_dump())


class TaskView(TaskSummary):
    """A task with all details; `reason` is set once the task has ended."""

    message: str | None
    input: str
    metadata: Mapping[str, str]
    limits: LimitsView
    attempts: int
    result: Any
    partial: Any
    usage: UsageView
    timeline: tuple[MomentView, ...]


class TaskList(_View):
    """A page of tasks, newest first; `nextCursor` is null on the last page."""

    tasks: tuple[TaskSummary, ...]
    next_cursor: str | None


class TaskReceipt(_View):
    """The answer to a submission or a cancellation."""

    id: str
    status: TaskStatus


def task_summary(record: TaskRecord) -> TaskSummary:
    """A task for a list of tasks."""
    return TaskSummary.model_validate(_summary_fields(record))


def task_view(task: LoadedTask) -> TaskView:
    """A task with all details."""
    record, story = task.record, stories.read(task.entries)
    return TaskView(
        **_summary_fields(record),
        message=record.message,
        input=record.input,
        metadata=record.metadata,
        limits=LimitsView.of(record.limits),
        attempts=record.attempts,
        result=record.result,
        partial=record.partial,
        usage=UsageView(steps=story.steps, tokens=story.used_tokens),
        timeline=tuple(_timeline(task.entries)),
    )


def _summary_fields(record: TaskRecord) -> dict[str, Any]:
    return {
        "id": record.id,
        "status": record.status,
        "reason": record.reason,
        "priority": record.priority,
        "submitted_at": _time(record.submitted_at),
        "started_at": _time(record.started_at),
        "ended_at": _time(record.ended_at),
    }


def _timeline(entries: Iterable[Entry]) -> Iterable[MomentView]:
    for entry in entries:
        told: dict[str, Any] = {"at": _time(entry.at), "event": str(document_of(entry).get("type", "Other"))}
        match entry:
            case Claimed():
                told |= {"worker": entry.worker, "attempt": entry.attempt}
            case HandedOver():
                told |= {"worker": entry.worker}
            case Intended():
                told |= {"call": entry.call, "target": entry.target}
            case Done():
                told |= {
                    "call": entry.call,
                    "outcome": str(entry.outcome),
                    "took_seconds": entry.took_ms / 1000,
                    "tries": entry.tries,
                    "problem": entry.problem,
                }
            case Ended():
                told |= {"outcome": entry.reason, "problem": entry.message or None}
        yield MomentView(**told)


def _time(milliseconds: int | None) -> datetime | None:
    return None if milliseconds is None else datetime.fromtimestamp(milliseconds / 1000, UTC)
