"""A set's whole status, and the events about what has changed in it."""

from collections import Counter
from collections.abc import Container, Mapping, Sequence
from datetime import datetime
from typing import Any

from flotilla_operator.api.model_replica_set import ModelReplicaSetSpec
from flotilla_operator.cluster.writes import Event
from flotilla_operator.controllers.conditions import merged, transitions
from flotilla_operator.controllers.ignored_fields import ignored_fields
from flotilla_operator.controllers.live_objects import live_object
from flotilla_operator.controllers.model_replica_set.act.applied import names_taken
from flotilla_operator.controllers.model_replica_set.decide.decide import Decision
from flotilla_operator.controllers.model_replica_set.reasons import EventReason
from flotilla_operator.controllers.model_replica_set.remembered.failures import backoff_status
from flotilla_operator.controllers.model_replica_set.remembered.moves import attempts_status, rebalance_status
from flotilla_operator.controllers.model_replica_set.remembered.remembered import scaling_status
from flotilla_operator.controllers.model_replica_set.remembered.rollouts import rollout_status
from flotilla_operator.controllers.model_replica_set.tell.facts import Facts
from flotilla_operator.controllers.model_replica_set.tell.judgement import conditions
from flotilla_operator.controllers.model_replica_set.tell.load import load_status
from flotilla_operator.controllers.model_replica_set.tell.news import news_of
from flotilla_operator.controllers.model_replica_set.tell.startups import capacity_status
from flotilla_operator.objects.times import timestamp
from flotilla_operator.replicas.asking import Asking
from flotilla_operator.replicas.backoff import Backoff
from flotilla_operator.replicas.group import Phase, ReplicaGroup
from flotilla_operator.replicas.moves import Rebalance
from flotilla_operator.workloads.devices import accelerator_resource
from flotilla_operator.workloads.engine_pod import engine_selector
from flotilla_operator.workloads.labels import selector_text
from flotilla_operator.workloads.model_replica_set import router_deployment_name, service_url

GROUPS_SHOWN = 50
AGES_SHOWN = 20  # waiting times shown of the groups that are not listed


def _counted(decision: Decision, phase: Phase) -> list[ReplicaGroup]:
    """The groups in a phase, without those that have an ending but are not draining yet."""
    return [
        g for g in decision.step.demand.groups if g.phase is phase and (g.lives or phase is Phase.DRAINING)
    ]


def status_and_events(decision: Decision, now: datetime) -> tuple[dict[str, Any], list[Event]]:
    """The whole status, and the events about what has changed in it."""
    manifest, spec = decision.situation.manifest, decision.situation.me.spec
    judged = conditions(_facts(decision, now))
    before = decision.situation.before.conditions
    generation = manifest["metadata"].get("generation", 0)
    groups = _groups(decision, now)
    counts, ready = _counts(decision), len(_counted(decision, Phase.READY))
    status: dict[str, Any] = {
        "observedGeneration": generation,
        "replicas": sum(counts[phase] for phase in ("gated", "binding", "loading", "ready")),
        "readyReplicas": ready,
        "desiredReplicas": decision.situation.me.replicas,
        "drainingReplicas": counts["draining"],
        "ready": f"{ready}/{decision.situation.me.replicas}",
        "selector": selector_text(engine_selector(decision.situation.me.owner)),
        "url": service_url(decision.situation.me.owner, spec),
        "groups": groups[:GROUPS_SHOWN],
        "moreWaiting": _more_waiting(groups[GROUPS_SHOWN:]),
        "groupCounts": counts,
        "placement": _placement(decision),
        "capacity": capacity_status(decision.situation),
        "backoff": backoff_status(decision.step.demand.backoff),
        "load": load_status(decision.situation.load, spec.slo, decision.situation.before.load),
        "rollout": rollout_status(decision.step.rollout),
        "autoscaling": scaling_status(decision.situation.before.decisions, decision.situation.scaling, now),
        "conditions": merged(before, judged, generation=generation, now=now),
    }
    return status, [*_ready_events(decision), *transitions(before, judged)]


def _facts(decision: Decision, now: datetime) -> Facts:
    situation = decision.situation
    owner = situation.me.owner
    router = situation.existing.get(("Deployment", router_deployment_name(owner)))
    live = tuple(group for group in decision.step.demand.groups if group.lives)
    leaders = {group.leader.name for group in live}
    return Facts(
        wanted=situation.me.replicas,
        spec=situation.me.spec,
        ignored=ignored_fields(ModelReplicaSetSpec, situation.manifest["spec"], "spec"),
        missing=situation.missing,
        ignored_prefix=situation.sizing.ignored_prefix,
        names_taken=names_taken(situation),
        routers_ready=0 if router is None else live_object(router).ready_replicas,
        router_trouble=situation.observed.router_trouble,
        live=live,
        unusable={pod: why for pod, why in situation.observed.load.unusable.items() if pod in leaders},
        waiting=len(decision.step.waiting),
        refusal=decision.step.refusal,
        turnover=decision.step.demand.turnover,
        backoff=_backoff(decision, now),
        rollout=decision.step.rollout,
        asking=decision.step.asking,
        move=_rebalance(decision).current if not decision.paused else None,
        scaling=situation.scaling,
    )


