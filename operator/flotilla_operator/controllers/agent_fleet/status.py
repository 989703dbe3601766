"""A fleet's whole status, and the events; unknown figures are left out."""

from datetime import datetime
from typing import Any

from flotilla_operator.api.fleet_queue import RedisMode
from flotilla_operator.api.fleet_status import OLDER_REVISIONS_SHOWN
from flotilla_operator.cluster.writes import Event
from flotilla_operator.controllers.agent_fleet.decide import Decision
from flotilla_operator.controllers.agent_fleet.facts import Facts
from flotilla_operator.controllers.agent_fleet.figures import figures_status
from flotilla_operator.controllers.agent_fleet.judgement import conditions
from flotilla_operator.controllers.agent_fleet.rollout import Rollout
from flotilla_operator.controllers.agent_fleet.seen import Observed
from flotilla_operator.controllers.conditions import merged, transitions
from flotilla_operator.objects.times import timestamp
from flotilla_operator.workloads import agent_fleet as workloads


def status_and_events(
    observed: Observed, decision: Decision, now: datetime
) -> tuple[dict[str, Any], list[Event]]:
    """The whole status, and an event for each condition that changed."""
    judged = conditions(Facts(observed=observed, decision=decision))
    before = observed.remembered.conditions
    generation = observed.manifest["metadata"].get("generation", 0)
    worker_pods = sum(one.deployment.ready_replicas for one in observed.workers.values())
    status: dict[str, Any] = {
        "observedGeneration": generation,
        "url": workloads.gateway_url(observed.owner, observed.spec.gateway),
        "revision": decision.rollout.revision,
        **_older(decision.rollout),
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


def _older(rollout: Rollout) -> dict[str, Any]:
    shown = [
        {
            "revision": one.shown_as,
            "tasks": one.tasks,
            "sinceTime": timestamp(one.since),
            "untilTime": timestamp(one.until),
        }
        for one in rollout.older[:OLDER_REVISIONS_SHOWN]
    ]
    return {"olderRevisions": shown} if shown else {}
