"""Reads HAProxy's request lines into metrics and tallies.

A ring in HAProxy holds the last lines. An agent that starts beside a running HAProxy reads them all, so the
figures of the last half hour, from which the operator decides, survive a restart of the agent. Each line
counts at the time that is written in it, not when it is read: old lines are dropped, and reading the history
again makes no replica look busy. The metrics' counters start at zero with the agent, as Prometheus expects;
they leave out older lines, which an earlier agent has counted. So does the rate of kept answers.
"""

import asyncio
import time
from collections.abc import Callable, Iterable

import structlog

from flotilla_runtime.contract.failure_texts import what_failed
from flotilla_runtime.router.admin_socket import AdminSocket
from flotilla_runtime.router.errors import RouterProcessError
from flotilla_runtime.router.metrics import RouterMetrics
from flotilla_runtime.router.rates import Rate
from flotilla_runtime.router.requests import RequestRecord, parse_request
from flotilla_runtime.router.tallies import Promise, Tallies, Tally

RECONNECT_SECONDS = 0.5

log = structlog.get_logger(__name__)


class RequestLog:
    """The sums of the lines; `wall` is the clock of HAProxy's lines, in seconds since the epoch."""

    def __init__(
        self,
        metrics: RouterMetrics,
        promise: Promise,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._metrics = metrics
        self._tallies = Tallies(promise)
        self._clock = clock
        self._wall = wall
        self._began = clock()
        self.last_ended = self._began
        self._kept = Rate(self._began)

    async def follow(self, socket: AdminSocket) -> None:
        """Read until cancelled: the whole ring of a HAProxy process not seen before, else only new lines."""
        seen: tuple[str, str] | None = None
        while True:
            try:
                process = await socket.process()
                only_new, seen = process == seen, process
                async for line in socket.request_lines(only_new=only_new):
                    record = parse_request(line)
                    if record is not None:
                        self.count(record)
            except RouterProcessError as error:
                log.info("request_lines_ended", error=what_failed(error))
            await asyncio.sleep(RECONNECT_SECONDS)

    def count(self, record: RequestRecord) -> None:
        """Count one request at the time at which it ended."""
        ended = self._clock() - max(0.0, self._wall() - record.ended_at)
        kept = self._tallies.count(record, ended)
        if ended < self._began:
            return
        self._metrics.count(record)
        self._kept.add(kept, ended)
        if record.refused is None:
            self.last_ended = max(self.last_ended, ended)

    def tally(self, replica: str) -> Tally:
        """The current figures of one replica."""
        return self._tallies.of(replica, self._clock())

    @property
    def kept_per_second(self) -> float:
        """Answers within the promised times per second, including those of replicas that are gone."""
        return self._kept.per_second(self._clock())

    def keep_only(self, replicas: Iterable[str]) -> None:
        """Forget all other replicas."""
        self._tallies.keep_only(replicas)
