"""Whether a process that takes work is alive and ready, for its probes."""

from collections.abc import Callable
from typing import Final

from flotilla_runtime.agent.worker.stuck import ThreadWatch

SILENT_AFTER_SECONDS: Final = 30.0


class Vitals:
    """The latest signs of life of a worker or an executor."""

    def __init__(self, threads: ThreadWatch, monotonic_seconds: Callable[[], float]) -> None:
        self._threads = threads
        self._clock = monotonic_seconds
        self._looked_at = monotonic_seconds()
        self._answered_at: float | None = None

    def looked(self) -> None:
        """Note that it looks for work now, and how its threads are."""
        self._looked_at = self._clock()
        self._threads.look()

    def answered(self) -> None:
        """Note that Redis has answered now."""
        self._answered_at = self._clock()

    @property
    def is_alive(self) -> bool:
        """Whether it has looked for work lately, and can call functions or could so lately."""
        return max(self._clock() - self._looked_at, self._threads.stuck_seconds) < SILENT_AFTER_SECONDS

    @property
    def is_stuck(self) -> bool:
        """Whether functions that do not end hold all its threads."""
        return self._threads.is_stuck

    @property
    def is_ready(self) -> bool:
        """Whether Redis has answered lately, and the process is not stuck."""
        if self._answered_at is None or self.is_stuck:
            return False
        return self._clock() - self._answered_at < SILENT_AFTER_SECONDS
