"""What each revision was made from, kept as ControllerRevisions that the set owns.

The record holds what of the spec makes a revision, so a set can go on with its last good revision while its
spec asks for one that has failed. Everything else (replicas, router, drain, …) is always that of the spec.

A revision counts the engines' key, too, where it was made anew, since replicas with the old one serve nobody.
So the way back over a new key is no return to the old replicas: it is a revision of the good one's parts and
the key of now. Where that is the failed revision itself, there is no way back.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import ValidationError

from flotilla_operator.api.annotations import ANNOTATION_REFRESH, refresh_of
from flotilla_operator.api.model_replica_set import ModelReplicaSetSpec
from flotilla_operator.cluster.caches import Caches
from flotilla_operator.cluster.resources import CONTROLLER_REVISIONS
from flotilla_operator.cluster.writes import Create, Delete, Manifest, Write
from flotilla_operator.workloads.engine_pod import engines
from flotilla_operator.workloads.labels import Owner
from flotilla_operator.workloads.revision import recorded_parts, revision_of, with_recorded_parts
from flotilla_operator.workloads.router import ANNOTATION_ENGINE_KEY_MADE
from flotilla_runtime import contract


@dataclass(frozen=True, slots=True, kw_only=True)
class RolledBack:
    """The revision that runs instead of the one that failed, and the `refresh` it was made with."""

    good: str
    failed: str
    refresh: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WayBack:
    """What a set would run if its newest revision failed."""

    spec: ModelReplicaSetSpec
    revision: str
    refresh: str = ""


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


def marked_revision(spec: ModelReplicaSetSpec, refresh: str, key_made_anew: str) -> str:
    """The revision of a spec with what else asks for new pods."""
    return revision_of(spec, refresh=" ".join(filter(None, (refresh, key_made_anew))))


def good_revision(manifest: Manifest) -> str:
    """The last revision that was good, empty before the first."""
    return _rollout(manifest).get("goodRevision") or ""


def has_been_ready(manifest: Manifest, revision: str) -> bool:
    """Whether a replica of this revision was ready since the set was changed to it."""
    held = _rollout(manifest)
    return held.get("revision") == revision and bool(held.get("mostReadyReplicas"))


def way_back(
    spec: ModelReplicaSetSpec, manifest: Manifest, key_made_anew: str, caches: Caches
) -> WayBack | None:
    """Where the set could go back to, as far as its record can still be read."""
    good = good_revision(manifest)
    held, parts = _record(manifest, good, caches), recorded_spec(spec, manifest, good, caches)
    if held is None or parts is None:
        return None
    refresh, key_then = _marks(held)
    same_key = key_then == key_made_anew
    revision = good if same_key else marked_revision(parts, refresh, key_made_anew)
    return WayBack(spec=parts, revision=revision, refresh=refresh)


def recorded_spec(
    spec: ModelReplicaSetSpec, manifest: Manifest, revision: str, caches: Caches
) -> ModelReplicaSetSpec | None:
    """The spec with the parts of a revision, as far as its record can still be read."""
    held = _record(manifest, revision, caches)
    if held is None:
        return None
    try:
        return with_recorded_parts(spec, held["data"])
    except ValidationError:
        return None


def has_failed(spec: ModelReplicaSetSpec, manifest: Manifest, revision: str, caches: Caches) -> str | None:
    """The failed revision, if that is what the spec still asks for; a new key is no other wish."""
    failed = _rollout(manifest).get("failedRevision")
    if not failed or not spec.update.rollback:
        return None
    held = _record(manifest, failed, caches)
    key_then = "" if held is None else _marks(held)[1]
    same_wish = failed in (revision, marked_revision(spec, refresh_of(manifest), key_then))
    return failed if same_wish else None


def restored(
    spec: ModelReplicaSetSpec, manifest: Manifest, revision: str, caches: Caches, back: WayBack | None
) -> tuple[ModelReplicaSetSpec, RolledBack | None]:
    """The spec to act on: the user's, or with the parts of the last good revision where this one failed."""
    failed = has_failed(spec, manifest, revision, caches)
    if failed is None or back is None:
        return spec, None
    return back.spec, RolledBack(good=back.revision, failed=failed, refresh=back.refresh)


def _rollout(manifest: Manifest) -> Manifest:
    return (manifest.get("status") or {}).get("rollout") or {}


def _record(manifest: Manifest, revision: str, caches: Caches) -> Manifest | None:
    if not revision:
        return None
    metadata = manifest["metadata"]
    return caches.get(CONTROLLER_REVISIONS, metadata["namespace"], record_name(metadata["name"], revision))


def _marks(held: Manifest) -> tuple[str, str]:
    """The refresh that a revision was made with, and the time of its key."""
    annotations = held["metadata"].get("annotations") or {}
    return annotations.get(ANNOTATION_REFRESH, ""), annotations.get(ANNOTATION_ENGINE_KEY_MADE, "")


def record_name(set_name: str, revision: str) -> str:
    """The name of a revision's record."""
    return f"{set_name}-{revision}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Making:
    """A revision to be put on record: its number, the spec, and what else its pods were made with."""

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
    """Put the running revision on record, and drop the records that nothing needs any more."""
    writes: list[Write] = []
    if running.revision not in held:
        writes.append(Create(manifest=record(owner, running)))
    writes += [
        Delete(ref=CONTROLLER_REVISIONS.ref(owner.namespace, old.name), uid=old.uid)
        for name, old in sorted(held.items())
        if name not in needed | {running.revision}
    ]
    return writes
