"""Keeps what each revision was made from, as ControllerRevisions that the set owns.

A record holds the part of the spec that makes a revision, so a set can run its last good revision while its
spec asks for one that has failed. Everything else (replicas, router, drain, …) always comes from the current
spec.

A new engines' key makes a new revision too, because replicas with the old key can serve nobody. Going back
after the key has changed therefore does not bring back the old replicas: it makes a revision of the good
one's parts and the present key. When that equals the failed revision, there is no way back.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from flotilla_operator.api.annotations import ANNOTATION_REFRESH
from flotilla_operator.api.model_replica_set import ModelReplicaSetSpec
from flotilla_operator.cluster.writes import Create, Delete, Write
from flotilla_operator.controllers.model_replica_set.observe.recorded import Record, record_name
from flotilla_operator.controllers.model_replica_set.seen import Situation
from flotilla_operator.objects.owners import Owner
from flotilla_operator.objects.resources import CONTROLLER_REVISIONS, Manifest
from flotilla_operator.replicas.demand import Demand
from flotilla_operator.replicas.revisions.rollout import Rollout
from flotilla_operator.workloads.engine_pod import engines
from flotilla_operator.workloads.revision import recorded_parts
from flotilla_operator.workloads.router import ANNOTATION_ENGINE_KEY_MADE
from flotilla_runtime import contract


@dataclass(frozen=True, slots=True, kw_only=True)
class Making:
    """A revision to be recorded: its number, its spec, and the marks that its pods were made with."""

    revision: str
    number: int
    spec: ModelReplicaSetSpec
    refresh: str = ""
    key_made_anew: str = ""


def record(owner: Owner, made: Making) -> Manifest:
    """The record of a revision."""
    metadata = engines(owner).metadata()
    marks = {ANNOTATION_REFRESH: made.refresh, ANNOTATION_ENGINE_KEY_MADE: made.key_made_anew}
    annotations = {name: value for name, value in marks.items() if value}
    labels = {**metadata["labels"], contract.LABEL_REVISION: made.revision}
    return {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {
            **metadata,
            "name": record_name(owner.name, made.revision),
            "labels": labels,
            **({"annotations": annotations} if annotations else {}),
        },
        "data": recorded_parts(made.spec),
        "revision": made.number,
    }


def record_writes(
    owner: Owner, running: Making, *, held: Mapping[str, Record], needed: frozenset[str]
) -> list[Write]:
    """Record the running revision, and delete the records that are no longer needed."""
    writes: list[Write] = []
    if running.revision not in held:
        writes.append(Create(manifest=record(owner, running)))
    writes += [
        Delete(ref=CONTROLLER_REVISIONS.ref(owner.namespace, old.name), uid=old.uid)
        for name, old in sorted(held.items())
        if name not in needed | {running.revision}
    ]
    return writes


def record_revisions(situation: Situation, demand: Demand, rollout: Rollout) -> list[Write]:
    """Record the running revision, and delete records that neither a group nor a rollback needs."""
    me = situation.me
    needed = {rollout.good, rollout.failed, rollout.revision, *(group.revision for group in demand.groups)}
    return record_writes(
        me.owner,
        Making(
            revision=demand.revision,
            number=situation.manifest["metadata"].get("generation", 1),
            spec=me.spec,
            refresh=me.refresh,
            key_made_anew=me.key_made_anew,
        ),
        held=situation.observed.records,
        needed=frozenset(needed),
    )
