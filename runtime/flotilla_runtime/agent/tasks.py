"""The values of the task store: new tasks, claims, and the records of tasks."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from flotilla_runtime.agent.journal import Entry, TaskStatus, WaitKind
from flotilla_runtime.contract import Priority, TaskLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTask:
    """A task to be submitted; `caller` is the caller's name, and `limits` are already within the fleet's.

    Tenants take turns in the queue. Without a tenant, the caller is one of its own.
    """

    id: str
    input: str
    caller: str
    limits: TaskLimits
    priority: Priority = Priority.INTERACTIVE
    idempotency_key: str | None = None
    tenant: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)

    def fields(self) -> dict[str, str]:
        """The fields of the task's hash in Redis, except those that the script adds."""
        return {
            "input": self.input,
            "limits": self.limits.model_dump_json(),
            "metadata": json.dumps(dict(self.metadata), ensure_ascii=False),
            "tenantName": self.tenant or self.caller,
        }


class SubmitOutcome(StrEnum):
    """The outcome of a submission."""

    CREATED = "Created"
    EXISTS = "Exists"
    FULL = "Full"  # all places of the queue are taken
    CALLER_FULL = "CallerFull"  # this caller holds its share of the places
    STORE_FULL = "StoreFull"  # the rest of the room is for workers
    CALLER_STORE_FULL = "CallerStoreFull"  # this caller holds its share of the bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """The outcome and the id: an earlier task's for a known idempotency key, empty for a full queue."""

    outcome: SubmitOutcome
    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The right to write to a task, with a fencing token; it ends when a newer token is granted."""

    id: str
    token: int


class ResolveOutcome(StrEnum):
    """What became of somebody's word on an Unsafe call."""

    RESOLVED = "Resolved"
    NOTHING_UNKNOWN = "NothingUnknown"  # the task does not wait for this call
    UNKNOWN = "Unknown"


class CancelOutcome(StrEnum):
    """The outcome of a cancellation."""

    CANCELLED = "Cancelled"
    REQUESTED = "Requested"
    ENDED = "Ended"
    UNKNOWN = "Unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewal:
    """The result of renewing leases: the tasks that are lost, and those that are to be cancelled."""

    lost: frozenset[str]
    cancelled: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRecord:
    """A task's hash in Redis; times are in milliseconds since the epoch, by Redis' clock."""

    id: str
    status: TaskStatus
    priority: Priority
    caller: str
    input: str
    limits: TaskLimits
    metadata: Mapping[str, str]
    submitted_at: int
    started_at: int | None
    ended_at: int | None
    attempts: int
    cancel_requested: bool
    reason: str | None
    message: str | None
    result: Any
    partial: Any
    tenant: str = ""
    waits_for: WaitKind | None = None
    waits_call: str = ""
    waits_until: int | None = None

    @classmethod
    def of(cls, fields: Mapping[str, str]) -> "TaskRecord":
        """Read the fields of a hash."""
        return cls(
            id=fields["id"],
            status=TaskStatus(fields["status"]),
            priority=Priority(fields["priority"]),
            caller=fields["caller"],
            input=fields["input"],
            limits=TaskLimits.model_validate_json(fields["limits"]),
            metadata=json.loads(fields["metadata"]),
            submitted_at=int(fields["submittedAt"]),
            started_at=_integer(fields.get("startedAt")),
            ended_at=_integer(fields.get("endedAt")),
            attempts=int(fields["attempts"]),
            cancel_requested="cancelRequested" in fields,
            reason=fields.get("reason"),
            message=fields.get("message") or None,
            result=json.loads(fields.get("result", "null")),
            partial=json.loads(fields.get("partial", "null")),
            tenant=fields.get("tenantName", ""),
            waits_for=WaitKind(fields["waitsFor"]) if fields.get("waitsFor") else None,
            waits_call=fields.get("waitsCall", ""),
            waits_until=_integer(fields.get("waitsUntil") or None),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedTask:
    """A task with its journal, and Redis' clock when they were read."""

    record: TaskRecord
    entries: tuple[Entry, ...]
    read_at: int

    @property
    def elapsed_seconds(self) -> float:
        """How long the task has been running, including the time until another worker took it over."""
        return max(0, self.read_at - (self.record.started_at or self.read_at)) / 1000


def caller_key(caller: str) -> str:
    """A hash of the caller's name for keys in Redis: it has a fixed length and no special characters."""
    return hashlib.sha256(caller.encode()).hexdigest()[:32]


def idempotency_hash(key: str | None) -> str:
    """A hash of the idempotency key for keys in Redis; empty for none."""
    return hashlib.sha256(key.encode()).hexdigest() if key else ""


def _integer(text: str | None) -> int | None:
    return None if text is None else int(text)
