"""Turns a decision about a set into writes, in the order in which they are needed.

key       the engines' key, with which engines and routers start
guards    the engines' NetworkPolicy and disruption budget, and the Service that names stages, which is
          deleted when the last group of several stages is gone
records   what revisions were made from
leave     whether the API server would take the older spec of a roll-back
endings   the pods of groups that have ended
leaving   drains that begin or are called off, and pods that are proved idle
gates     complete groups that still have gates, because an operator ended too early: gates are removed
pods      the pods of groups that start; they lose their gates when they are complete
router    services, ConfigMap, Deployment and what protects them, after the engines, because a router
          starts faster; a name that is taken is left alone
nodes     placeholders
"""

import math
import secrets
from collections.abc import Callable, Sequence
from datetime import datetime

from flotilla_operator.cluster.writes import Acts, Apply, Create, JsonPatch, Write
from flotilla_operator.controllers.model_replica_set.act.applied import applied_objects, names_nobody_asks_for
from flotilla_operator.controllers.model_replica_set.act.dry_runs import dry_runs
from flotilla_operator.controllers.model_replica_set.act.ended import ending_deletes
from flotilla_operator.controllers.model_replica_set.act.leaving import departure_writes
from flotilla_operator.controllers.model_replica_set.act.placeholders import placeholder_writes
from flotilla_operator.controllers.model_replica_set.act.records import record_revisions
from flotilla_operator.controllers.model_replica_set.act.templates import new_template, old_templates
from flotilla_operator.controllers.model_replica_set.act.unserved import deletes_before_starts
from flotilla_operator.controllers.model_replica_set.decide.decide import Decision
from flotilla_operator.controllers.model_replica_set.decide.looks import look_again
from flotilla_operator.controllers.model_replica_set.seen import Situation
from flotilla_operator.controllers.rendered import Rendered
from flotilla_operator.objects.owners import Owner
from flotilla_operator.objects.resources import (
    DEPLOYMENTS,
    PODS,
    SECRETS,
    SERVICES,
    Manifest,
    ObjectRef,
    resource_of,
)
from flotilla_operator.replicas.asking import due_seconds
from flotilla_operator.replicas.group import GroupIdentity, Phase
from flotilla_operator.replicas.leaving.departures import look_again_leaving
from flotilla_operator.workloads.engine_key import engine_key, engine_key_secret
from flotilla_operator.workloads.engine_pod import engine_pods, engines, stages_of
from flotilla_operator.workloads.gate import lifting
from flotilla_operator.workloads.pod_options import field_refused

KEY_BYTES = 32


def new_key() -> str:
    """A key that nobody can guess."""
    return secrets.token_urlsafe(KEY_BYTES)


def act(decision: Decision | None, make_key: Callable[[], str], now: datetime) -> Acts:
    """The writes that lead to what is wanted; `make_key` is called if a key has to be made."""
    if decision is None:
        return Acts()
    if decision.paused:
        return _released(decision, now)
    situation, demand = decision.situation, decision.step.demand
    owner = situation.me.owner
    templates = new_template(situation, demand) if decision.step.started else []
    key = _key_needed(situation)
    objects = applied_objects(situation, pods_to_keep=decision.step.pods_to_keep)
    writes: list[Write] = [
        *_engine_key(situation, make_key),
        *templates,
        *_applies([one for one in objects if _is_of_engines(one, owner)], situation, key),
        *record_revisions(situation, demand, decision.step.rollout),
        *dry_runs(situation, decision.step.rollout, now),
        *ending_deletes(decision.step.ended, situation),
        *departure_writes(demand.turnover, decision.step.departures, situation, now),
        *_lifts(decision, now),
        *_pods(decision, now),
        *_applies([one for one in objects if not _is_of_engines(one, owner)], situation, key),
        *placeholder_writes(decision.step.asking, situation, now),
        *old_templates(situation, demand),
        *names_nobody_asks_for(situation),
    ]
    return Acts(writes=writes, look_again_seconds=_look_again(decision, now))


def needs_of_groups(decision: Decision) -> dict[str, frozenset[ObjectRef]]:
    """Return the refs that each starting group needs, its predecessor's end included."""
    always = refs_needed(decision)
    before = deletes_before_starts(decision.step, decision.situation.me.owner.namespace)
    return {group.name: always | before.get(group.name, frozenset()) for group in decision.step.started}


