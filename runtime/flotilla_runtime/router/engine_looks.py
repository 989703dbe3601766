"""Asks the engines that drain whether they are idle: the part of a drain's proof that a router cannot know.

The routers ask and not the operator, because they are the only ones that the engines' network policy lets in.
An engine is idle when nothing runs or waits in it, in several looks in a row. One that does not answer, or
does not say how many requests it has, or says what cannot be, is not called idle: then the drain ends at its
deadline.
"""

import asyncio
import math
from collections.abc import Callable, Iterable

import aiohttp

from flotilla_runtime.router.pods import Replica

IN_FLIGHT = ("vllm:num_requests_running", "vllm:num_requests_waiting")
BETWEEN_LOOKS_SECONDS = 1.0
ANSWER_SECONDS = 2.0
METRICS_LIMIT_BYTES = 8 * 2**20


def in_flight(text: str) -> float | None:
    """Requests that run or wait, from the engine's metrics; None when they do not say so."""
    figures: dict[str, float] = {}
    for line in text.splitlines():
        name = line.split("{")[0].split(" ")[0]
        if name in IN_FLIGHT:
            try:
                figure = float(line.rsplit(" ", 1)[1])
            except (IndexError, ValueError):
                return None
            # With one below zero a busy engine would add up to idle.
            if not math.isfinite(figure) or figure < 0:
                return None
            figures[name] = figures.get(name, 0.0) + figure
    return sum(figures.values()) if len(figures) == len(IN_FLIGHT) else None


class EngineLooks:
    """Counts the looks in a row that found an engine idle, anew for each drain."""

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
        """How often in a row the engine was idle since this drain began."""
        return self._idle.get((replica_name, epoch), 0)

    async def run(self) -> None:
        """Look again and again until cancelled."""
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
        host = f"[{replica.ip}]" if ":" in replica.ip else replica.ip
        try:
            async with session.get(f"http://{host}:{self._port}/metrics") as answer:
                answer.raise_for_status()
                return in_flight(await _read_limited(answer))
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
            return None


async def _read_limited(answer: aiohttp.ClientResponse) -> str:
    body = bytearray()
    async for chunk in answer.content.iter_any():
        body += chunk
        if len(body) > METRICS_LIMIT_BYTES:
            raise ValueError(f"the metrics are longer than {METRICS_LIMIT_BYTES} bytes")
    return body.decode(errors="replace")
