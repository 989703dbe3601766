"""The ids of traces and spans, made from those of tasks and calls. Pure.

They are always the same ones: a task that another worker goes on with stays in its trace, and a span that is
sent again is the span that was sent before. A task that was submitted with a `traceparent` (W3C Trace
Context) is a part of that trace; what it spawns is in the trace of the task that was submitted.
"""

import hashlib
import re
from dataclasses import dataclass, replace
from typing import Final

from flotilla_runtime.agent.tasks import TaskRecord

TRACEPARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
NO_VERSION: Final = "ff"
FIRST_VERSION: Final = "00"
TRACE_BYTES: Final = 16
SPAN_BYTES: Final = 8
LOW_BITS: Final = 2 ** (8 * SPAN_BYTES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parent:
    """The span of somebody else of which a task is a part."""

    trace_id: int
    span_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskTrace:
    """Where the spans of a task belong: its trace, the span of the task, and the one above it, if any."""

    task: str
    trace_id: int
    above: int | None = None

    @property
    def root(self) -> int:
        """The span of the task itself."""
        return span_id(self.task, "task")

    def call(self, call: str) -> int:
        """The span of a call."""
        return span_id(self.task, "call", call)

    def scope(self, path: str) -> int:
        """The span of a scope, by its path with a slash at its end; the empty path is the task itself."""
        return span_id(self.task, "scope", path) if path else self.root

    def wait(self, number: int) -> int:
        """The span of a wait for a worker."""
        return span_id(self.task, "queue", str(number))

    @property
    def submission(self) -> int:
        """The span of the request that submitted the task."""
        return span_id(self.task, "submission")

    def traceparent(self, call: str) -> str:
        """The header that is sent along with a call."""
        return traceparent(Parent(trace_id=self.trace_id, span_id=self.call(call)))


def trace_of(record: TaskRecord) -> TaskTrace:
    """The trace of a task. Above a spawned task, or a message, is the call that made it."""
    trace = submitted_trace(record.root or record.id, record.traceparent)
    if record.parent is None and record.actor is None:
        return replace(trace, task=record.id)
    return replace(trace, task=record.id, above=spawning(record.id))


def submitted_trace(task: str, traceparent: str | None) -> TaskTrace:
    """The trace of a task that was submitted, with this header."""
    given = read_traceparent(traceparent)
    if given is None:
        return TaskTrace(task=task, trace_id=_number(TRACE_BYTES, task))
    return TaskTrace(task=task, trace_id=given.trace_id, above=given.span_id)


def spawning(child: str) -> int:
    """The span of the call that spawned this task."""
    return span_id(child, "spawned")


def span_id(task: str, *of: str) -> int:
    """The id of a span of a task."""
    return _number(SPAN_BYTES, task, *of)


def is_sampled(trace_id: int, percent: float) -> bool:
    """Whether a trace is among these percent of all, as OpenTelemetry's TraceIdRatioBased decides."""
    return trace_id % LOW_BITS < round(percent / 100 * LOW_BITS)


def read_traceparent(header: str | None) -> Parent | None:
    """The span that a header names; None for none, and for what is no `traceparent`."""
    found = TRACEPARENT.fullmatch(header or "")
    if found is None:
        return None
    version, trace, span, _, more = found.groups()
    if version == NO_VERSION or (version == FIRST_VERSION and more):
        return None
    parent = Parent(trace_id=int(trace, 16), span_id=int(span, 16))
    return parent if parent.trace_id and parent.span_id else None


def traceparent(parent: Parent) -> str:
    """The header that names this span, of a trace that is recorded."""
    return f"{FIRST_VERSION}-{parent.trace_id:032x}-{parent.span_id:016x}-01"


def _number(size: int, *of: str) -> int:
    """A number of so many bytes that is not 0, which no id may be."""
    digest = hashlib.sha256("\n".join(of).encode()).digest()[:size]
    return int.from_bytes(digest) or 1
