"""What each revision was made from, kept as ControllerRevisions that the set owns.

The record holds what of the spec makes a revision, so a set can go on with its last good revision while its
spec asks for one that has failed. Everything else (replicas, router, drain, …) is always that of the spec.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import ValidationError

from flotilla_operator.api.model_replica_set import ModelReplicaSetSpec
from flotilla_operator.cluster.caches import Caches
from flotilla_operator.cluster.resources import CONTROLLER_REVISIONS
from flotilla_operator.cluster.writes import Create, Delete, Manifest, Write
from flotilla_operator.workloads.engine_pod import engines
from flotilla_operator.workloads.labels import Owner
from flotilla_operator.workloads.revision import recorded_parts, with_recorded_parts
from flotilla_runtime import contract


@dataclass(frozen=True, slots=True, kw_only=True)
class RolledBack:
    """The revision that runs instead of the one that failed."""

    good: str
    failed: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A revision that is on record."""

    name: str
    uid: str


def records_of(caches: Caches, uid: str) -> Mapping[str, Record]:
    """The set's records by revision."""
    return {
        record["metadata"]["labels"][contract.LABEL_REVISION]: Record(
            name=record["metadata"]["name"], uid=record["metadata"]["uid"]
        )
        for record in caches.owned(CONTROLLER_REVISIONS, uid)
    }


def restored(
    spec: ModelReplicaSetSpec, manifest: Manifest, revision: str, caches: Caches
) -> tuple[ModelReplicaSetSpec, RolledBack | None]:
    """The spec to act on: the user's, or with the parts of the last good revision where this one failed."""
    rollout = (manifest.get("status") or {}).get("rollout") or {}
    good = rollout.get("goodRevision")
    if not spec.update.rollback or rollout.get("failedRevision") != revision or not good:
        return spec, None
    metadata = manifest["metadata"]
    record = caches.get(CONTROLLER_REVISIONS, metadata["namespace"], record_name(metadata["name"], good))
    if record is None:
        return spec, None
    try:
        return with_recorded_parts(spec, record["data"]), RolledBack(good=good, failed=revision)
    except ValidationError:
        return spec, None


def record_name(set_name: str, revision: str) -> str:
    """The name of a revision's record."""
    return f"{set_name}-{revision}"


def record(owner: Owner, spec: ModelReplicaSetSpec, revision: str, number: int) -> Manifest:
    """The record of a revision."""
    metadata = engines(owner).metadata()
    labels = {**metadata["labels"], contract.LABEL_REVISION: revision}
    return {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {**metadata, "name": record_name(owner.name, revision), "labels": labels},
        "data": recorded_parts(spec),
        "revision": number,
    }


def record_writes(
    owner: Owner,
    spec: ModelReplicaSetSpec,
    revision: str,
    *,
    number: int,
    held: Mapping[str, Record],
    needed: frozenset[str],
) -> list[Write]:
    """Put the running revision on record, and drop the records that nothing needs any more."""
    writes: list[Write] = []
    if revision not in held:
        writes.append(Create(manifest=record(owner, spec, revision, number)))
    writes += [
        Delete(ref=CONTROLLER_REVISIONS.ref(owner.namespace, old.name), uid=old.uid)
        for name, old in sorted(held.items())
        if name not in needed | {revision}
    ]
    return writes
