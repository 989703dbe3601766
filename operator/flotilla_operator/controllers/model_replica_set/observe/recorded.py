"""Reads the records of revisions from the caches: the way back, and what older replicas serve."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from pydantic import ValidationError

from flotilla_operator.api.annotations import ANNOTATION_REFRESH
from flotilla_operator.api.model_replica_set import ModelReplicaSetSpec
from flotilla_operator.cluster.caches import Caches
from flotilla_operator.objects.owners import Owner
from flotilla_operator.objects.resources import CONTROLLER_REVISIONS, Manifest
from flotilla_operator.replicas.facts import Form
from flotilla_operator.replicas.revisions.rollout import Rollout
from flotilla_operator.workloads.forms import Marks, marked_revision
from flotilla_operator.workloads.revision import with_recorded_parts
from flotilla_operator.workloads.router import ANNOTATION_ENGINE_KEY_MADE
from flotilla_operator.workloads.served import Served, served_by
from flotilla_runtime import contract


class MakeForm(Protocol):
    """Makes the form of a spec under a revision."""

    def __call__(self, owner: Owner, spec: ModelReplicaSetSpec, marks: Marks, *, revision: str) -> Form:
        """The form."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A recorded revision."""

    name: str
    uid: str


def record_name(set_name: str, revision: str) -> str:
    """The name of a revision's record."""
    return f"{set_name}-{revision}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """Way back of a set, as its records tell it.

    `good` is the last good revision, where it is recorded and differs from the newest. `newest_failed` says
    that the newest is one that has failed.
    """

    good: Form | None = None
    newest_failed: bool = False


def records_of(caches: Caches, uid: str) -> Mapping[str, Record]:
    """The set's records by revision."""
    return {
        record["metadata"]["labels"][contract.LABEL_REVISION]: Record(
            name=record["metadata"]["name"], uid=record["metadata"]["uid"]
        )
        for record in caches.owned(CONTROLLER_REVISIONS, uid)
    }


def recorded(
    owner: Owner, newest: Form, marks: Marks, rollout: Rollout, caches: Caches, make: MakeForm
) -> Recorded:
    """Read the way back from the newest revision from the records."""
    if rollout.good in ("", newest.revision):
        return Recorded()
    good = _good(owner, newest.spec, marks.key_made_anew, rollout.good, caches, make)
    if good is None or good.revision == newest.revision:
        return Recorded()
    return Recorded(
        good=good, newest_failed=_has_failed(owner, newest, marks.refresh, rollout.failed, caches)
    )


def served_by_revision(
    owner: Owner, spec: ModelReplicaSetSpec, revisions: Iterable[str], caches: Caches
) -> dict[str, Served]:
    """Return the names that replicas of these revisions serve, where the revisions are recorded."""
    specs = {revision: recorded_spec(spec, owner, revision, caches) for revision in revisions}
    return {revision: served_by(spec) for revision, spec in specs.items() if spec is not None}


def recorded_spec(
    spec: ModelReplicaSetSpec, owner: Owner, revision: str, caches: Caches
) -> ModelReplicaSetSpec | None:
    """The spec with the recorded parts of a revision; None when the record is missing or cannot be read."""
    held = _record(owner, revision, caches)
    if held is None:
        return None
    try:
        return with_recorded_parts(spec, held["data"])
    except ValidationError:
        return None


def _good(
    owner: Owner, spec: ModelReplicaSetSpec, key_made_anew: str, good: str, caches: Caches, make: MakeForm
) -> Form | None:
    """Return the form to go back to. Another key makes a new revision of the good one's parts."""
    held, parts = _record(owner, good, caches), recorded_spec(spec, owner, good, caches)
    if held is None or parts is None:
        return None
    then = _marks(held)
    same_key = then.key_made_anew == key_made_anew
    marks = Marks(refresh=then.refresh, key_made_anew=key_made_anew)
    return make(owner, parts, marks, revision=good if same_key else marked_revision(parts, marks))


def _has_failed(owner: Owner, newest: Form, refresh: str, failed: str, caches: Caches) -> bool:
    """Whether the spec still asks for the revision that failed. A new key alone is no changed spec."""
    if not failed or not newest.spec.update.rollback:
        return False
    held = _record(owner, failed, caches)
    key_then = "" if held is None else _marks(held).key_made_anew
    marks = Marks(refresh=refresh, key_made_anew=key_then)
    return failed in (newest.revision, marked_revision(newest.spec, marks))


def _record(owner: Owner, revision: str, caches: Caches) -> Manifest | None:
    if not revision:
        return None
    return caches.get(CONTROLLER_REVISIONS, owner.namespace, record_name(owner.name, revision))


def _marks(held: Manifest) -> Marks:
    annotations = held["metadata"].get("annotations") or {}
    return Marks(
        refresh=annotations.get(ANNOTATION_REFRESH, ""),
        key_made_anew=annotations.get(ANNOTATION_ENGINE_KEY_MADE, ""),
    )
