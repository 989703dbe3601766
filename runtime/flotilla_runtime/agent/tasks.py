"""The values of the task store: new tasks, claims, and the records of tasks."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final

from flotilla_runtime.agent.actors import Delivery
from flotilla_runtime.agent.budgets import NANO_PER_UNIT, Amount, Budget
from flotilla_runtime.agent.conversations import Message, conversation_key, messages_of, messages_text
from flotilla_runtime.agent.journal import Entry, Payload, TaskStatus, WaitKind
from flotilla_runtime.contract import Priority, RevisionTasks, TaskLimits

NOTHING: Final = Amount()
# Ids of tasks: 10 letters of Crockford's base 32 for the time, 16 for 80 bits.
ID_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
TIME_LETTERS: Final = 10
HASH_LETTERS: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTask:
    """A task to be submitted; `caller` is the caller's name, and `limits` are already within the fleet's.

    Tenants take turns in the queue. Without a tenant, the caller is one of its own. Only workers of its
    `revision`, or such that have adopted it, take the task. Tasks of one conversation of a tenant run one
    after another. `history` is what was said before, beside what its conversation has. `front` is what a
    front end must know of its request. `agent` does it, by default the fleet's own. `traceparent` names the
    span of which the task is a part.
    """

    id: str
    input: str
    caller: str
    limits: TaskLimits
    priority: Priority = Priority.INTERACTIVE
    idempotency_key: str | None = None
    tenant: str | None = None
    revision: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    conversation_id: str | None = None
    history: tuple[Message, ...] = ()
    front: Mapping[str, str] = field(default_factory=dict)
    agent: str = ""
    traceparent: str | None = None

    def fields(self) -> dict[str, str]:
        """The fields of the task's hash in Redis, except those that the script adds."""
        fields = {
            "input": self.input,
            "limits": self.limits.model_dump_json(),
            "metadata": json.dumps(dict(self.metadata), ensure_ascii=False),
            "revision": self.revision,
            "mostSteps": str(self.limits.max_steps),
            "mostTokens": str(self.limits.max_tokens),
            "tenantName": self.tenant or self.caller,
        }
        if self.limits.max_cost_usd is not None:
            fields["mostNano"] = str(round(self.limits.max_cost_usd * NANO_PER_UNIT))
        if self.conversation_id is not None:
            fields["conversationId"] = self.conversation_id
            fields["conversation"] = conversation_key(self.tenant or self.caller, self.conversation_id)
        if self.history:
            fields["history"] = messages_text(self.history)
        if self.agent:
            fields["agent"] = self.agent
        if self.front:
            fields["front"] = json.dumps(dict(self.front))
        if self.traceparent is not None:
            fields["traceparent"] = self.traceparent
        return fields


