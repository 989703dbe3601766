"""A fleet's whole status, and the events; unknown figures are left out."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from flotilla_operator.api.fleet_queue import RedisMode
from flotilla_operator.api.fleet_status import OLDER_REVISIONS_SHOWN
from flotilla_operator.cluster.writes import Event
from flotilla_operator.controllers.agent_fleet.decide import Decision
from flotilla_operator.controllers.agent_fleet.facts import Facts
from flotilla_operator.controllers.agent_fleet.figures import figures_status
from flotilla_operator.controllers.agent_fleet.judgement import conditions
from flotilla_operator.controllers.agent_fleet.rollout import RevisionWorkers, Rollout
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
    worker_pods, executor_pods = _ready(observed.workers), _ready(observed.executors)
    status: dict[str, Any] = {
        "observedGeneration": generation,
        "url": workloads.gateway_url(observed.owner, observed.spec.gateway),
        "revision": decision.rollout.revision,
        **_older(decision.rollout),
        "ready": _pods(observed, decision, worker_pods + executor_pods),
        "workers": {"desired": decision.worker_pods.wanted, "ready": worker_pods},
        **_executors(observed, decision, executor_pods),
        **(figures_status(observed.figures, observed.spec) if observed.figures is not None else {}),
        "conditions": merged(before, judged, generation=generation, now=now),
    }
    return status, transitions(before, judged)


def _ready(pods: Mapping[str, RevisionWorkers]) -> int:
    return sum(one.deployment.ready_replicas for one in pods.values())


def _executors(observed: Observed, decision: Decision, ready: int) -> dict[str, Any]:
    executors = decision.worker_pods.executors
    if executors is None and observed.spec.tool_executors is None:
        return {}
    return {"toolExecutors": {"desired": 0 if executors is None else executors.wanted, "ready": ready}}


def _pods(observed: Observed, decision: Decision, started: int) -> str:
    owner, spec, executors = observed.owner, observed.spec, decision.worker_pods.executors
    ready = started + observed.ready_replicas("Deployment", workloads.gateway(owner).name)
    wanted = decision.worker_pods.wanted + spec.gateway.replicas
    wanted += 0 if executors is None else executors.wanted
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
