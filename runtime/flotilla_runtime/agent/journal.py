"""What a task's journal holds: one entry for each thing that happened, in order, never changed.

Entries are values here and JSON objects in Redis. Those of scripts (submitted, claimed, handed over, ended)
tell who held the task when; those of the worker tell what it was about to do (`Intended`) and what came of it
(`Done`). Each holds only what is new, so a journal grows with the number of calls and not with its square. An
entry of a type this version does not know is kept as `Other`: an older worker may read a newer one's journal.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from typing import Any, Final, TypeVar


class CallKind(StrEnum):
    """What a call of the loop does; both may be repeated, since neither changes anything outside."""

    RETRIEVE = "Retrieve"
    MODEL = "Model"


class CallOutcome(StrEnum):
    """How a call ended."""

    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    TIMED_OUT = "TimedOut"
    PROMPT_TOO_LONG = "PromptTooLong"


class TaskStatus(StrEnum):
    """Where a task stands."""

    WAITING = "Waiting"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    CANCELLED = "Cancelled"

    @property
    def is_final(self) -> bool:
        """Whether nothing can follow."""
        return self not in (TaskStatus.WAITING, TaskStatus.RUNNING)


class EndReason(StrEnum):
    """Why a task ended; the built-in loop without tools and prices gives all but the last three."""

    COMPLETED = "Completed"
    MAX_STEPS = "MaxSteps"
    MAX_TOKENS = "MaxTokens"
    TIMEOUT = "Timeout"
    TOOL_FAILED = "ToolFailed"
    MODEL_FAILED = "ModelFailed"
    CANCELLED = "Cancelled"
    INVALID = "Invalid"
    INFRASTRUCTURE = "Infrastructure"


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    """The task was taken in."""

    at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """A worker took the task; from the second attempt on, a worker before it was lost."""

    at: int
    worker: str
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HandedOver:
    """A worker that had to leave gave the task back between two calls."""

    at: int
    worker: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Intended:
    """A call is about to be made: written before it, with the tokens set aside for it."""

    at: int
    call: str
    kind: CallKind
    target: str
    step: int
    reserved_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What a call gave: written after it, and never repeated once it stands here.

    `value` is a list of passages for a retrieval and the text for a model call; `problem` says why there is
    none.
    """

    at: int
    call: str
    outcome: CallOutcome
    took_ms: int
    value: Any = None
    generation: str | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    tries: int = 1
    problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The task's end."""

    at: int
    status: TaskStatus
    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Other:
    """An entry of a newer version."""

    at: int
    document: Mapping[str, Any] = field(default_factory=dict)


Entry = Submitted | Claimed | HandedOver | Intended | Done | Ended | Other
Known = TypeVar("Known", bound=Entry)

_TYPES: Final[Mapping[str, type[Entry]]] = {
    entry.__name__: entry for entry in (Submitted, Claimed, HandedOver, Intended, Done, Ended)
}
_ENUMS: Final[Mapping[str, type[StrEnum]]] = {"kind": CallKind, "outcome": CallOutcome, "status": TaskStatus}


def document_of(entry: Entry) -> dict[str, Any]:
    """The entry as a JSON object; fields that say nothing are left out."""
    if isinstance(entry, Other):
        return dict(entry.document)
    told = {name: value for name, value in asdict(entry).items() if value is not None}
    return {"type": type(entry).__name__, **told}


def encode(entry: Entry) -> str:
    """The entry as it stands in Redis."""
    return json.dumps(document_of(entry), ensure_ascii=False, separators=(",", ":"))


def decode(text: str | bytes) -> Entry:
    """The entry that stands in Redis."""
    document = json.loads(text)
    kind = _TYPES.get(document.get("type", ""))
    if kind is None:
        return Other(at=int(document.get("at", 0)), document=document)
    return _read(kind, document)


def _read(kind: type[Known], document: Mapping[str, Any]) -> Known:
    known = {entry_field.name for entry_field in fields(kind)}
    values: dict[str, Any] = {name: value for name, value in document.items() if name in known}
    for name in _ENUMS.keys() & values.keys():
        values[name] = _ENUMS[name](values[name])
    return kind(**values)