class SubmitOutcome(StrEnum):
    """The outcome of a submission; the last four say whose limit refused it, and of what."""

    CREATED = "Created"
    EXISTS = "Exists"
    FULL = "Full"  # all places of the queue are taken
    CALLER_FULL = "CallerFull"  # this caller holds its share of the places
    STORE_FULL = "StoreFull"  # the rest of the room is for workers
    CALLER_STORE_FULL = "CallerStoreFull"  # this caller holds its share of the bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """The outcome and the id: an earlier task's for a known idempotency key, empty for a refusal."""

    outcome: SubmitOutcome
    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The right to write to a task, with a fencing token; it ends when a newer token is granted."""

    id: str
    token: int


class CancelOutcome(StrEnum):
    """The outcome of a cancellation."""

    CANCELLED = "Cancelled"
    REQUESTED = "Requested"
    ENDED = "Ended"
    UNKNOWN = "Unknown"


class ResolveOutcome(StrEnum):
    """The outcome of a request to resolve an Unsafe call."""

    RESOLVED = "Resolved"
    NOTHING_UNKNOWN = "NothingUnknown"  # the task does not wait for this call
    NO_ROOM = "NoRoom"  # the caller's share of the bytes has no room for the result
    UNKNOWN = "Unknown"


class ApproveOutcome(StrEnum):
    """The outcome of a request to decide on a call."""

    DECIDED = "Decided"  # by this decision, or by an earlier one
    LATE = "Late"  # its deadline has passed
    NOT_ASKED = "NotAsked"  # no such call waits for approval
    UNKNOWN = "Unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A decision on a call that waited for approval; `at` is when, by Redis' clock.

    Without `by` nobody decided in time.
    """

    approved: bool
    by: str | None = None
    comment: str | None = None
    at: int | None = None

    def is_same(self, other: "Decision") -> bool:
        """Whether the same person said the same, as one does whose first answer was lost."""
        return replace(self, at=None) == replace(other, at=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The outcome of a decision, and the decision that stands where there is one."""

    outcome: ApproveOutcome
    decision: Decision | None = None


class SignalOutcome(StrEnum):
    """The outcome of a signal."""

    KEPT = "Kept"
    TOO_MANY = "TooMany"  # the task holds as many signals, or bytes of them, as it may
    STORE_FULL = "StoreFull"
    CALLER_STORE_FULL = "CallerStoreFull"
    ENDED = "Ended"
    UNKNOWN = "Unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewal:
    """The result of renewing leases: the tasks that are lost, and those that are to be cancelled."""

    lost: frozenset[str]
    cancelled: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRecord:
    """A task's hash in Redis; times are in milliseconds since the epoch, by Redis' clock.

    `conversation` is the conversation's key: those of different tenants differ. `history` is what was
    submitted with the task. The input of a task with an `actor` is a message to it. `tenant` is the tenant's
    name, empty in tasks of version 0.1.0. `used` is the use of the task and, for a task that was submitted,
    of all that it spawned; `is_priced` is False where the price of some of it is unknown. `idle_ms` is the
    time from each suspension to the next claim; `idle_since` is when the one began that has not ended.
    `payloads` stand for the fields that are kept apart, which are empty here. `agent` is empty for the
    fleet's own.
    """

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
    revision: str = ""
    root: str | None = None
    parent: str | None = None
    replay_of: str | None = None
    used: Amount = NOTHING
    is_priced: bool = True
    waits_for: WaitKind | None = None
    waits_call: str | None = None
    waits_until: int | None = None
    idle_ms: int = 0
    idle_since: int | None = None
    conversation_id: str | None = None
    conversation: str | None = None
    history: tuple[Message, ...] = ()
    front: Mapping[str, str] = field(default_factory=dict)
    actor: Delivery | None = None
    traceparent: str | None = None
    payloads: Mapping[str, Payload] = field(default_factory=dict)
    agent: str = ""

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
            revision=fields.get("revision", ""),
            root=fields.get("root"),
            parent=fields.get("parent"),
            replay_of=fields.get("replayOf"),
            used=_amount(fields, "used"),
            is_priced="unpriced" not in fields,
            waits_for=WaitKind(fields["waitsFor"]) if "waitsFor" in fields else None,
            waits_call=fields.get("waitsCall"),
            waits_until=_integer(fields.get("waitsUntil")),
            idle_ms=int(fields.get("suspendedMs", "0")),
            idle_since=_integer(fields.get("suspendedAt", fields.get("resumedAt"))),
            conversation_id=fields.get("conversationId"),
            conversation=fields.get("conversation"),
            history=messages_of(fields.get("history", "[]")),
            front=json.loads(fields.get("front", "{}")),
            actor=Delivery.of(fields["actor"]) if "actor" in fields else None,
            agent=fields.get("agent", ""),
            traceparent=fields.get("traceparent"),
            payloads={
                name: read_payload(text) for name in PAYLOAD_FIELDS if (text := fields.get(f"{name}Payload"))
            },
        )


# The fields that may be kept apart. The script that forgets journals knows the last two.
PAYLOAD_FIELDS: Final = ("input", "result", "partial")
# The fields without texts of any length: a list of tasks must not hold hundreds of inputs and results.
SUMMARY_FIELDS: Final = (
    *("id", "status", "priority", "caller", "tenantName", "submittedAt", "startedAt", "endedAt", "attempts"),
    *("cancelRequested", "reason", "waitsFor", "waitsCall", "waitsUntil", "revision"),
    *("conversationId", "conversation", "agent"),
)


def read_summary(values: Sequence[str | None]) -> TaskRecord | None:
    """The record with these fields alone; None for a task that does not exist."""
    found = {name: value for name, value in zip(SUMMARY_FIELDS, values, strict=True) if value is not None}
    if "status" not in found:
        return None
    return TaskRecord.of({"input": "", "limits": "{}", "metadata": "{}", **found})


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedTask:
    """A task with its journal, the budget of its tree, and Redis' clock when they were read.

    `history` is what was said before it.
    """

    record: TaskRecord
    entries: tuple[Entry, ...]
    read_at: int
    budget: Budget | None = None
    history: tuple[Message, ...] = ()

    @property
    def elapsed_seconds(self) -> float:
        """How long the task has been running, including the time until another worker took it over.

        Time that it was suspended does not count.
        """
        record = self.record
        if record.started_at is None:
            return 0.0
        until = self.read_at if record.idle_since is None else record.idle_since
        return max(0, until - record.started_at - record.idle_ms) / 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreFigures:
    """Counts of the store, as of now.

    `counts` has tasks by status and revision, `workers` the tasks that each live worker holds, `calls` the
    calls of each model under way, and `callers` the tasks that make them.
    """

    waiting: int
    running: int
    suspended: int
    unknown_effects: int
    waiting_for_approval: int
    dead_letters: int
    stored_bytes: int
    oldest_waiting_ms: int | None
    counts: Mapping[str, RevisionTasks]
    workers: Mapping[str, int]
    calls: Mapping[str, int]
    callers: Mapping[str, int]

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> "StoreFigures":
        """Read what the script tells."""
        counts, demand = told["counts"], told["demand"]
        revisions = {name.partition(":")[2] for name in counts}
        return cls(
            waiting=told["waiting"],
            running=told["running"],
            suspended=told["suspended"],
            unknown_effects=told["unknown_effects"],
            waiting_for_approval=told["waiting_for_approval"],
            dead_letters=told["dead_letters"],
            stored_bytes=told["stored_bytes"],
            oldest_waiting_ms=told.get("oldest_waiting_ms"),
            counts={
                revision: RevisionTasks(
                    waiting=counts.get(f"{TaskStatus.WAITING}:{revision}", 0),
                    running=counts.get(f"{TaskStatus.RUNNING}:{revision}", 0),
                    suspended=counts.get(f"{TaskStatus.SUSPENDED}:{revision}", 0),
                )
                for revision in sorted(revisions)
            },
            workers=dict(told["workers"]),
            calls=_under(demand, "calls:"),
            callers=_under(demand, "tasks:"),
        )


def checkpoint_space(task_id: str, conversation: str | None) -> str:
    """Where the graph of a task keeps its checkpoints: with the task, or with the conversation it is in."""
    return task_id if conversation is None else f"conversation:{conversation}"


def child_id(parent: str, call: str) -> str:
    """The id of a task that this call spawns: always the same one, in the form of a task's id."""
    number = int.from_bytes(hashlib.sha256(f"{parent}/{call}".encode()).digest())
    letters = (ID_ALPHABET[(number >> 5 * place) & 31] for place in range(HASH_LETTERS))
    return parent[:TIME_LETTERS] + "".join(letters)


def read_budget(shown: Sequence[str | None]) -> Budget | None:
    """The budget as the scripts show it: used, reserved and the limits, each of steps, tokens and money.

    None for a task of version 0.1.0 that no newer worker has claimed.
    """
    most_steps, most_tokens, most_nano_usd = (int(text) if text else None for text in shown[6:9])
    if most_steps is None or most_tokens is None:
        return None
    return Budget(
        used=_three(shown[0:3]),
        reserved=_three(shown[3:6]),
        most_steps=most_steps,
        most_tokens=most_tokens,
        most_nano_usd=most_nano_usd,
    )


BUDGET_FIELDS: Final = tuple(
    f"{part}{name}" for part in ("used", "held", "most") for name in ("Steps", "Tokens", "Nano")
)


def read_payload(text: str) -> Payload:
    """Read the payload of a field that is kept apart."""
    return Payload(**json.loads(text))


def caller_key(caller: str) -> str:
    """A hash of the caller's name for keys in Redis: it has a fixed length and no special characters."""
    return hashlib.sha256(caller.encode()).hexdigest()[:32]


def idempotency_hash(key: str | None) -> str:
    """A hash of the idempotency key for keys in Redis; empty for none."""
    return hashlib.sha256(key.encode()).hexdigest() if key else ""


def _integer(text: str | None) -> int | None:
    return None if text is None else int(text)


def _three(texts: Sequence[str | None]) -> Amount:
    steps, tokens, nano_usd = (int(text or "0") for text in texts)
    return Amount(steps=steps, tokens=tokens, nano_usd=nano_usd)


def _amount(fields: Mapping[str, str], part: str) -> Amount:
    return _three([fields.get(f"{part}{name}") for name in ("Steps", "Tokens", "Nano")])


def _under(counts: Mapping[str, int], prefix: str) -> dict[str, int]:
    return {name.removeprefix(prefix): count for name, count in counts.items() if name.startswith(prefix)}
