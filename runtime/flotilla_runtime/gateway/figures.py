"""Computes the fleet's figures of the last hour from the counts per minute in Redis; pure.

Durations are counted in ticks (see the prelude of the scripts): tick n ends at 50 ms · 2^(n/4). A percentile
is interpolated inside its tick, so it is exact to a few percent at any rate of tasks.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from flotilla_runtime.contract import FleetStatus

WINDOW_MINUTES: Final = 60
SMALLEST_TICK_SECONDS: Final = 0.05
TICKS_PER_DOUBLING: Final = 4


def fleet_status(
    *,
    fleet: str,
    waiting: int,
    in_flight: int,
    oldest_waiting_ms: int | None,
    windows: Iterable[Mapping[str, int]],
) -> FleetStatus:
    """The sums of all minutes, and the percentiles."""
    total: dict[str, int] = {}
    for window in windows:
        for name, count in window.items():
            total[name] = total.get(name, 0) + count
    took, waited = _under(total, "took:"), _under(total, "waited:")
    return FleetStatus(
        fleet=fleet,
        waiting=waiting,
        in_flight=in_flight,
        oldest_waiting_seconds=None if oldest_waiting_ms is None else oldest_waiting_ms / 1000,
        ended=_under(total, "reason:"),
        recovered=total.get("recovered", 0),
        steps=total.get("steps", 0),
        tokens=total.get("tokens", 0),
        p50_seconds=percentile(took, 0.5),
        p95_seconds=percentile(took, 0.95),
        wait_p95_seconds=percentile(waited, 0.95),
        busy_seconds={part: milliseconds / 1000 for part, milliseconds in _under(total, "busy:").items()},
    )


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


def _under(total: Mapping[str, int], prefix: str) -> dict[str, int]:
    return {name.removeprefix(prefix): count for name, count in total.items() if name.startswith(prefix)}
