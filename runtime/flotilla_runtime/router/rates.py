"""How often something happens, in events a second of the last minute.

Rates and no counters leave the agent: who reads them needs no memory of what was, and nothing that starts
anew (HAProxy, its agent, the operator) makes one negative or huge. Right after the agent's start the minute
is what has passed of it, ten seconds at the least, so that one request is no burst.
"""

from collections import deque
from dataclasses import dataclass

WINDOW_SECONDS = 60.0
SHORTEST_SECONDS = 10.0
BUCKET_SECONDS = 1.0


def increase(before: int, total: int) -> int:
    """What was counted since then; a counter that is lower than before has begun anew."""
    return total - before if total >= before else total


@dataclass(slots=True)
class _Bucket:
    since: float
    count: int = 0


class Rate:
    """Events a second since `began`, at most of the last minute."""

    def __init__(self, began: float) -> None:
        self._began = began
        self._buckets: deque[_Bucket] = deque()

    def add(self, count: int, now: float) -> None:
        """So many happened now."""
        if not self._buckets or now - self._buckets[-1].since >= BUCKET_SECONDS:
            self._buckets.append(_Bucket(since=now))
        self._buckets[-1].count += count
        self._forget(now)

    def per_second(self, now: float) -> float:
        """The rate as of now."""
        self._forget(now)
        passed = min(max(now - self._began, SHORTEST_SECONDS), WINDOW_SECONDS)
        return sum(bucket.count for bucket in self._buckets) / passed

    def _forget(self, now: float) -> None:
        while self._buckets and now - self._buckets[0].since >= WINDOW_SECONDS:
            self._buckets.popleft()


class CounterRate:
    """The rate of a counter that is looked at often. After a gap it begins anew: what came in between would
    else look like a burst.
    """

    def __init__(self) -> None:
        self._rate: Rate | None = None
        self._total = 0
        self._looked_at = 0.0

    def look(self, total: int, now: float) -> None:
        """The counter shows this now."""
        if self._rate is None or now - self._looked_at > SHORTEST_SECONDS:
            self._rate = Rate(now)
        else:
            self._rate.add(increase(self._total, total), now)
        self._total, self._looked_at = total, now

    def per_second(self, now: float) -> float | None:
        """The rate as of now; None for unknown, where nobody has looked for long."""
        if self._rate is None or now - self._looked_at > SHORTEST_SECONDS:
            return None
        return self._rate.per_second(now)
