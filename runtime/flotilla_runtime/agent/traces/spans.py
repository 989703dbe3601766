"""The spans of a task, from its journal, with the names of OpenTelemetry's GenAI conventions. Pure.

A task is the span `invoke_agent`. Below it are its waits for a worker, its calls, and a span for each scope,
such as a branch of a pattern, around the calls in it. The span of a call is known when its result is in the
journal; those of scopes and of the task when the task has ended. All are made from entries, so no worker has
to remember them.

What was asked and answered is in them only where content is asked for; so are messages of problems, which
quote what others sent.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final

from flotilla_runtime.agent.journal import (
    CallKind,
    CallOutcome,
    Claimed,
    Done,
    Entry,
    HandedOver,
    Intended,
    Resumed,
    Submitted,
    Suspended,
    TaskStatus,
)
from flotilla_runtime.agent.tasks import NewTask, TaskRecord
from flotilla_runtime.agent.traces import attributes as saying
from flotilla_runtime.agent.traces.ids import TaskTrace, spawning, submitted_trace, trace_of
from flotilla_runtime.contract import ModelConnection

# Calls that take no time: they would only hide the others.
OF_NO_LENGTH: Final = frozenset({CallKind.NOW, CallKind.RANDOM, CallKind.CHOICE})

# The default names of calls have a target or a name behind them.
NAMED_BY_TARGET: Final = frozenset(
    {"agent", "approve", "ask", "compensate", "llm", "retrieve", "signal", "state", "tell", "tool"}
)


class SpanKind(StrEnum):
    """The other side of a span: nobody, somebody that is called, somebody who calls."""

    INTERNAL = "Internal"
    CLIENT = "Client"
    SERVER = "Server"


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A span; times are in milliseconds since the epoch. `error` says how it failed, in a word."""

    trace_id: int
    span_id: int
    above: int | None
    name: str
    kind: SpanKind = SpanKind.INTERNAL
    began_at: int
    ended_at: int
    attributes: Mapping[str, saying.Value] = field(default_factory=dict)
    error: str | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """The facts of a task's fleet for its spans. `models` are by the names that calls have."""

    name: str
    models: Mapping[str, ModelConnection] = field(default_factory=dict)
    content: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """How a task ended."""

    at: int
    status: TaskStatus
    reason: str
    result: Any = None


@dataclass(slots=True)
class _Extent:
    above: str
    began_at: int
    ended_at: int

    def cover(self, began_at: int, ended_at: int) -> None:
        self.began_at, self.ended_at = min(self.began_at, began_at), max(self.ended_at, ended_at)