def refs_needed(decision: Decision) -> frozenset[ObjectRef]:
    """Return the refs that pods need: their key, their device template, and their stages' Service.

    Engines would refuse routers that have another key. Pods without their template would hold room and never
    be bound. Stages without their names would not find each other.
    """
    situation = decision.situation
    owner = situation.me.owner
    templates = new_template(situation, decision.step.demand) if decision.step.started else []
    names = SERVICES.ref(owner.namespace, engines(owner).name)
    named = frozenset({names} if stages_of(situation.me.spec) > 1 else ())
    return _key_needed(situation) | _refs(templates) | named


def _released(decision: Decision, now: datetime) -> Acts:
    """Return the writes of a paused set: it releases its half-bound groups and asks for no nodes."""
    situation = decision.situation
    return Acts(
        writes=[
            *ending_deletes(decision.step.ended, situation),
            *placeholder_writes(decision.step.asking, situation, now),
        ],
        look_again_seconds=look_again(situation, decision.step.demand, decision.step.rollout, (), now),
    )


def _look_again(decision: Decision, now: datetime) -> float:
    moves = decision.step.rebalancing
    return min(
        look_again(
            decision.situation, decision.step.demand, decision.step.rollout, decision.step.started, now
        ),
        look_again_leaving(decision.step.departures),
        due_seconds(decision.step.asking),
        math.inf if moves is None else moves.look_again_seconds,
    )


def _key_needed(situation: Situation) -> frozenset[ObjectRef]:
    """The engines' key, if it has to be made first."""
    owner = situation.me.owner
    missing = situation.observed.engine_key.missing
    return frozenset({SECRETS.ref(owner.namespace, engine_key(owner).name)} if missing else ())


def _engine_key(situation: Situation, make_key: Callable[[], str]) -> list[Create]:
    key = situation.observed.engine_key
    if not key.missing:
        return []
    return [Create(manifest=engine_key_secret(situation.me.owner, make_key(), made_anew=key.made_anew))]


def _lifts(decision: Decision, now: datetime) -> list[JsonPatch]:
    """Remove the gates of complete groups, where an operator ended before it did so.

    Groups whose nodes became unusable have an ending instead. A group that is to leave keeps its gates,
    because it will never serve.
    """
    demand = decision.step.demand
    leaving = {removal.group.name for removal in demand.turnover.removals}
    ready_to_bind = {
        member.name
        for group in demand.groups
        if group.phase is Phase.GATED and group.lives and group.whole and group.name not in leaving
        for member in group.members
        if member.gated
    }
    return [
        JsonPatch(
            ref=PODS.ref(pod["metadata"]["namespace"], pod["metadata"]["name"]),
            resource_version=pod["metadata"]["resourceVersion"],
            operations=lifting(pod, now),
        )
        for pod in sorted(decision.situation.pods, key=lambda pod: str(pod["metadata"]["name"]))
        if pod["metadata"]["name"] in ready_to_bind
    ]


def _applies(objects: Sequence[Rendered], situation: Situation, key: frozenset[ObjectRef]) -> list[Apply]:
    """Deployments need the key: routers started with another one would be refused by the engines."""
    nothing: frozenset[ObjectRef] = frozenset()
    options = situation.me.spec.router.pod
    return [
        Apply(
            manifest=one.manifest,
            parts=one.parts,
            field=field_refused(one.manifest, "spec.router.pod", options),
            needs=key if one.manifest["kind"] == DEPLOYMENTS.kind else nothing,
        )
        for one in objects
    ]


def _is_of_engines(one: Rendered, owner: Owner) -> bool:
    """Whether the object must exist before the engine pods. Routers start faster, so theirs come later."""
    return bool(one.manifest["metadata"]["name"] == engines(owner).name)


def _pods(decision: Decision, now: datetime) -> list[Create | JsonPatch]:
    """Create the pods of each group, then remove their gates.

    The last pod may be bound as soon as it exists, so it needs the others, and with it the gates of the
    others are removed.
    """
    writes: list[Create | JsonPatch] = []
    needed = needs_of_groups(decision)
    for group in decision.step.started:
        needs = needed[group.name]
        *others, last = _rendered(group, decision.situation)
        all_but_last = needs.union(PODS.ref_to(other) for other in others)
        whole = all_but_last | {PODS.ref_to(last)}
        writes += [
            *(Create(manifest=pod, needs=needs) for pod in others),
            Create(manifest=last, needs=all_but_last),
            *(JsonPatch(ref=PODS.ref_to(p), operations=lifting(p, now), needs=whole) for p in others),
        ]
    return writes


def _rendered(group: GroupIdentity, situation: Situation) -> Sequence[Manifest]:
    return engine_pods(situation.me.owner, situation.me.spec, group, situation.rendering.images)


def _refs(creates: Sequence[Create]) -> frozenset[ObjectRef]:
    return frozenset(resource_of(one.manifest).ref_to(one.manifest) for one in creates)
