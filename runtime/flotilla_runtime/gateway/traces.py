"""Traces of what only a gateway knows of tasks: that one was submitted, or ended without a worker."""

from collections.abc import Callable, Sequence
from typing import Final

from flotilla_runtime.agent.journal import Ended, Entry
from flotilla_runtime.agent.tasks import NewTask, TaskRecord
from flotilla_runtime.agent.traces.export import Exporter
from flotilla_runtime.agent.traces.spans import End, Fleet, TaskSpans, submission


class GatewayTraces:
    """The spans that a gateway gives. Times are in milliseconds since the epoch."""

    def __init__(self, exporter: Exporter, fleet: str, wall_ms: Callable[[], int]) -> None:
        self._exporter: Final = exporter
        self._fleet: Final = Fleet(name=fleet, content=exporter.config.content)
        self._wall_ms: Final = wall_ms

    def stop(self) -> None:
        """Send what waits to be sent, for some seconds; it blocks."""
        self._exporter.stop()

    def submitted(self, task: NewTask, began_at: int) -> None:
        """A task was stored, for a request that came at this time."""
        self._exporter.give([submission(task, self._fleet.name, began_at, self._wall_ms())])

    def ended(self, record: TaskRecord, entries: Sequence[Entry]) -> None:
        """A task ended while no worker had it."""
        spans = TaskSpans(record, self._fleet)
        for entry in entries:
            spans.told(entry)
        end = next((entry for entry in reversed(entries) if isinstance(entry, Ended)), None)
        if end is not None:
            self._exporter.give(spans.ended(End(at=end.at, status=end.status, reason=end.reason)))
