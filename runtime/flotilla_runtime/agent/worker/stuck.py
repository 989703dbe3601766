"""Whether a worker is stuck: functions of its tools that do not end hold all its threads.

Nobody can stop a thread, so only another process helps. A worker that is stuck takes no task and is not
ready; after a while its liveness probe fails.
"""

from collections.abc import Callable

import structlog
from prometheus_client import Gauge

from flotilla_runtime.agent.protocols import Threads

log = structlog.get_logger(__name__)


class ThreadWatch:
    """Looks at the threads of one worker or executor; without any, it is never stuck."""

    def __init__(
        self, threads: Threads | None, left_behind: Gauge, monotonic_seconds: Callable[[], float]
    ) -> None:
        self._threads = threads
        self._left_behind = left_behind
        self._clock = monotonic_seconds
        self._since: float | None = None

    @property
    def is_stuck(self) -> bool:
        """Whether it is stuck now."""
        return self._threads is not None and self._threads.is_stuck

    @property
    def stuck_seconds(self) -> float:
        """For how long it has been stuck, as far as was looked."""
        return 0.0 if self._since is None or not self.is_stuck else self._clock() - self._since

    def look(self) -> None:
        """Note when it became stuck, and how many threads were left behind."""
        self._left_behind.set(0 if self._threads is None else self._threads.left_behind)
        if not self.is_stuck:
            self._since = None
        elif self._since is None:
            self._since = self._clock()
            log.error("worker_stuck", problem="functions of tools that do not end hold every thread")
