"""Asks the engines that serve how full their KV cache is, now and then and a few at a time.

A loop of its own beside that of engine_looks.py: a drain must not wait for an engine that stalls. Figures
are of the last look; an engine that did not answer it has none.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping

import aiohttp

from flotilla_runtime.router.engine_metrics import kv_usage, read_metrics
from flotilla_runtime.router.pods import Replica

BETWEEN_LOOKS_SECONDS = 10.0
ANSWER_SECONDS = 2.0
ASKED_AT_ONCE = 16


class CacheLooks:
    """The KV usage of every replica that `serving` names."""

    def __init__(
        self,
        serving: Callable[[], Iterable[Replica]],
        *,
        port: int,
        between_seconds: float = BETWEEN_LOOKS_SECONDS,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        self._serving = serving
        self._port = port
        self._between_seconds = between_seconds
        self._answer_seconds = answer_seconds
        self._open = asyncio.Semaphore(ASKED_AT_ONCE)
        self._usage: Mapping[str, float | None] = {}

    def usage(self, replica_name: str) -> float | None:
        """The share in use; None for unknown."""
        return self._usage.get(replica_name)

    async def run(self) -> None:
        """Look again and again until cancelled."""
        timeout = aiohttp.ClientTimeout(total=self._answer_seconds)
        # Between two looks an engine closes a connection that was kept, just when it is used again.
        connector = aiohttp.TCPConnector(force_close=True)
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
            while True:
                replicas = list(self._serving())
                asked = await asyncio.gather(*(self._ask(session, replica) for replica in replicas))
                names = (replica.name for replica in replicas)
                self._usage = dict(zip(names, asked, strict=True))
                await asyncio.sleep(self._between_seconds if replicas else min(1.0, self._between_seconds))

    async def _ask(self, session: aiohttp.ClientSession, replica: Replica) -> float | None:
        async with self._open:
            text = await read_metrics(session, replica, self._port)
        return None if text is None else kv_usage(text)
