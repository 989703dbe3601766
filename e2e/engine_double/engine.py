"""The simulator in real time: a loop that wakes when a step ends, and a queue of events for each request."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from engine_double.metrics import EngineMetrics
from engine_double.recording import Recorder
from engine_double.simulator import Simulator
from engine_double.work import Event, Finished, Request

EventQueue = asyncio.Queue[Event]


class Engine:
    """Runs a simulator in real time and gives each request its events.

    Its clock stops while the engine hangs, so requests continue afterwards from where they were.
    """

    def __init__(self, simulator: Simulator, metrics: EngineMetrics, recorder: Recorder) -> None:
        self._simulator = simulator
        self._metrics = metrics
        self._recorder = recorder
        self._queues: dict[str, EventQueue] = {}
        self._changed = asyncio.Event()
        self._behind_seconds = 0.0
        self._stopped_at: float | None = None

    async def run(self) -> None:
        """Advance the simulation until cancelled."""
        while True:
            self._changed.clear()
            now = self._now()
            self._deliver(self._simulator.advance(now))
            next_change = None if self._stopped_at is not None else self._simulator.next_change()
            delay = None if next_change is None else max(0.0, next_change - now)
            try:
                async with asyncio.timeout(delay):
                    await self._changed.wait()
            except TimeoutError:
                continue

    @asynccontextmanager
    async def request(self, request: Request) -> AsyncIterator[EventQueue]:
        """Submit a request; leaving the block before its end aborts it."""
        queue: EventQueue = asyncio.Queue()
        self._queues[request.id] = queue
        now = self._now()
        self._deliver(self._simulator.advance(now))
        self._simulator.submit(request, now)
        self._changed.set()
        try:
            yield queue
        finally:
            del self._queues[request.id]
            self._observe(self._simulator.abort(request.id, self._now()))

    def set_hanging(self, hanging: bool) -> None:
        """Stop or continue the engine."""
        if hanging and self._stopped_at is None:
            self._stopped_at = self._now()
        elif not hanging and self._stopped_at is not None:
            self._behind_seconds = time.monotonic() - self._stopped_at
            self._stopped_at = None
        self._changed.set()

    def scrape(self) -> bytes:
        """The metrics as they are now."""
        self._deliver(self._simulator.advance(self._now()))
        return self._metrics.render(self._simulator)

    def _now(self) -> float:
        if self._stopped_at is not None:
            return self._stopped_at
        return time.monotonic() - self._behind_seconds

    def _deliver(self, events: Iterable[Event]) -> None:
        happened = list(events)
        self._observe(happened)
        for event in happened:
            queue = self._queues.get(event.request_id)
            if queue is not None:
                queue.put_nowait(event)

    def _observe(self, events: Iterable[Event]) -> None:
        happened = list(events)
        self._metrics.observe(happened)
        for event in happened:
            if isinstance(event, Finished):
                self._recorder.ended(event.record)
