"""Makes the status, its conditions and the events of a decision and of the writes that were refused."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from flotilla_operator.cluster.writes import Event, EventType, Told
from flotilla_operator.controllers.failures import corrected
from flotilla_operator.controllers.model_replica_set.act.act import needs_of_groups, refs_needed
from flotilla_operator.controllers.model_replica_set.act.leaving import departures_rest_on
from flotilla_operator.controllers.model_replica_set.decide.decide import Decision
from flotilla_operator.controllers.model_replica_set.reasons import ConditionType, EventReason
from flotilla_operator.controllers.model_replica_set.remembered.failures import refused_pods_status
from flotilla_operator.controllers.model_replica_set.seen import Situation
from flotilla_operator.controllers.model_replica_set.tell.group_news import (
    departure_events,
    ending_events,
    move_events,
    started_event,
)
from flotilla_operator.controllers.model_replica_set.tell.status import status_and_events
from flotilla_operator.objects.refused_writes import RefusedWrite, WriteReason
from flotilla_operator.objects.resources import MODEL_REPLICA_SETS, PODS, Manifest, ObjectRef
from flotilla_operator.replicas.backoff import RefusedPods
from flotilla_operator.workloads.engine_key import engine_key
from flotilla_operator.workloads.engine_pod import stages_of
from flotilla_operator.workloads.stages import pod_name_of

JUDGEMENTS = frozenset({WriteReason.FORBIDDEN, WriteReason.INVALID})


def tell(
    decision: Decision | None, refusals: Sequence[RefusedWrite], manifest: Manifest, now: datetime
) -> Told:
    """The status and the events, corrected by the writes that were refused."""
    if decision is None:
        return corrected(Told(), refusals, manifest, now)
    decision, refusals = answered(decision, refusals, manifest, now)
    status, events = status_and_events(decision, now)
    if decision.paused:
        refused = refused_pods_status(decision.situation.me.memory.refusal)
        told = Told(
            status={**status, "refusedPods": refused}, events=[*ending_events(decision.step.ended), *events]
        )
        return corrected(told, refusals, manifest, now)
    resting = rests_on(decision)
    refused_now = refused_pods(decision, resting.get(ConditionType.PLACED, frozenset()), refusals)
    told = Told(
        status={**status, "refusedPods": refused_pods_status(refused_now)},
        events=[
            *_key_events(decision.situation),
            *ending_events(decision.step.ended),
            *(started_event(group) for group in decision.step.started),
            *departure_events(decision.step.demand.turnover, decision.step.departures),
            *move_events(decision.step.rebalancing),
            *events,
        ],
    )
    return corrected(told, refusals, manifest, now, resting)


def answered(
    decision: Decision, refusals: Sequence[RefusedWrite], manifest: Manifest, now: datetime
) -> tuple[Decision, Sequence[RefusedWrite]]:
    """The decision with the API server's answer to the dry run of an older spec, and all other refusals.

    A refusal is told of the update, and holds up nothing else. Without an answer the dry run is a write that
    failed, and is tried again as one.
    """
    rollout = decision.step.rollout
    if decision.paused or decision.situation.me.facts.good is None or not rollout.may_ask_leave(now):
        return decision, refusals
    me = MODEL_REPLICA_SETS.ref_to(manifest)
    of_dry_run = next((refusal for refusal in refusals if refusal.ref == me), None)
    if of_dry_run is not None and of_dry_run.reason not in JUDGEMENTS:
        return decision, refusals
    said = "" if of_dry_run is None else of_dry_run.message or str(of_dry_run.reason)
    step = replace(decision.step, rollout=rollout.answered(said, now))
    return replace(decision, step=step), [one for one in refusals if one is not of_dry_run]


def refused_pods(
    decision: Decision, tried: frozenset[ObjectRef], refusals: Sequence[RefusedWrite]
) -> RefusedPods | None:
    """Return the refusal to remember: that of now, else the last one while groups wait untried.

    `tried` are the writes that placing the groups depends on.
    """
    now = next((refusal for refusal in refusals if refusal.ref in tried), None)
    if now is not None:
        return RefusedPods(reason=now.reason, message=f"{now.ref.plural}/{now.ref.name}: {now.message}")
    before = decision.situation.me.memory.refusal
    if before is None or decision.step.started or not decision.step.waiting or decision.situation.missing:
        return None
    return replace(before, counted=True)


def rests_on(decision: Decision) -> Mapping[str, frozenset[ObjectRef]]:
    """The writes on which conditions and the events about groups depend.

    A group is placed when its pods could be written, and the set is when every pod could. A deletion that was
    refused, without which a group does not start, is no failure to place it: it is tried again at once.
    """
    situation = decision.situation
    leaving = departures_rest_on(decision.step.demand.turnover, decision.step.departures, situation)
    if not decision.step.started:
        return leaving
    needs, owner, stages = refs_needed(decision), situation.me.owner, range(stages_of(situation.me.spec))
    pods = {
        group.name: frozenset(PODS.ref(owner.namespace, pod_name_of(group.name, stage)) for stage in stages)
        for group in decision.step.started
    }
    started = {name: pods[name] | needed for name, needed in needs_of_groups(decision).items()}
    return {**started, ConditionType.PLACED: needs.union(*pods.values()), **leaving}


def _key_events(situation: Situation) -> list[Event]:
    key = situation.observed.engine_key
    if not key.lost:
        return []
    note = (
        f"the Secret {engine_key(situation.me.owner).name} was missing; the operator makes a new key and "
        "replaces routers and replicas; until they are replaced, requests may be answered with 503"
    )
    return [Event(type=EventType.WARNING, reason=EventReason.ENGINE_KEY_LOST, note=note)]
