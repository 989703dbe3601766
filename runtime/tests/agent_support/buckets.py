"""The bucket of a rate limit as a simple model, and buckets in memory that are made of it.

test_rate_limits.py holds the script in Redis against the model.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from flotilla_runtime.agent.levers.buckets import Turn
from flotilla_runtime.contract import RateLimit

MINUTE_MS = 60_000
DECIMALS = 6  # of what is left, as the script keeps it


@dataclass(slots=True)
class Bucket:
    """The rest of a limit's requests and tokens; below zero is owed. Times are milliseconds.

    `line` has the names of the calls in line, `places` what each wants, or the time of its turn when it has
    taken that.
    """

    requests_per_minute: int
    tokens_per_minute: int
    left: dict[str, float] = field(default_factory=dict)
    at: int | None = None
    line: list[str] = field(default_factory=list)
    places: dict[str, tuple[int, int] | int] = field(default_factory=dict)

    def take(
        self, requests: int, tokens: int, most_wait_ms: int, now: int, name: str = ""
    ) -> tuple[bool, int]:
        """Whether it was taken, and after how long the call may begin."""
        wants = (requests, tokens)
        if most_wait_ms < 0:
            self._take(wants, now)
            return True, 0
        self._serve_line(most_wait_ms, now)
        turn = self.places.get(name)
        if isinstance(turn, int):
            return True, max(0, turn - now)
        if not self.line and (wait := self._wait(wants, now)) <= most_wait_ms:
            self._take(wants, now)
            return True, wait
        if name:
            self.line += [name] * (not self.line or name not in self.places)
            self.places[name] = wants
        return False, 0

    def lose(self, name: str) -> None:
        """Nobody asks under this name any more."""
        self.places.pop(name, None)

    def leave(self, name: str) -> bool:
        """Leave the line; whether what was taken for it must be given back."""
        was_in_line, had_a_place = name in self.line, self.places.pop(name, None) is not None
        self.line = [other for other in self.line if other != name]
        return had_a_place and not was_in_line

    def _rates(self) -> dict[str, int]:
        rates = {"requests": self.requests_per_minute, "tokens": self.tokens_per_minute}
        return {what: rate for what, rate in rates.items() if rate}

    def _levels(self, now: int) -> dict[str, float]:
        passed = 0 if self.at is None else max(0, now - self.at)
        return {
            what: min(rate, self.left.get(what, rate) + passed * rate / MINUTE_MS)
            for what, rate in self._rates().items()
        }

    def _wait(self, wants: tuple[int, int], now: int) -> int:
        """Until the bucket has as much as is wanted, or is full."""
        rates, wanted = self._rates(), dict(zip(("requests", "tokens"), wants, strict=True))
        waits = (
            math.ceil((min(wanted[what], rates[what]) - level) * MINUTE_MS / rates[what])
            for what, level in self._levels(now).items()
            if wanted[what] > 0
        )
        return max([0, *waits])

    def _take(self, wants: tuple[int, int], now: int) -> None:
        rates, wanted = self._rates(), dict(zip(("requests", "tokens"), wants, strict=True))
        self.left = {
            what: round(min(rates[what], level - wanted[what]), DECIMALS)
            for what, level in self._levels(now).items()
        }
        self.at = max(now, self.at or now)

    def _serve_line(self, most_wait_ms: int, now: int) -> None:
        while self.line:
            wants = self.places.get(self.line[0])
            if isinstance(wants, tuple):
                if (wait := self._wait(wants, now)) > most_wait_ms:
                    return
                self._take(wants, now)
                self.places[self.line[0]] = now + wait
            self.line.pop(0)


class MemoryBuckets:
    """The buckets of a fleet, by a clock of seconds."""

    def __init__(self, limits: Mapping[str, RateLimit], now: Callable[[], float]) -> None:
        self.buckets = {
            name: Bucket(
                requests_per_minute=limit.requests_per_minute or 0,
                tokens_per_minute=limit.tokens_per_minute or 0,
            )
            for name, limit in limits.items()
        }
        self.taken: list[tuple[str, int, int]] = []  # limit, requests, tokens
        self._now = now

    async def take(self, limit: str, tokens: int, most_wait_seconds: float, place: str | None = None) -> Turn:
        is_taken, wait = self._take(limit, 1, tokens, round(most_wait_seconds * 1000), place or "")
        return Turn(wait_seconds=wait / 1000, is_taken=is_taken)

    async def correct(self, limit: str, *, requests: int, tokens: int) -> None:
        self._take(limit, requests, tokens, -1)

    async def leave(self, limit: str, tokens: int, place: str) -> None:
        if self.buckets[limit].leave(place):
            await self.correct(limit, requests=-1, tokens=-tokens)

    def _take(
        self, limit: str, requests: int, tokens: int, most_wait_ms: int, place: str = ""
    ) -> tuple[bool, int]:
        now = round(self._now() * 1000)
        is_taken, wait = self.buckets[limit].take(requests, tokens, most_wait_ms, now, place)
        if is_taken:
            self.taken.append((limit, requests, tokens))
        return is_taken, wait
