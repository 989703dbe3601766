"""The bucket of a rate limit as a simple model, and buckets in memory that are made of it.

test_rate_limits.py holds the script in Redis against the model.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from flotilla_runtime.agent.levers.buckets import Turn
from flotilla_runtime.contract import RateLimit

MINUTE_MS = 60_000


@dataclass(slots=True)
class Bucket:
    """What a limit has left of requests and tokens; below zero is owed. Times are milliseconds."""

    requests_per_minute: int
    tokens_per_minute: int
    left: dict[str, float] = field(default_factory=dict)
    at: int | None = None

    def take(self, requests: int, tokens: int, most_wait_ms: int, now: int) -> tuple[bool, int]:
        """Whether it was taken, and after how long the call may begin."""
        wanted = {"requests": requests, "tokens": tokens}
        rates = {"requests": self.requests_per_minute, "tokens": self.tokens_per_minute}
        left, wait = {}, 0
        for what, rate in rates.items():
            if not rate:
                continue
            passed = max(0, now - (self.at if self.at is not None else now))
            level = min(rate, self.left.get(what, rate) + passed * rate / MINUTE_MS)
            left[what] = min(rate, level - wanted[what])
            if wanted[what] > 0 and left[what] < 0:
                wait = max(wait, math.ceil(-left[what] * MINUTE_MS / rate))
        if 0 <= most_wait_ms < wait:
            return False, wait
        self.left = left
        self.at = max(now, self.at or now)
        return True, wait


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

    async def take(self, limit: str, tokens: int, most_wait_seconds: float) -> Turn:
        is_taken, wait = self._take(limit, 1, tokens, round(most_wait_seconds * 1000))
        return Turn(wait_seconds=wait / 1000, is_taken=is_taken)

    async def correct(self, limit: str, *, requests: int, tokens: int) -> None:
        self._take(limit, requests, tokens, -1)

    def _take(self, limit: str, requests: int, tokens: int, most_wait_ms: int) -> tuple[bool, int]:
        now = round(self._now() * 1000)
        is_taken, wait = self.buckets[limit].take(requests, tokens, most_wait_ms, now)
        if is_taken:
            self.taken.append((limit, requests, tokens))
        return is_taken, wait
