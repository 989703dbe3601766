"""Counts what became of spans."""

from enum import StrEnum

from prometheus_client import CollectorRegistry, Counter


class SpanEnd(StrEnum):
    """The outcome of a span."""

    SENT = "Sent"
    QUEUE_FULL = "QueueFull"
    NOT_TAKEN = "NotTaken"


def spans_counter(name: str, registry: CollectorRegistry) -> Counter:
    """The counter of the spans of a process, by their outcome."""
    text = "Spans by what became of them: Sent, QueueFull, NotTaken."
    return Counter(name, text, ["outcome"], registry=registry)
