"""Reads HAProxy's request lines into metrics and tallies.

A ring in HAProxy holds the last lines, and an agent that starts beside a running HAProxy reads them all: that
is how the figures of the last half hour, which the operator judges by, outlive an agent. So every line counts
at the time it tells and not when it is read: what is too old falls out, and no replica seems busy because its
history was read again. The metrics' counters start at zero with the agent, as Prometheus expects, and
leave out the lines that are older; an earlier agent has counted those. So does the rate of kept answers,
which is told for the time since the agent's start.
"""

import asyncio
import time
from collections.abc import Callable, Iterable

import structlog

from flotilla_runtime.router.admin_socket import AdminSocket, RouterProcessError
from flotilla_runtime.router.metrics import RouterMetrics
from flotilla_runtime.router.rates import Rate
from flotilla_runtime.router.requests import RequestRecord, parse_request
from flotilla_runtime.router.tallies import Promise, Tallies, Tally

RECONNECT_SECONDS = 0.5

log = structlog.get_logger(__name__)


class RequestLog:
    """What the lines add up to; `wall` is the clock that HAProxy's lines tell, in seconds since the epoch."""

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
        """Read until cancelled: the ring from its start when HAProxy is a new one to us, else what is new."""
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
                log.info("request_lines_ended", error=str(error))
            await asyncio.sleep(RECONNECT_SECONDS)

    def count(self, record: RequestRecord) -> None:
        """Take one request, at the time it ended."""
        ended = self._clock() - max(0.0, self._wall() - record.ended_at)
        kept = self._tallies.count(record, ended)
        if ended < self._began:
            return
        self._metrics.count(record)
        self._kept.add(kept, ended)
        if record.refused is None:
            self.last_ended = max(self.last_ended, ended)

    def tally(self, replica: str) -> Tally:
        """One replica's figures of now."""
        return self._tallies.of(replica, self._clock())

    @property
    def kept_per_second(self) -> float:
        """Answers that kept the promise, of replicas that are gone too."""
        return self._kept.per_second(self._clock())

    def keep_only(self, replicas: Iterable[str]) -> None:
        """Forget the replicas that are gone."""
        self._tallies.keep_only(replicas)
