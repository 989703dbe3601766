"""Counts what became of spans."""

from enum import StrEnum

from prometheus_client import CollectorRegistry, Counter


class SpanEnd(StrEnum):
    """What became of a span."""

    SENT = "Sent"
    QUEUE_FULL = "QueueFull"
    NOT_TAKEN = "NotTaken"


def spans_counter(name: str, registry: CollectorRegistry) -> Counter:
    """What became of the spans of a process."""
    text = "Spans by what became of them: Sent, QueueFull, NotTaken."
    return Counter(name, text, ["outcome"], registry=registry)
