"""Counts of durations in ticks: tick n ends at 50 ms · 2^(n/4), as the prelude of the scripts counts them.

A percentile is interpolated inside its tick, so it is exact to a few percent at any rate of tasks.
"""

from collections.abc import Mapping
from typing import Final

SMALLEST_TICK_SECONDS: Final = 0.05
TICKS_PER_DOUBLING: Final = 4


def percentile(ticks: Mapping[str, int], share: float) -> float | None:
    """The duration in seconds that this share of the tasks did not exceed; None without tasks."""
    count = sum(ticks.values())
    if not count:
        return None
    wanted, below = share * count, 0
    for tick, tasks in sorted((int(tick), tasks) for tick, tasks in ticks.items()):
        if below + tasks >= wanted:
            inside = (wanted - below) / tasks
            return float(SMALLEST_TICK_SECONDS * 2 ** ((tick - 1 + inside) / TICKS_PER_DOUBLING))
        below += tasks
    return None
