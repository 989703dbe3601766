"""Computes the fleet's figures of the last hour from the counts per minute in Redis; pure.

Durations are counted in ticks (contract/durations.py).
"""

from collections.abc import Iterable, Mapping
from typing import Final

from flotilla_runtime.contract import FleetStatus, percentile

WINDOW_MINUTES: Final = 60


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
        took_ticks=took,
        busy_seconds={part: milliseconds / 1000 for part, milliseconds in _under(total, "busy:").items()},
    )


def _under(total: Mapping[str, int], prefix: str) -> dict[str, int]:
    return {name.removeprefix(prefix): count for name, count in total.items() if name.startswith(prefix)}
