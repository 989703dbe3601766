"""`status.load`: what the agents of a set's routers report together, reported so that noise causes no write.

The numbers of waiting and running requests are shown as they are. The other figures change with every
request, so the shown value stays until the figure has clearly left it. For a rate, that means by more than
chance explains when callers arrive independently of each other.
"""

from collections.abc import Mapping
from math import sqrt
from typing import Any

from flotilla_operator.api.model_replica_set import Slo
from flotilla_operator.controllers.conditions import rounded
from flotilla_operator.replicas.facts import RouterLoad
from flotilla_operator.replicas.revisions.answers import Answers

SESSIONS_SHARE = 0.1  # of the shown number
ATTAINMENT_STEP = 0.01
RATE_SHARE = 0.1
RATE_DEVIATIONS = 2.0
RATE_WINDOW_SECONDS = 60.0  # the time over which routers count
KV_USAGE_STEP = 0.05


def load_status(load: RouterLoad, slo: Slo | None, told: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the known figures of the load; `told` is the load that the status shows now."""
    if load.waiting is None:
        return None
    kept_per_second = load.kept_per_second if _promises(slo) else None
    found = {
        "waiting": load.waiting,
        "running": load.running,
        "arrivalPerSecond": _rate(load.arrivals_per_second, told.get("arrivalPerSecond")),
        "goodputPerSecond": _rate(kept_per_second, told.get("goodputPerSecond")),
        "attainment": _attainment(load, slo, told.get("attainment")),
        "kvUsage": _near(load.kv_usage, told.get("kvUsage"), KV_USAGE_STEP),
        "sessions": _sessions(load, told.get("sessions")),
    }
    return {name: figure for name, figure in found.items() if figure is not None}


def _sessions(load: RouterLoad, told: int | None) -> int:
    exact = sum(load.sessions.values())
    if told is not None and abs(exact - told) <= told * SESSIONS_SHARE:
        return told
    return int(rounded(exact, 2) or 0)


def _rate(exact: float | None, told: float | None) -> float | None:
    """A rate of zero is shown at once; otherwise the last few requests would hide it for ever."""
    if not exact or told is None:
        return rounded(exact, 2)
    chance = RATE_DEVIATIONS * sqrt(told / RATE_WINDOW_SECONDS)
    return told if abs(exact - told) <= max(told * RATE_SHARE, chance) else rounded(exact, 2)


def _attainment(load: RouterLoad, slo: Slo | None, told: float | None) -> float | None:
    answers = sum(load.answers.values(), Answers())
    if not _promises(slo) or not answers.count:
        return None
    return _near(answers.attainment, told, ATTAINMENT_STEP)


def _promises(slo: Slo | None) -> bool:
    return slo is not None and (slo.ttft_seconds is not None or slo.e2e_seconds is not None)


def _near(exact: float | None, told: float | None, step: float) -> float | None:
    if exact is None:
        return None
    return told if told is not None and abs(exact - told) < step else round(exact, 2)
