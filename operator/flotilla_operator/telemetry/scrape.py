"""Scrapes what controllers name as targets, into `Measurements`.

Each target has its own rhythm, with a start drawn at random so that a thousand targets do not answer at
once; a semaphore bounds how many requests are open, and time and size of an answer are limited. A target
that fails stays at its last measurement for three intervals and is unknown after that: one lost answer is no
news, and a figure that is old must not look like one that is true. Whoever owns a target is told when it
becomes known or unknown, not at every figure.
"""

import asyncio
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Protocol

import aiohttp
import structlog

from flotilla_operator.telemetry.measurements import Measurement, Measurements, Target

INTERVALS_UNTIL_UNKNOWN: Final = 3
BODY_LIMIT_BYTES: Final = 4 * 2**20

log = structlog.get_logger(__name__)


class Observer(Protocol):
    """Who counts scrapes."""

    def scraped(self, *, succeeded: bool) -> None:
        """A scrape ended."""


class Silent:
    """An observer that counts nothing."""

    def scraped(self, *, succeeded: bool) -> None:
        """Count nothing."""


@dataclass(slots=True)
class Watched:
    """A target, who asked for it, and the task that scrapes it."""

    target: Target
    owner: str
    task: asyncio.Task[None]


class Scraper:
    """Keeps `measurements` up to date until closed."""

    def __init__(
        self,
        measurements: Measurements,
        *,
        concurrency: int = 64,
        timeout_seconds: float = 3.0,
        on_change: Callable[[str], None] = lambda _owner: None,
        observer: Observer | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        draw: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._measurements = measurements
        self._open = asyncio.Semaphore(concurrency)
        self._on_change = on_change
        self._observer: Observer = observer or Silent()
        self._now = now
        self._draw = draw
        self._watched: dict[str, Watched] = {}
        self._by_owner: dict[str, set[str]] = {}
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=timeout_seconds),
            connector=aiohttp.TCPConnector(limit=concurrency),
        )

    def __len__(self) -> int:
        return len(self._watched)

    def set_targets(self, owner: str, targets: Sequence[Target]) -> None:
        """From now on scrape exactly these for this owner; a target keeps its rhythm when nothing changed,
        and its last measurement when only the rhythm did.
        """
        wanted = {target.key: target for target in targets}
        for key in self._by_owner.get(owner, set()) - wanted.keys():
            self._stop(key)
        for key, target in wanted.items():
            held = self._watched.get(key)
            if held is not None and held.target == target and held.owner == owner:
                continue
            if held is not None:
                self._stop(key, forget=held.target.url != target.url or held.owner != owner)
            task = asyncio.create_task(self._follow(owner, target), name=f"scrape {target.url}")
            self._watched[key] = Watched(target, owner, task)
            self._by_owner.setdefault(owner, set()).add(key)

    async def close(self) -> None:
        """Stop every scrape."""
        for key in list(self._watched):
            self._stop(key)
        await self._session.close()

    def _stop(self, key: str, *, forget: bool = True) -> None:
        watched = self._watched.pop(key)
        watched.task.cancel()
        owned = self._by_owner[watched.owner]
        owned.discard(key)
        if not owned:
            del self._by_owner[watched.owner]
        if forget:
            self._measurements.forget(key)

    async def _follow(self, owner: str, target: Target) -> None:
        failures = 0
        # The first answer comes soon, because a controller waits for it; the rhythm then spreads.
        await asyncio.sleep(self._draw(0.0, min(1.0, target.interval_seconds)))
        while True:
            known = self._measurements.latest(target.key) is not None
            try:
                self._measurements.record(target.key, await self._scrape(target))
                failures = 0
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
                failures += 1
                log.debug("scrape_failed", url=target.url, error=str(error) or repr(error))
                if failures >= INTERVALS_UNTIL_UNKNOWN:
                    self._measurements.forget(target.key)
            self._observer.scraped(succeeded=failures == 0)
            if known != (self._measurements.latest(target.key) is not None):
                self._on_change(owner)
            await asyncio.sleep(target.interval_seconds * self._draw(0.9, 1.1))

    async def _scrape(self, target: Target) -> Measurement:
        async with self._open, self._session.get(target.url) as response:
            response.raise_for_status()
            body = await _read_limited(response)
        return Measurement(at=self._now(), document=json.loads(body))


async def _read_limited(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > BODY_LIMIT_BYTES:
            raise ValueError(f"the answer is longer than {BODY_LIMIT_BYTES} bytes")
    return bytes(body)
