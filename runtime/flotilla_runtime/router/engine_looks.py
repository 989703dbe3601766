"""Asks draining engines whether they are idle, which a router alone cannot know.

An engine is idle when it reports no running or waiting request several times in a row. An engine that does
not answer, or whose figures are missing or impossible, never counts as idle; its drain then ends at the
deadline.
"""

import asyncio
from collections.abc import Callable, Iterable

import aiohttp

from flotilla_runtime.router.engine_metrics import in_flight, read_metrics
from flotilla_runtime.router.pods import Replica

BETWEEN_LOOKS_SECONDS = 1.0
ANSWER_SECONDS = 2.0


class EngineLooks:
    """Counts how many times in a row an engine was idle, starting again with each drain."""

    def __init__(
        self,
        draining: Callable[[], Iterable[Replica]],
        *,
        port: int,
        between_seconds: float = BETWEEN_LOOKS_SECONDS,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        self._draining = draining
        self._port = port
        self._between_seconds = between_seconds
        self._answer_seconds = answer_seconds
        self._idle: dict[tuple[str, int | None], int] = {}

    def idle(self, replica_name: str, epoch: int | None) -> int:
        """How many times in a row the engine was idle since this drain began."""
        return self._idle.get((replica_name, epoch), 0)

    async def run(self) -> None:
        """Ask again and again until cancelled."""
        timeout = aiohttp.ClientTimeout(total=self._answer_seconds)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            while True:
                replicas = [replica for replica in self._draining() if replica.drain_epoch is not None]
                asked = await asyncio.gather(*(self._ask(session, replica) for replica in replicas))
                before = self._idle
                self._idle = {
                    (replica.name, replica.drain_epoch): before.get((replica.name, replica.drain_epoch), 0)
                    + 1
                    for replica, running in zip(replicas, asked, strict=True)
                    if running == 0
                }
                await asyncio.sleep(self._between_seconds)

    async def _ask(self, session: aiohttp.ClientSession, replica: Replica) -> float | None:
        text = await read_metrics(session, replica, self._port)
        return None if text is None else in_flight(text)
