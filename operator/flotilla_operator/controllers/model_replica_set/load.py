"""`status.load`: what the agents of a set's routers report together, told so that noise writes nothing.

Requests that wait and run are told as they are. Conversations and the share of good answers move with every
request, so what was told stays until the figure has left its neighbourhood. Arrivals, goodput and the use of
the KV cache are left out: agents tell answers by replica, which go when the replica goes, and so no rate.
"""

from collections.abc import Mapping
from typing import Any

from flotilla_operator.api.model_replica_set import Slo
from flotilla_operator.controllers.conditions import rounded
from flotilla_operator.controllers.model_replica_set.evidence import Answers
from flotilla_operator.controllers.model_replica_set.seen import RouterLoad

SESSIONS_SHARE = 0.1  # of the number that was told
ATTAINMENT_STEP = 0.01


def load_status(load: RouterLoad, slo: Slo | None, told: Mapping[str, Any]) -> dict[str, Any] | None:
    """What is known; `told` is what the status says now."""
    if load.waiting is None:
        return None
    found = {
        "waiting": load.waiting,
        "running": load.running,
        "sessions": _sessions(load, told.get("sessions")),
        "attainment": _attainment(load, slo, told.get("attainment")),
    }
    return {name: figure for name, figure in found.items() if figure is not None}


def _sessions(load: RouterLoad, told: int | None) -> int:
    exact = sum(load.sessions.values())
    if told is not None and abs(exact - told) <= told * SESSIONS_SHARE:
        return told
    return int(rounded(exact, 2) or 0)


def _attainment(load: RouterLoad, slo: Slo | None, told: float | None) -> float | None:
    answers = sum(load.answers.values(), Answers())
    if slo is None or (slo.ttft_seconds is None and slo.e2e_seconds is None) or not answers.count:
        return None
    if told is not None and abs(answers.attainment - told) < ATTAINMENT_STEP:
        return told
    return round(answers.attainment, 2)
