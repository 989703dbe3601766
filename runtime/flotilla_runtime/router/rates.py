"""Rates of events over the last minute, per second.

The agent reports rates instead of counters. Their reader needs no memory, and a restart of HAProxy, the agent
or the operator cannot make a rate negative or huge. Right after the agent's start a rate covers the time
since then, but at least ten seconds, so that a single request does not look like a burst.
"""

from collections import deque
from dataclasses import dataclass

WINDOW_SECONDS = 60.0
SHORTEST_SECONDS = 10.0
BUCKET_SECONDS = 1.0


def increase(before: int, total: int) -> int:
    """The increase of a counter; a total that is lower than before means that the counter was reset."""
    return total - before if total >= before else total


@dataclass(slots=True)
class _Bucket:
    since: float
    count: int = 0


class Rate:
    """Events per second since `began`, or over the last minute if that is shorter."""

    def __init__(self, began: float) -> None:
        self._began = began
        self._buckets: deque[_Bucket] = deque()

    def add(self, count: int, now: float) -> None:
        """Record that `count` events happened now."""
        if not self._buckets or now - self._buckets[-1].since >= BUCKET_SECONDS:
            self._buckets.append(_Bucket(since=now))
        self._buckets[-1].count += count
        self._forget(now)

    def per_second(self, now: float) -> float:
        """The current rate."""
        self._forget(now)
        passed = min(max(now - self._began, SHORTEST_SECONDS), WINDOW_SECONDS)
        return sum(bucket.count for bucket in self._buckets) / passed

    def _forget(self, now: float) -> None:
        while self._buckets and now - self._buckets[0].since >= WINDOW_SECONDS:
            self._buckets.popleft()


class CounterRate:
    """The rate of a counter that is read often.

    After a gap it starts again, because the events of the gap would look like a burst.
    """

    def __init__(self) -> None:
        self._rate: Rate | None = None
        self._total = 0
        self._looked_at = 0.0

    def look(self, total: int, now: float) -> None:
        """Record that the counter has this total now."""
        if self._rate is None or now - self._looked_at > SHORTEST_SECONDS:
            self._rate = Rate(now)
        else:
            self._rate.add(increase(self._total, total), now)
        self._total, self._looked_at = total, now

    def per_second(self, now: float) -> float | None:
        """The current rate; None when the counter has not been read lately."""
        if self._rate is None or now - self._looked_at > SHORTEST_SECONDS:
            return None
        return self._rate.per_second(now)
