"""A fleet's whole status, and the events; figures are rounded, unknown ones left out."""

from datetime import datetime
from typing import Any

from flotilla_operator.api.agent_fleet import AgentFleetSpec, RedisMode
from flotilla_operator.cluster.writes import Event
from flotilla_operator.controllers.agent_fleet.decide import Decision
from flotilla_operator.controllers.agent_fleet.judgement import Facts, conditions
from flotilla_operator.controllers.agent_fleet.seen import Observed
from flotilla_operator.controllers.conditions import merged, rounded, transitions
from flotilla_operator.workloads import agent_fleet as workloads
from flotilla_runtime import contract

COMPLETED = "Completed"
CANCELLED = "Cancelled"
WINDOW_MINUTES = 60
QUEUE = "Queue"
NOTICEABLE_WAIT_SHARE = 0.1  # below a tenth of all task time, waiting in the queue is no bottleneck


def status_and_events(
    observed: Observed, decision: Decision, now: datetime
) -> tuple[dict[str, Any], list[Event]]:
    """The whole status, and an event for each condition that changed."""
    judged = conditions(Facts(observed=observed, decision=decision))
    before = observed.remembered.conditions
    generation = observed.manifest["metadata"].get("generation", 0)
    worker_pods = observed.ready_replicas("Deployment", workloads.workers(observed.owner).name)
    status: dict[str, Any] = {
        "observedGeneration": generation,
        "url": workloads.gateway_url(observed.owner, observed.spec.gateway),
        "ready": _pods(observed, decision, worker_pods),
        "workers": {"desired": decision.worker_pods.wanted, "ready": worker_pods},
        **(figures_status(observed.figures, observed.spec) if observed.figures is not None else {}),
        "conditions": merged(before, judged, generation=generation, now=now),
    }
    return status, transitions(before, judged)


def _pods(observed: Observed, decision: Decision, worker_pods: int) -> str:
    owner, spec = observed.owner, observed.spec
    ready = worker_pods + observed.ready_replicas("Deployment", workloads.gateway(owner).name)
    wanted = decision.worker_pods.wanted + spec.gateway.replicas
    if spec.queue.redis.mode is RedisMode.MANAGED:
        ready += observed.ready_replicas("StatefulSet", workloads.redis(owner).name)
        wanted += 1
    return f"{ready}/{wanted}"


def figures_status(figures: contract.FleetStatus, spec: AgentFleetSpec) -> dict[str, Any]:
    """What the status shows of the gateways' figures."""
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
        "bottleneck": bottleneck(figures, spec),
    }


def bottleneck(figures: contract.FleetStatus, spec: AgentFleetSpec) -> str:
    """What limits the fleet, judged by where the tasks of the last hour spent their time.

    "None" while no task waits and the tasks spent less than a tenth of their time waiting. "Workers" when
    `maxReplicas` workers would all be fully occupied. Otherwise the model or index on which the workers spent
    most of their time.
    """
    total = sum(figures.busy_seconds.values())
    waited = figures.busy_seconds.get(QUEUE, 0.0)
    if not figures.waiting and (not total or waited < NOTICEABLE_WAIT_SHARE * total):
        return "None"
    workers = spec.workers
    full = figures.in_flight >= workers.max_replicas * workers.concurrency
    called = {part: spent for part, spent in figures.busy_seconds.items() if part != QUEUE}
    if full or not called:
        return "Workers"
    return max(sorted(called), key=lambda part: called[part])