def _backoff(decision: Decision, now: datetime) -> Backoff | None:
    backoff = decision.step.demand.backoff
    return backoff if backoff is not None and decision.step.waiting and backoff.holds(now) else None


def _groups(decision: Decision, now: datetime) -> list[dict[str, Any]]:
    """Every group with the time its phase began; groups that are not ready come first.

    A group that gets its pods now is still shown as waiting, so that it keeps its name if they are
    refused.
    """
    before = decision.situation.me.memory.listed

    def since(name: str, phase: Phase, began: datetime | None = None) -> str:
        held = before.get(name)
        if held is not None and held.phase is phase and held.since is not None:
            return timestamp(held.since)
        return timestamp(began or now)

    entries = [
        {
            "name": group.name,
            "phase": str(group.phase),
            "nodes": list(group.nodes),
            "domain": _domain(decision, group),
            "revision": group.revision,
            "sinceTime": since(group.name, group.phase),
        }
        for group in decision.step.demand.groups
    ]
    entries += [
        {
            "name": waiting.name,
            "phase": str(Phase.WAITING),
            "nodes": [],
            "revision": decision.step.demand.revision,
            "sinceTime": since(waiting.name, Phase.WAITING, waiting.since),
        }
        for waiting in decision.step.demand.waiting
    ]
    return sorted(entries, key=lambda entry: _place_in_list(entry, before))


def _domain(decision: Decision, group: ReplicaGroup) -> str | None:
    """The domain of a group of several stages, as LABEL=NAME; the name includes those of the wider levels."""
    if group.stages == 1 or len(group.nodes) < group.stages:
        return None
    domain = decision.situation.around.domain(group.nodes)
    return None if domain is None else f"{domain.level}={domain.name}"


def _place_in_list(entry: Mapping[str, Any], named: Container[str]) -> tuple[bool, str, bool, str]:
    """The sort key: not ready first, then the oldest, then groups that already have a name in the status.

    When there are more groups than the status shows, those that have waited longest keep their names.
    """
    return (entry["phase"] == Phase.READY, entry["sinceTime"], entry["name"] not in named, entry["name"])


def _more_waiting(entries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """How many of the groups that are not listed have waited since which time.

    With too many different times the youngest groups are counted together, under the time of the very
    youngest, so no group appears older than it is.
    """
    counts = Counter(entry["sinceTime"] for entry in entries if entry["phase"] == Phase.WAITING)
    ages = sorted(counts.items())
    youngest = ages[AGES_SHOWN - 1 :]
    if youngest:
        ages = [*ages[: AGES_SHOWN - 1], (youngest[-1][0], sum(count for _, count in youngest))]
    return [{"sinceTime": since, "replicas": count} for since, count in ages]


def _counts(decision: Decision) -> dict[str, int]:
    counts = {phase.value.lower(): len(_counted(decision, phase)) for phase in Phase}
    return {**counts, "waiting": len(decision.step.demand.waiting)}


def _placement(decision: Decision) -> dict[str, Any] | None:
    spec, around = decision.situation.me.spec, decision.situation.around
    if (resource := accelerator_resource(spec)) is None:
        return None
    nodes = [group.nodes for group in decision.step.demand.groups if group.lives]
    score = around.score(nodes, resource, spec.placement.spread_replicas_across)
    refusal = decision.step.refusal
    return {
        "score": score.value,
        "scoreParts": score.parts or None,
        "blocked": [
            {"reason": str(reason), "nodes": count} for reason, count in (refusal.by_count if refusal else ())
        ],
        "message": refusal.message if refusal else None,
        "nodeProvisioning": _node_provisioning(decision.step.asking),
        **rebalance_status(_rebalance(decision)),
    }


def _node_provisioning(asking: Asking | None) -> dict[str, Any] | None:
    if asking is None:
        return None
    done = asking.provisioning
    return attempts_status(done.attempts, placeholders=done.standing, bound=done.bound)


def _rebalance(decision: Decision) -> Rebalance:
    moves = decision.step.rebalancing
    return decision.situation.me.memory.rebalance if moves is None else moves.after


def _ready_events(decision: Decision) -> list[Event]:
    """An event for each group that has become ready since the last status."""
    before = decision.situation.me.memory.listed
    newly: Sequence[ReplicaGroup] = [
        group
        for group in _counted(decision, Phase.READY)
        if group.name in before and before[group.name].phase is not Phase.READY
    ]
    return [
        news_of(group.name, EventReason.GROUP_READY, f" is ready on {', '.join(group.nodes)}")
        for group in newly
    ]
