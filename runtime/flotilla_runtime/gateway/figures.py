"""Computes the fleet's figures from what there is now, and the counts per minute of the last hour; pure.

Durations are counted in ticks (contract/durations.py).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from flotilla_runtime.agent.budgets import NANO_PER_UNIT
from flotilla_runtime.agent.store.redis_facts import MIB, RedisFacts
from flotilla_runtime.agent.tasks import StoreFigures
from flotilla_runtime.contract import (
    CACHE_HIT,
    CACHE_MISS,
    FleetStatus,
    ModelCapacity,
    ModelDemand,
    percentile,
)
from flotilla_runtime.gateway.admission import MODEL, admitted, measured_of

WINDOW_MINUTES: Final = 60


def fleet_status(
    *,
    fleet: str,
    now: StoreFigures,
    windows: Iterable[Mapping[str, int]],
    redis: RedisFacts,
    max_stored_mib: float | None = None,
    models: Iterable[str] = (),
    capacity: Sequence[ModelCapacity] = (),
) -> FleetStatus:
    """Return the status of a fleet: its present counts, the sums of all minutes, and the percentiles.

    `models` are those of the fleet. One that no task has called yet is told too, since tasks wait for it.
    With `max_stored_mib` the limit is for what the fleet stores, without it for all that Redis holds.
    """
    minutes, total = list(windows), dict[str, int]()
    for window in minutes:
        for name, count in window.items():
            total[name] = total.get(name, 0) + count
    took, waited, ended = _under(total, "took:"), _under(total, "waited:"), _under(total, "reason:")
    called = {part.removeprefix(MODEL) for part in _under(total, "calls:") if part.startswith(MODEL)}
    return FleetStatus(
        fleet=fleet,
        waiting=now.waiting,
        in_flight=now.running,
        suspended=now.suspended,
        unknown_effects=now.unknown_effects,
        waiting_for_approval=now.waiting_for_approval,
        dead_letters=now.dead_letters,
        oldest_waiting_seconds=None if now.oldest_waiting_ms is None else now.oldest_waiting_ms / 1000,
        ended=ended,
        recovered=total.get("recovered", 0),
        steps=total.get("steps", 0),
        tokens=total.get("tokens", 0),
        cost_usd=None if total.get("unpriced") else total.get("nano", 0) / NANO_PER_UNIT,
        p50_seconds=percentile(took, 0.5),
        p95_seconds=percentile(took, 0.95),
        wait_p95_seconds=percentile(waited, 0.95),
        took_ticks=took,
        busy_seconds={part: milliseconds / 1000 for part, milliseconds in _under(total, "busy:").items()},
        cache_hits=total.get(f"calls:{CACHE_HIT}", 0),
        cache_misses=total.get(f"calls:{CACHE_MISS}", 0),
        models={
            model: model_demand(model, now, total, sum(ended.values()))
            for model in sorted({*models, *now.calls, *called})
        },
        revisions=dict(now.counts),
        workers=dict(now.workers),
        used_mib=redis.used_mib if max_stored_mib is None else now.stored_bytes / MIB,
        limit_mib=redis.limit_mib,
        replicas=redis.replicas,
        store_problem=redis.problem,
        admission=admitted(capacity, measured_of(minutes)),
    )


def model_demand(model: str, now: StoreFigures, total: Mapping[str, int], ended: int) -> ModelDemand:
    """The fleet's demand for a model now, and the means of the last hour; None where there are none."""
    made = total.get(f"calls:{MODEL}{model}", 0)
    return ModelDemand(
        calls=now.calls.get(model, 0),
        waiting_tasks=now.waiting,
        tasks_between_calls=max(0, now.running - now.callers.get(model, 0)),
        calls_per_task=made / ended if ended and made else None,
        seconds_per_call=total.get(f"busy:{MODEL}{model}", 0) / 1000 / made if made else None,
    )


def _under(total: Mapping[str, int], prefix: str) -> dict[str, int]:
    return {name.removeprefix(prefix): count for name, count in total.items() if name.startswith(prefix)}