class TaskSpans:
    """The spans of one task. `told` gives each entry, in order, and returns the span that ended with it."""

    def __init__(self, record: TaskRecord, fleet: Fleet) -> None:
        self.trace: Final[TaskTrace] = trace_of(record)
        self._record = record
        self._fleet = fleet
        self._common = saying.of_task(record.id, fleet.name, record.tenant, record.conversation_id)
        self._open: dict[str, Intended] = {}
        self._scopes: dict[str, _Extent] = {}
        self._waits_since: int | None = record.submitted_at
        self._waits = 0
        self._asked: dict[str, Any] = {}

    def asked(self, call: str, request: Any) -> None:
        """Know what a call asks, where the journal does not have it."""
        if self._fleet.content:
            self._asked[call] = request

    def told(self, entry: Entry) -> Span | None:
        """The span that ended with this entry, if any."""
        match entry:
            case Submitted() | Resumed() | HandedOver():
                self._waits_since = entry.at
            case Suspended():
                self._waits_since = None
            case Claimed() if self._waits_since is not None:
                return self._waited(self._waits_since, entry.at)
            case Intended():
                self._open.setdefault(entry.call, entry)
            case Done():
                return self._called(entry)
        return None

    def ended(self, end: End) -> Iterator[Span]:
        """Yield the spans that end with the task: calls under way, the scopes, and the task itself."""
        for intent in tuple(self._open.values()):
            cut = Done(at=end.at, call=intent.call, outcome=CallOutcome.CANCELLED, took_ms=0)
            if (span := self._called(cut)) is not None:
                yield span
        for path, extent in self._scopes.items():
            yield self._span(
                self.trace.scope(path),
                extent.above,
                path[len(extent.above) :].rstrip("/"),
                (extent.began_at, extent.ended_at),
                saying.OF_NOBODY,
            )
        error = None if end.status is TaskStatus.SUCCEEDED else end.reason
        task = self._span(
            self.trace.root,
            "",
            f"invoke_agent {self._record.agent or self._fleet.name}",
            (self._record.submitted_at, end.at),
            {
                **saying.of_agent(self._record, self._fleet.name, end.status, end.reason),
                **(saying.content_of_task(self._record.input, end.result) if self._fleet.content else {}),
            },
        )
        yield replace(task, above=self.trace.above, error=error)

    def _waited(self, since: int, until: int) -> Span:
        self._waits += 1
        self._waits_since = None
        return self._span(self.trace.wait(self._waits), "", "queue", (since, until), saying.OF_NOBODY)

    def _called(self, done: Done) -> Span | None:
        intent = self._open.pop(done.call, None)
        request = self._asked.pop(done.call, None)
        if intent is None:
            return None
        if intent.kind in OF_NO_LENGTH:
            return None
        began_at, ended_at = intent.at, max(intent.at, done.at)
        above = ""
        for path in scopes_of(done.call):
            self._scopes.setdefault(path, _Extent(above, began_at, ended_at)).cover(began_at, ended_at)
            above = path
        own = saying.of_call(intent, done, self._fleet.models.get(intent.target))
        if self._fleet.content:
            own |= saying.content_of_call(intent, done, request)
        is_spawn = intent.kind in (CallKind.SPAWN, CallKind.TELL) and intent.child is not None
        span = self._span(
            spawning(str(intent.child)) if is_spawn else self.trace.call(done.call),
            above,
            saying.name_of(intent, self._fleet.models.get(intent.target)),
            (began_at, ended_at),
            own,
        )
        return replace(
            span,
            kind=SpanKind.CLIENT if intent.kind in saying.TO_OTHERS else SpanKind.INTERNAL,
            error=None if done.outcome is CallOutcome.SUCCEEDED else str(done.outcome),
            problem=done.problem if self._fleet.content else None,
        )

    def _span(
        self,
        span_id: int,
        above: str,
        name: str,
        times: tuple[int, int],
        own: Mapping[str, saying.Value],
    ) -> Span:
        """A span below this scope, or below the task for the empty path."""
        return Span(
            trace_id=self.trace.trace_id,
            span_id=span_id,
            above=self.trace.scope(above),
            name=name,
            began_at=times[0],
            ended_at=max(times),
            attributes={**self._common, **own},
        )


def submission(task: NewTask, fleet: str, began_at: int, ended_at: int) -> Span:
    """The span of the request that submitted a task."""
    trace = submitted_trace(task.id, task.traceparent)
    common = saying.of_task(task.id, fleet, task.tenant or task.caller, task.conversation_id)
    return Span(
        trace_id=trace.trace_id,
        span_id=trace.submission,
        above=trace.root,
        name="submit task",
        kind=SpanKind.SERVER,
        began_at=began_at,
        ended_at=max(began_at, ended_at),
        attributes={**common, **saying.OF_NOBODY},
    )


def scopes_of(call: str) -> Iterator[str]:
    """The paths of the scopes around a call, from the outermost on. Each ends in a slash.

    Names may have slashes too, as `tool/weather` and `turn/2` do: what stands before them is no scope.
    """
    *parts, _ = call.split("/")
    if parts and parts[-1].partition("#")[0] in NAMED_BY_TARGET:
        parts.pop()
    for place in range(1, len(parts) + 1):
        is_counted = place < len(parts) and parts[place].isdecimal()
        if not is_counted:
            yield "/".join(parts[:place]) + "/"
