"""Scrapes the targets that controllers name, and stores the answers in `Measurements`.

Each target is scraped at its own interval. The first scrape happens at a random time, so that a thousand
targets are not scraped at once. A semaphore limits the open requests.

Whoever may make pods chooses what answers. So no redirect is followed; the time and the size of an answer are
limited, and so are the number of an object's targets and the size of all their answers; and no answer ends
the scrape.

A target that does not answer keeps its last measurement for three intervals and is unknown after that: one
lost answer changes nothing, but an old figure must not pass for a current one. One that stays unknown is
asked less and less, but at least every 30 s. The owner is told of every answer, and of every target that
becomes unknown. The fetcher that asks a target is handed in; tests without a network hand in their own.
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

from flotilla_operator.objects.retries import Draw, RetryDelay
from flotilla_operator.telemetry.answers import ONE_ANSWER, read_answer
from flotilla_operator.telemetry.measurements import Measurement, Measurements, Target
from flotilla_runtime.contract.failure_texts import what_failed

INTERVALS_UNTIL_UNKNOWN: Final = 3
LONGEST_PAUSE_SECONDS: Final = 30.0
TARGETS_OF_AN_OWNER: Final = 200  # a fleet may have 100 gateways, and as many again while they are replaced
BYTES_OF_AN_OWNER: Final = 16 * 2**20  # 50 routers of 1,000 replicas answer with 12 MiB

log = structlog.get_logger(__name__)


class Observer(Protocol):
    """Counts scrapes."""

    def scraped(self, *, succeeded: bool) -> None:
        """A scrape ended."""


class Silent:
    """An observer that counts nothing."""

    def scraped(self, *, succeeded: bool) -> None:
        """Count nothing."""


class Fetcher(Protocol):
    """Asks the targets. An answer that does not come, or is an error, is raised."""

    async def fetch(self, url: str) -> bytes:
        """The answer of a target."""

    async def close(self) -> None:
        """Ask nothing any more."""


class HttpFetcher:
    """Asks over HTTP, with limits on the open requests, on their time and on the size of an answer."""

    def __init__(self, *, concurrency: int = 64, timeout_seconds: float = 3.0) -> None:
        self._open = asyncio.Semaphore(concurrency)
        self._session = aiohttp.ClientSession(
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=timeout_seconds),
            connector=aiohttp.TCPConnector(limit=concurrency),
        )

    async def fetch(self, url: str) -> bytes:
        """The body of the answer, if its status is no error."""
        async with self._open, self._session.get(url, **ONE_ANSWER) as response:
            return await read_answer(response)

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()


@dataclass(slots=True)
class Watched:
    """A target, its owner, the task that scrapes it, and the size of its last answer in bytes."""

    target: Target
    owner: str
    task: asyncio.Task[None]
    size: int = 0


class Scraper:
    """Keeps the measurements up to date until closed."""

    def __init__(
        self,
        measurements: Measurements,
        *,
        fetcher: Fetcher | None = None,
        on_answer: Callable[[str], None] = lambda _owner: None,
        observer: Observer | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        draw: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._measurements = measurements
        self._fetcher: Fetcher = fetcher or HttpFetcher()
        self._on_answer = on_answer
        self._observer: Observer = observer or Silent()
        self._now = now
        self._draw = draw
        self._watched: dict[str, Watched] = {}
        self._by_owner: dict[str, set[str]] = {}

    def __len__(self) -> int:
        return len(self._watched)

    def set_targets(self, owner: str, targets: Sequence[Target]) -> None:
        """From now on scrape exactly these targets for this owner, but no more than 200 of them.

        An unchanged target continues undisturbed. One with a new interval only keeps its last measurement.
        Where there are too many, those that are scraped already go first.
        """
        held_keys = self._by_owner.get(owner, set())
        known_first = sorted(targets, key=lambda target: target.key not in held_keys)
        wanted = {target.key: target for target in known_first[:TARGETS_OF_AN_OWNER]}
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
        await self._fetcher.close()

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
        # The first scrape happens within a second, because a controller waits for it.
        await asyncio.sleep(self._draw(0.0, min(1.0, target.interval_seconds)))
        while True:
            try:
                self._measurements.record(target.key, await self._scrape(owner, target))
                failures = 0
            except Exception as error:  # no answer may end the scrape: deep JSON raises RecursionError
                failures += 1
                log.debug("scrape_failed", url=target.url, error=what_failed(error))
                if failures == INTERVALS_UNTIL_UNKNOWN:
                    self._measurements.forget(target.key)
            self._observer.scraped(succeeded=failures == 0)
            if failures in (0, INTERVALS_UNTIL_UNKNOWN):
                self._tell(owner)
            await asyncio.sleep(pause_seconds(target.interval_seconds, failures, self._draw))

    def _tell(self, owner: str) -> None:
        """Say that there is an answer; an error of whoever listens must not end the scrape."""
        try:
            self._on_answer(owner)
        except Exception:
            log.exception("answer_not_used", owner=owner)

    async def _scrape(self, owner: str, target: Target) -> Measurement:
        body = await self._fetcher.fetch(target.url)
        watched = self._watched[target.key]
        others = sum(self._watched[key].size for key in self._by_owner[owner] if key != target.key)
        watched.size = 0
        if others + len(body) > BYTES_OF_AN_OWNER:
            raise ValueError(f"all answers of {owner} are longer than {BYTES_OF_AN_OWNER} bytes")
        document = json.loads(body)
        watched.size = len(body)
        return Measurement(at=self._now(), document=document)


def pause_seconds(interval_seconds: float, failures: int, draw: Draw) -> float:
    """The time until a target is asked again: about its interval, and longer once it is unknown.

    `failures` counts those in a row.
    """
    about = interval_seconds * draw(0.9, 1.1)
    unknown_for = failures - INTERVALS_UNTIL_UNKNOWN
    if unknown_for <= 0:
        return about
    delay = RetryDelay(base_seconds=2.0 * interval_seconds, limit_seconds=LONGEST_PAUSE_SECONDS)
    return min(max(about, delay.seconds_after(unknown_for, draw)), LONGEST_PAUSE_SECONDS)
