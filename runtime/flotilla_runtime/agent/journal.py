"""The entries of a task's journal: one for each event of the task, in order, never changed.

Entries are values here and JSON objects in Redis. The Lua scripts write those about who held the task and
when: submitted, claimed, handed over, ended. The worker writes what it is about to do (`Intended`) and the
result (`Done`). Each entry holds only what is new, so a journal grows linearly with the number of calls. An
entry with a type or a word that this version does not know is kept as `Other`, because an older worker may
read the journal of a newer one. An entry that cannot be read is a BrokenEntryError.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from typing import Any, Final

from flotilla_runtime.agent.errors import BrokenEntryError
from flotilla_runtime.contract import Effect
from flotilla_runtime.contract.failure_texts import what_failed

# Raised with every new type of entry or new word. Tasks with words that a worker does not know wait for one
# of a newer format.
FORMAT: Final = 5


class CallKind(StrEnum):
    """The kind of a call. A tool alone may change something outside the task."""

    RETRIEVE = "Retrieve"
    MODEL = "Model"
    TOOL = "Tool"
    SPAWN = "Spawn"
    SLEEP = "Sleep"
    NOW = "Now"
    RANDOM = "Random"
    CHOICE = "Choice"  # which branches of a pattern counted: what depends on time must not change in a replay
    APPROVE = "Approve"
    APPROVE_AGAIN = "ApproveAgain"  # of a call that was begun before; version 4 knows no such word
    SIGNAL = "Signal"
    STATE = "State"
    TELL = "Tell"  # a message to an actor, whose answer nobody awaits
    COMPENSATE = "Compensate"  # a tool to be called if the task ends without a result; and that it does


# Who says of an Unsafe call that it did not happen, beside people, whose names have a mode before a colon:
# the tool's `reconcile`; and a worker, which knows that it was not begun.
BY_RECONCILE: Final = "reconcile"
BY_WORKER: Final = "worker"
# Ends the id of the call of a tool that compensates.
OF_COMPENSATION: Final = "#compensation"
# Notes how the task ends when its compensations are made. No agent can make a call of this name.
ENDING: Final = "#ending"
# Begins the ids of calls that a graph's nodes make, and the names of its approvals. They have the run of the
# node in them, so no other task makes the same.
OF_GRAPH: Final = "langgraph"
# The calls that somebody outside answers.
APPROVALS: Final = frozenset({CallKind.APPROVE, CallKind.APPROVE_AGAIN})
WAIT_OUTSIDE: Final = frozenset({*APPROVALS, CallKind.SIGNAL})


class CallOutcome(StrEnum):
    """How a call ended."""

    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    TIMED_OUT = "TimedOut"
    PROMPT_TOO_LONG = "PromptTooLong"
    INVALID = "Invalid"  # wrong arguments or an unknown tool: nothing was called
    CANCELLED = "Cancelled"  # the agent itself no longer waited for it
    LIMIT_REACHED = "LimitReached"  # a limit left no room, and nothing could change that
    REFUSED = "Refused"  # somebody who was asked for approval said no: nothing was called
    NOT_HAPPENED = "NotHappened"  # somebody resolved an Unsafe call so: it may be made again


class TaskStatus(StrEnum):
    """The status of a task."""

    WAITING = "Waiting"
    RUNNING = "Running"
    SUSPENDED = "Suspended"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    CANCELLED = "Cancelled"

    @property
    def is_final(self) -> bool:
        """Whether the task has ended."""
        return self not in (TaskStatus.WAITING, TaskStatus.RUNNING, TaskStatus.SUSPENDED)


class EndReason(StrEnum):
    """Why a task ended."""

    COMPLETED = "Completed"
    MAX_STEPS = "MaxSteps"
    MAX_TOKENS = "MaxTokens"
    MAX_COST = "MaxCost"
    TIMEOUT = "Timeout"
    TOOL_FAILED = "ToolFailed"
    MODEL_FAILED = "ModelFailed"
    UNKNOWN_EFFECT = "UnknownEffect"
    COMPENSATION_FAILED = "CompensationFailed"
    ACTOR_ENDED = "ActorEnded"
    REJECTED = "Rejected"  # a validator refused the result
    CANCELLED = "Cancelled"
    INVALID = "Invalid"
    INFRASTRUCTURE = "Infrastructure"


class WaitKind(StrEnum):
    """The kind of a suspended task's wait."""

    EFFECT = "Effect"
    CHILDREN = "Children"
    TIMER = "Timer"
    APPROVAL = "Approval"
    SIGNAL = "Signal"


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """A text that is kept apart: the hash of its bytes, their number, and whether an object store has it."""

    hash: str
    bytes: int
    is_elsewhere: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    """The task was submitted."""

    at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """A worker claimed the task; from the second attempt on, an earlier worker was lost."""

    at: int
    worker: str
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HandedOver:
    """A worker gave the task back at its next call: it was told to stop, or could not begin that call."""

    at: int
    worker: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Intended:
    """A call is about to be made. Written before the call, with what is reserved for it.

    `arguments_hash` tells whether a call asks the same when the agent is replayed; it is absent in journals
    of version 0.1.0, as `effect` and `arguments`. `until` is when a timer rings, or when nobody may approve
    or signal any more, in milliseconds since the epoch. `child` is the id of a spawned task. With `answers`
    the text of the call is the task's answer, or a part of it. `reserved_bytes` is what the result may
    take at most of the caller's share of the store. `payload` stands for the arguments where they are kept
    apart. `asks` is the model that is called in the place of the target. `destination` says of a call that
    somebody is to approve where it would go.

    A call of which the journal has an intent and no result is made again, because its worker was lost; or it
    goes on, because its tries have spent what it reserved. Then `spent_tokens` and `spent_nano_usd` are what
    they used of that; the latter is None where a price is unknown.
    """

    at: int
    call: str
    kind: CallKind
    target: str
    step: int = 0
    reserved_tokens: int = 0
    reserved_steps: int = 0
    reserved_nano_usd: int = 0
    reserved_bytes: int = 0
    effect: Effect | None = None
    arguments_hash: str | None = None
    arguments: Any = None
    until: int | None = None
    child: str | None = None
    spent_tokens: int | None = None
    spent_nano_usd: int | None = None
    answers: bool | None = None
    payload: Payload | None = None
    asks: str | None = None
    destination: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """The result of a call. Written after the call, which is never repeated once this entry exists.

    `value` is a list of passages for a retrieval and the text for a model call. `problem` says why a call has
    no value. `signal` names the signal that the call took. `payload` stands for a value that is kept apart.
    `replica` is that of the model which answered.

    `cached` says of a call that the cache may answer whether it did. `answered_by` is the model that answered
    in the place of the target. `limited_ms` is how long the call waited for its turn at `rate_limit`. A call
    that was not made, because its target takes no calls, has `retry_after_ms`.
    """

    at: int
    call: str
    outcome: CallOutcome
    took_ms: int
    first_token_ms: int | None = None  # of a model's answer, from the start of the try that was answered
    value: Any = None
    generation: str | None = None
    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0
    nano_usd: int | None = None
    tries: int = 1
    problem: str | None = None
    signal: str | None = None
    payload: Payload | None = None
    replica: str | None = None
    cached: bool | None = None
    answered_by: str | None = None
    rate_limit: str | None = None
    limited_ms: int | None = None
    retry_after_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspended:
    """The task waits and holds no place. `until` is when it goes on in any case."""

    at: int
    waits_for: WaitKind
    call: str
    until: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed:
    """The task is back in the queue, because what it waited for has come."""

    at: int
    waits_for: WaitKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """Somebody, or the tool's `reconcile`, said whether an Unsafe call happened; `result` is its result."""

    at: int
    call: str
    happened: bool
    by: str
    result: Any = None
    payload: Payload | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The task ended."""

    at: int
    status: TaskStatus
    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Other:
    """An entry of a type, or with a word, that this version does not know."""

    at: int
    document: Mapping[str, Any] = field(default_factory=dict)


Entry = Submitted | Claimed | HandedOver | Intended | Done | Suspended | Resumed | Resolved | Ended | Other


_TYPES: Final[Mapping[str, type[Entry]]] = {
    entry.__name__: entry
    for entry in (Submitted, Claimed, HandedOver, Intended, Done, Suspended, Resumed, Resolved, Ended)
}
# The type of an entry with a payload. Versions that know no payloads do not know it, so they do not take the
# value for nothing.
WITH_PAYLOAD: Final = "WithPayload"
_ENUMS: Final[Mapping[str, type[StrEnum]]] = {
    "kind": CallKind,
    "outcome": CallOutcome,
    "status": TaskStatus,
    "effect": Effect,
    "waits_for": WaitKind,
}


def document_of(entry: Entry) -> dict[str, Any]:
    """The entry as a JSON object, without fields that are None."""
    if isinstance(entry, Other):
        return dict(entry.document)
    told = {one.name: value for one in fields(entry) if (value := getattr(entry, one.name)) is not None}
    name = type(entry).__name__
    if "payload" in told:
        return {"type": f"{name}{WITH_PAYLOAD}", **told, "payload": asdict(told["payload"])}
    return {"type": name, **told}


def encode(entry: Entry) -> str:
    """The entry as text for Redis."""
    return json.dumps(document_of(entry), ensure_ascii=False, separators=(",", ":"))


def decode(text: str | bytes) -> Entry:
    """The entry for a text from Redis."""
    try:
        document = json.loads(text)
        return _read(document)
    except (ValueError, TypeError, AttributeError) as problem:
        raise BrokenEntryError(what_failed(problem)) from problem


def _read(document: Mapping[str, Any]) -> Entry:
    kind = _TYPES.get(str(document.get("type", "")).removesuffix(WITH_PAYLOAD))
    values = _known_values(kind, document) if kind is not None else None
    if kind is None or values is None:
        return Other(at=int(document.get("at", 0)), document=document)
    return kind(**values)


def _known_values(kind: type[Entry], document: Mapping[str, Any]) -> dict[str, Any] | None:
    """The values of the entry's fields; None if one has a word that this version does not know."""
    known = {entry_field.name for entry_field in fields(kind)}
    values = {name: value for name, value in document.items() if name in known}
    for name in _ENUMS.keys() & values.keys():
        if values[name] not in _ENUMS[name].__members__.values():
            return None
        values[name] = _ENUMS[name](values[name])
    if "payload" in values:
        values["payload"] = Payload(**values["payload"])
    return values
