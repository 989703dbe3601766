"""Makes OpenTelemetry's spans of ours, by its own tracer, with the ids that ours have."""

from collections.abc import Sequence
from typing import Final

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from flotilla_runtime.agent.traces.attributes import Value
from flotilla_runtime.agent.traces.spans import Span
from flotilla_runtime.agent.traces.spans import SpanKind as OurKind

LONGEST_ATTRIBUTE: Final = 64 * 1024  # characters, of the problem of a span too
NANOSECONDS: Final = 1_000_000  # of a millisecond
KINDS: Final = {
    OurKind.INTERNAL: SpanKind.INTERNAL,
    OurKind.CLIENT: SpanKind.CLIENT,
    OurKind.SERVER: SpanKind.SERVER,
}


class _GivenIds(IdGenerator):
    """Gives the ids of the span that is being made."""

    def __init__(self) -> None:
        self.trace_id = self.span_id = 0

    def generate_trace_id(self) -> int:
        return self.trace_id

    def generate_span_id(self) -> int:
        return self.span_id


class _Kept(SpanProcessor):
    """Keeps the span that ended last."""

    span: ReadableSpan | None = None

    def on_end(self, span: ReadableSpan) -> None:
        self.span = span


class SpanMaker:
    """Makes spans, one after another. Not for several threads."""

    def __init__(self, resource: Resource) -> None:
        self._ids = _GivenIds()
        self._kept = _Kept()
        provider = TracerProvider(
            sampler=ALWAYS_ON,  # what is not sampled is not given to it
            resource=resource,
            shutdown_on_exit=False,
            id_generator=self._ids,
            span_limits=SpanLimits(max_span_attribute_length=LONGEST_ATTRIBUTE),
        )
        provider.add_span_processor(self._kept)
        self._tracer = provider.get_tracer("flotilla")

    def made(self, span: Span) -> ReadableSpan:
        """The span as OpenTelemetry has it."""
        self._ids.trace_id, self._ids.span_id = span.trace_id, span.span_id
        context = None
        if span.above is not None:
            above = SpanContext(span.trace_id, span.above, is_remote=True, trace_flags=TraceFlags(1))
            context = set_span_in_context(NonRecordingSpan(above))
        own = {name: _with_cut_texts(value) for name, value in span.attributes.items()}
        if span.error is not None:
            own[ERROR_TYPE] = span.error
        begun = self._tracer.start_span(
            span.name,
            context=context,
            kind=KINDS[span.kind],
            attributes=own,
            start_time=span.began_at * NANOSECONDS,
        )
        if span.error is not None:
            begun.set_status(Status(StatusCode.ERROR, None if span.problem is None else _cut(span.problem)))
        begun.end(end_time=span.ended_at * NANOSECONDS)
        assert self._kept.span is not None
        return self._kept.span


def _cut(text: str) -> str:
    """The beginning of a text. OpenTelemetry would cut it too, and log that each time."""
    return text[:LONGEST_ATTRIBUTE]


def _with_cut_texts(value: Value) -> Value:
    if isinstance(value, str):
        return _cut(value)
    return [_cut(text) for text in value] if isinstance(value, Sequence) else value
