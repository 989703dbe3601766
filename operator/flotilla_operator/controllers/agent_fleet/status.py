"""A fleet's whole status, from one look at it; figures are rounded, unknown ones left out."""

from datetime import datetime
from typing import Any

from flotilla_operator.api.agent_fleet import RedisMode
from flotilla_operator.cluster.writes import Event
from flotilla_operator.controllers.agent_fleet.judgement import conditions
from flotilla_operator.controllers.agent_fleet.seen import Observed
from flotilla_operator.controllers.conditions import conditions_of, merged, rounded, transitions
from flotilla_operator.workloads import agent_fleet as workloads
from flotilla_runtime import contract

COMPLETED = "Completed"
CANCELLED = "Cancelled"
WINDOW_MINUTES = 60
QUEUE = "Queue"
NOTICEABLE_WAIT_SHARE = 0.1  # tasks that wait for a tenth of their time are held up by something


def status_and_events(observed: Observed, now: datetime) -> tuple[dict[str, Any], list[Event]]:
    """The whole status, and what of it is news."""
    judged = conditions(observed)
    before = conditions_of(observed.manifest)
    generation = observed.manifest["metadata"].get("generation", 0)
    worker_pods = observed.ready_replicas("Deployment", workloads.workers(observed.owner).name)
    status: dict[str, Any] = {
        "observedGeneration": generation,
        "url": workloads.gateway_url(observed.owner),
        "ready": _pods(observed, worker_pods),
        "workers": {"desired": observed.decision.wanted, "ready": worker_pods},
        **(_figures(observed.figures, observed) if observed.figures is not None else {}),
        "conditions": merged(before, judged, generation=generation, now=now),
    }
    return status, transitions(before, judged)


def _pods(observed: Observed, worker_pods: int) -> str:
    owner, spec = observed.owner, observed.spec
    ready = worker_pods + observed.ready_replicas("Deployment", workloads.gateway(owner).name)
    wanted = observed.decision.wanted + spec.gateway.replicas
    if spec.queue.redis.mode is RedisMode.MANAGED:
        ready += observed.ready_replicas("StatefulSet", workloads.redis(owner).name)
        wanted += 1
    return f"{ready}/{wanted}"


def _figures(figures: contract.FleetStatus, observed: Observed) -> dict[str, Any]:
    completed = figures.ended.get(COMPLETED, 0)
    ended = sum(figures.ended.values())
    judged = ended - figures.ended.get(CANCELLED, 0)
    return {
        "tasks": {
            "waiting": figures.waiting,
            "running": figures.in_flight,
            "succeeded1h": completed,
            "failed1h": judged - completed,
            "recovered1h": figures.recovered,
            "unknownEffects": figures.unknown_effects,
        },
        "latency": {
            "p50Seconds": rounded(figures.p50_seconds, 2),
            "p95Seconds": rounded(figures.p95_seconds, 2),
            "waitP95Seconds": rounded(figures.wait_p95_seconds, 2),
        },
        "goodputPerMinute": rounded(completed / WINDOW_MINUTES),
        "successRate": rounded(completed / judged) if judged else None,
        "tokensPerTask": rounded(figures.tokens / ended) if ended else None,
        "bottleneck": bottleneck(figures, observed),
    }


def bottleneck(figures: contract.FleetStatus, observed: Observed) -> str:
    """What to have more of, judged from where the time of the last hour's tasks went.

    Nothing, while no task waits and none waited noticeably. Workers, when there are as many as there may be
    and all their places are taken. Else the model or index that the workers spent most of their time on.
    """
    total = sum(figures.busy_seconds.values())
    waited = figures.busy_seconds.get(QUEUE, 0.0)
    if not figures.waiting and (not total or waited < NOTICEABLE_WAIT_SHARE * total):
        return "None"
    workers = observed.spec.workers
    full = figures.in_flight >= workers.max_replicas * workers.concurrency
    called = {part: spent for part, spent in figures.busy_seconds.items() if part != QUEUE}
    if full or not called:
        return "Workers"
    return max(sorted(called), key=lambda part: called[part])
