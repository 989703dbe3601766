"""What a plan amounts to: the status, its conditions, and the events of what changed. Rendered from one
value.
"""

from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from flotilla_operator.api.model_replica_set import ModelReplicaSetSpec
from flotilla_operator.cluster.writes import Event, Manifest
from flotilla_operator.controllers.conditions import (
    conditions_of,
    merged,
    timestamp,
    transitions,
)
from flotilla_operator.controllers.ignored_fields import ignored_fields
from flotilla_operator.controllers.model_replica_set.backoff import Backoff
from flotilla_operator.controllers.model_replica_set.demand import Demand, Waiting
from flotilla_operator.controllers.model_replica_set.judgement import Facts, conditions
from flotilla_operator.controllers.model_replica_set.life import Phase, ReplicaGroup
from flotilla_operator.controllers.model_replica_set.load import load_status
from flotilla_operator.controllers.model_replica_set.moves import Move, Rebalance
from flotilla_operator.controllers.model_replica_set.news import news_of
from flotilla_operator.controllers.model_replica_set.placeholders import Asking
from flotilla_operator.controllers.model_replica_set.reasons import EventReason
from flotilla_operator.controllers.model_replica_set.rollout import Rollout
from flotilla_operator.controllers.model_replica_set.scaling import scaling_status
from flotilla_operator.controllers.model_replica_set.seen import Observed
from flotilla_operator.controllers.model_replica_set.startups import capacity_status
from flotilla_operator.placement import Placement, Refusal
from flotilla_operator.workloads.devices import accelerator_resource
from flotilla_operator.workloads.engine_pod import GroupIdentity, engine_selector
from flotilla_operator.workloads.labels import selector_text
from flotilla_operator.workloads.model_replica_set import router_deployment_name, service_url

