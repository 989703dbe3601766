"""The spans that wait to be sent. Both their number and the memory of their texts are bounded."""

import sys
import threading
from collections import deque
from typing import Final

from opentelemetry.sdk.trace import ReadableSpan

MOST_WAITING: Final = 8192  # spans
MOST_WAITING_BYTES: Final = 32 * 1024 * 1024
BATCH: Final = 512  # spans
# A text takes at most twice as much in UTF-8 as in memory, and OpenTelemetry's Collector takes 20 MiB.
BATCH_BYTES: Final = 4 * 1024 * 1024


class WaitingSpans:
    """A queue from one thread to another."""

    def __init__(self, most: int = MOST_WAITING, most_bytes: int = MOST_WAITING_BYTES) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._spans: deque[tuple[ReadableSpan, int]] = deque()
        self._bytes = 0
        self._lock = threading.Lock()

    def put(self, span: ReadableSpan) -> bool:
        """Let it wait; whether there is room."""
        size = text_bytes(span)
        with self._lock:
            if len(self._spans) >= self._most or self._bytes + size > self._most_bytes:
                return False
            self._spans.append((span, size))
            self._bytes += size
            return True

    def has_batch(self) -> bool:
        """Whether a whole batch waits."""
        return len(self._spans) >= BATCH or self._bytes >= BATCH_BYTES

    def next_batch(self) -> list[ReadableSpan]:
        """Those that waited longest, and wait no more. It is empty when none waits."""
        batch: list[ReadableSpan] = []
        batch_bytes = 0
        with self._lock:
            while self._spans and len(batch) < BATCH:
                span, size = self._spans[0]
                if batch and batch_bytes + size > BATCH_BYTES:
                    break
                self._spans.popleft()
                batch.append(span)
                batch_bytes += size
            self._bytes -= batch_bytes
        return batch


def text_bytes(span: ReadableSpan) -> int:
    """The memory of a span's texts. What a span takes besides is bounded by the number of spans."""
    size = sys.getsizeof(span.status.description or "")
    for value in (span.attributes or {}).values():
        texts = value if isinstance(value, tuple) else (value,)
        size += sum(sys.getsizeof(text) for text in texts if isinstance(text, str))
    return size
