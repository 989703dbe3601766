"""Asks serving engines every ten seconds how full their KV caches are, a few engines at a time.

This loop is separate from the one in engine_looks.py, because a drain must not wait for an engine that does
not answer. An engine that did not answer the last request has no figure.
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
    """The KV cache usage of every replica that `serving` returns."""

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
        """The share of the KV cache in use; None for unknown."""
        return self._usage.get(replica_name)

    async def run(self) -> None:
        """Ask again and again until cancelled."""
        timeout = aiohttp.ClientTimeout(total=self._answer_seconds)
        # Engines close idle connections after a while, which can hit one just when it is used again.
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