GROUPS_SHOWN = 50
AGES_SHOWN = 20  # of groups that wait and are not among them


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """A group that gets its pods in this plan."""

    identity: GroupIdentity
    pods: tuple[Manifest, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What was seen and what is done about it."""

    observed: Observed
    demand: Demand
    rollout: Rollout
    names_taken: tuple[str, ...]
    placement: Placement | None = None
    started: tuple[Started, ...] = ()
    waiting: tuple[Waiting, ...] = ()
    asking: Asking | None = None
    rebalance: Rebalance | None = None

    @property
    def refusal(self) -> Refusal | None:
        """Why the first of the waiting groups does not fit."""
        if self.placement is None or not self.waiting:
            return None
        owner = self.observed.me.owner
        return self.placement.refusal_of(f"{owner.namespace}/{owner.name}", self.waiting[0].name)

    @property
    def move(self) -> Move | None:
        """The move of a rebalancing that is being carried out."""
        return self.rebalance.current if self.rebalance else None

    def counted(self, phase: Phase) -> list[ReplicaGroup]:
        """The groups in a phase, those that must go and are not going yet left out."""
        return [g for g in self.demand.groups if g.phase is phase and (g.lives or phase is Phase.DRAINING)]

    @property
    def ready(self) -> int:
        """How many groups serve."""
        return len(self.counted(Phase.READY))


def status_and_events(outcome: Outcome, now: datetime) -> tuple[dict[str, Any], list[Event]]:
    """The whole status, and what of it is news."""
    manifest, spec = outcome.observed.me.manifest, outcome.observed.me.spec
    judged = conditions(_facts(outcome, now))
    before = conditions_of(manifest)
    generation = manifest["metadata"].get("generation", 0)
    groups = _groups(outcome, now)
    counts = _counts(outcome)
    status: dict[str, Any] = {
        "observedGeneration": generation,
        "replicas": sum(counts[phase] for phase in ("gated", "binding", "loading", "ready")),
        "readyReplicas": outcome.ready,
        "desiredReplicas": spec.replicas,
        "drainingReplicas": counts["draining"],
        "ready": f"{outcome.ready}/{spec.replicas}",
        "selector": selector_text(engine_selector(outcome.observed.me.owner)),
        "url": service_url(outcome.observed.me.owner, spec),
        "groups": groups[:GROUPS_SHOWN],
        "moreWaiting": _more_waiting(groups[GROUPS_SHOWN:]),
        "groupCounts": counts,
        "placement": _placement(outcome),
        "capacity": capacity_status(outcome.observed),
        "backoff": outcome.demand.backoff.manifest() if outcome.demand.backoff else None,
        "load": load_status(
            outcome.observed.load, spec.slo, (manifest.get("status") or {}).get("load") or {}
        ),
        "rollout": outcome.rollout.status,
        "autoscaling": scaling_status(manifest, outcome.observed.scaling, now),
        "conditions": merged(before, judged, generation=generation, now=now),
    }
    return status, [*_ready_events(outcome), *transitions(before, judged)]


def _facts(outcome: Outcome, now: datetime) -> Facts:
    observed = outcome.observed
    owner = observed.me.owner
    return Facts(
        spec=observed.me.spec,
        ignored=ignored_fields(ModelReplicaSetSpec, observed.me.manifest["spec"], "spec"),
        missing=observed.missing,
        ignored_prefix=observed.sizing.ignored_prefix,
        names_taken=outcome.names_taken,
        router=observed.existing.get(("Deployment", router_deployment_name(owner))),
        router_trouble=observed.router_trouble,
        live=tuple(group for group in outcome.demand.groups if group.lives),
        waiting=len(outcome.waiting),
        refusal=outcome.refusal,
        turnover=outcome.demand.turnover,
        backoff=_backoff(outcome, now),
        rollout=outcome.rollout,
        asking=outcome.asking,
        move=outcome.move,
        scaling=observed.scaling,
    )


def _backoff(outcome: Outcome, now: datetime) -> Backoff | None:
    backoff = outcome.demand.backoff
    return backoff if backoff is not None and outcome.waiting and backoff.holds(now) else None


def _groups(outcome: Outcome, now: datetime) -> list[dict[str, Any]]:
    """Every group, those that are not ready first, each with the time its phase began.

    A group that gets its pod in this very plan still waits: if the server refuses the pod, it keeps its name.
    """
    before = {
        entry["name"]: entry
        for entry in (outcome.observed.me.manifest.get("status") or {}).get("groups") or ()
    }

    def since(name: str, phase: Phase, began: datetime | None = None) -> str:
        held = before.get(name)
        if held is not None and held.get("phase") == phase and held.get("sinceTime"):
            return str(held["sinceTime"])
        return timestamp(began or now)

    entries = [
        {
            "name": group.name,
            "phase": str(group.phase),
            "nodes": list(group.nodes),
            "domain": _domain(outcome, group),
            "revision": group.revision,
            "sinceTime": since(group.name, group.phase),
        }
        for group in outcome.demand.groups
    ]
    entries += [
        {
            "name": waiting.name,
            "phase": str(Phase.WAITING),
            "nodes": [],
            "revision": outcome.demand.revision,
            "sinceTime": since(waiting.name, Phase.WAITING, waiting.since),
        }
        for waiting in outcome.demand.waiting
    ]
    return sorted(entries, key=lambda entry: _place_in_list(entry, before))


def _domain(outcome: Outcome, group: ReplicaGroup) -> str | None:
    """The domain of a group of several stages: the level's label, and the names from the widest level on."""
    if group.stages == 1 or len(group.nodes) < group.stages:
        return None
    domain = outcome.observed.around.domain(group.nodes)
    return None if domain is None else f"{domain.level}={domain.name}"


def _place_in_list(entry: Mapping[str, Any], named: Container[str]) -> tuple[bool, str, bool, str]:
    """Not ready first, then the oldest: of more groups than are shown, those that wait longest keep their
    names, and of equals those that have one.
    """
    return (entry["phase"] == Phase.READY, entry["sinceTime"], entry["name"] not in named, entry["name"])


def _more_waiting(entries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """How many of the groups that are not shown wait since when. The youngest of too many different times are
    taken together, and counted as the youngest of them: nobody gets older than it is.
    """
    counts = Counter(entry["sinceTime"] for entry in entries if entry["phase"] == Phase.WAITING)
    ages = sorted(counts.items())
    youngest = ages[AGES_SHOWN - 1 :]
    if youngest:
        ages = [*ages[: AGES_SHOWN - 1], (youngest[-1][0], sum(count for _, count in youngest))]
    return [{"sinceTime": since, "replicas": count} for since, count in ages]


def _counts(outcome: Outcome) -> dict[str, int]:
    counts = {phase.value.lower(): len(outcome.counted(phase)) for phase in Phase}
    return {**counts, "waiting": len(outcome.demand.waiting)}


def _placement(outcome: Outcome) -> dict[str, Any] | None:
    spec, around = outcome.observed.me.spec, outcome.observed.around
    if (resource := accelerator_resource(spec)) is None:
        return None
    nodes = [group.nodes for group in outcome.demand.groups if group.lives]
    score = around.score(nodes, resource, spec.placement.spread_replicas_across)
    refusal = outcome.refusal
    return {
        "score": score.value,
        "scoreParts": score.parts or None,
        "blocked": [
            {"reason": str(reason), "nodes": count} for reason, count in (refusal.by_count if refusal else ())
        ],
        "message": refusal.message if refusal else None,
        "nodeProvisioning": outcome.asking.status if outcome.asking else None,
        **(outcome.rebalance or Rebalance.of(outcome.observed.me.manifest)).status,
    }


def _ready_events(outcome: Outcome) -> list[Event]:
    """A group that became ready since the last status."""
    before: Mapping[str, str] = {
        entry["name"]: entry["phase"]
        for entry in (outcome.observed.me.manifest.get("status") or {}).get("groups") or ()
    }
    newly: Sequence[ReplicaGroup] = [
        group for group in outcome.counted(Phase.READY) if before.get(group.name) not in (None, Phase.READY)
    ]
    return [
        news_of(group.name, EventReason.GROUP_READY, f" serves from {', '.join(group.nodes)}")
        for group in newly
    ]
