"""Turns a decision about an index into writes, in the order in which they are needed.

farewell  a deleted index only starts the removal of its collections, and lets go of the finalizer at its end
claims    Milvus Lite's, and the workspace
key       the key of searches, with which the retriever starts, where the spec names none
standing  Milvus Lite and the retriever; an object of that name that is not ours is left alone
lite      Milvus Lite is deleted when it is unused; its claim follows the deletion policy
build     the next step's ConfigMap and Job, then what is left of other attempts and builds
"""

import secrets
from collections.abc import Callable

from flotilla_operator.api.parts import DeletionPolicy
from flotilla_operator.cluster.writes import Acts, Apply, Create, Delete, JsonPatch, Write
from flotilla_operator.controllers.claims import ClaimReason
from flotilla_operator.controllers.rendered import rendered
from flotilla_operator.controllers.secret_reader import LOOK_MISSING_SECONDS
from flotilla_operator.controllers.vector_index.access import KeyReason
from flotilla_operator.controllers.vector_index.cleanup import Cleanups
from flotilla_operator.controllers.vector_index.decide import Decision, LiteReason
from flotilla_operator.controllers.vector_index.farewell import CLEANUP_LOOK_SECONDS, Farewell
from flotilla_operator.controllers.vector_index.next_step import NextReason, NextStep
from flotilla_operator.controllers.vector_index.objects import claims_of, standing_objects
from flotilla_operator.controllers.vector_index.progress import Progress
from flotilla_operator.controllers.vector_index.reasons import ConditionType
from flotilla_operator.controllers.vector_index.seen import FINALIZER, Observed
from flotilla_operator.objects.resources import DEPLOYMENTS, JOBS, SECRETS, STATEFUL_SETS, Manifest
from flotilla_operator.workloads.pod_options import field_refused
from flotilla_operator.workloads.vector_index.build import build_config_map, build_job
from flotilla_operator.workloads.vector_index.milvus import milvus
from flotilla_operator.workloads.vector_index.retriever_key import retriever_key, retriever_key_secret

KEY_BYTES = 32


def new_key() -> str:
    """A key that nobody can guess."""
    return secrets.token_urlsafe(KEY_BYTES)


def act(decision: Decision | Farewell, cleanups: Cleanups, make_key: Callable[[], str]) -> Acts:
    """The writes that lead to what is wanted of an index; `make_key` is called if a key has to be made."""
    if isinstance(decision, Farewell):
        return _farewell(decision, cleanups)
    observed, step = decision.observed, decision.next
    if step.reason is NextReason.PAUSED:
        return Acts(look_again_seconds=step.look_again_seconds)
    return Acts(
        writes=[
            *(_claim(decision, claim) for claim in claims_of(observed.owner, observed.spec)),
            *_key(decision, make_key),
            *_standing(decision),
            *_unused_lite(decision),
            *_build(observed, step),
        ],
        finalizers=(FINALIZER,) if decision.leaves_data_outside else (),
        look_again_seconds=_look_again(decision),
    )


def _look_again(decision: Decision) -> float:
    seconds = decision.next.look_again_seconds
    return min(seconds, LOOK_MISSING_SECONDS) if decision.observed.lacks_a_secret else seconds


def _farewell(decision: Farewell, cleanups: Cleanups) -> Acts:
    leaving = decision.leaving
    if decision.starts and leaving.remains is not None:
        cleanups.start(leaving.owner.uid, leaving.remains)
    return Acts(finalizers=()) if decision.lets_go else Acts(look_again_seconds=CLEANUP_LOOK_SECONDS)


def _claim(decision: Decision, wanted: Manifest) -> Write:
    """Apply the claim. After a change of the deletion policy it first gets or loses its owner reference."""
    observed = decision.observed
    live = observed.part(wanted["kind"], wanted["metadata"]["name"])
    if wanted["metadata"]["name"] != milvus(observed.owner).name:
        return Apply(manifest=wanted)
    if decision.claim is ClaimReason.APPLIED or live is None:
        retained = observed.spec.retention.deletion_policy is DeletionPolicy.RETAIN
        return Apply(manifest=wanted, retained=retained, field="spec.milvus.storage")
    references = [observed.owner.reference] if decision.claim is ClaimReason.ADOPTED else []
    return JsonPatch(
        ref=live.ref,
        resource_version=live.resource_version,
        operations=[{"op": "add", "path": "/metadata/ownerReferences", "value": references}],
    )


def _key(decision: Decision, make_key: Callable[[], str]) -> list[Create]:
    if decision.access.key is not KeyReason.MADE:
        return []
    return [Create(manifest=retriever_key_secret(decision.observed.owner, make_key()))]


def _standing(decision: Decision) -> list[Apply]:
    """A retriever that would send its token elsewhere stays as it is, and one that could not start or would
    mount a Secret of others.
    """
    observed, owner = decision.observed, decision.observed.owner
    if not observed.may_send_its_token:
        return []
    objects = rendered(
        lambda images: standing_objects(
            owner,
            observed.spec,
            images,
            observed.embedder,
            observed.secret_versions,
            keyless=not decision.access.required,
        ),
        observed.images,
    )
    made = decision.access.key is KeyReason.MADE
    key = frozenset({SECRETS.ref(owner.namespace, retriever_key(owner).name)} if made else ())
    return [
        Apply(
            manifest=one.manifest,
            parts=one.parts,
            field=_field(observed, one.manifest),
            needs=key if _is_deployment(one.manifest) else frozenset(),
        )
        for one in objects
        if not _would_end_milvus(observed, one.manifest)
        and not (_lacks_a_secret(observed) and _is_deployment(one.manifest))
    ]


def _is_deployment(manifest: Manifest) -> bool:
    return bool(manifest["kind"] == DEPLOYMENTS.kind)


def _lacks_a_secret(observed: Observed) -> bool:
    return observed.lacks_callers_keys or not observed.may_mount_its_secrets


def _field(observed: Observed, manifest: Manifest) -> str:
    spec = observed.spec
    if manifest["kind"] == STATEFUL_SETS.kind:
        return field_refused(manifest, "spec.milvus.pod", spec.milvus.pod)
    return field_refused(manifest, "spec.retriever.pod", spec.retriever.pod)


def _would_end_milvus(observed: Observed, manifest: Manifest) -> bool:
    """Whether the pod of Milvus Lite would be deleted for one that cannot start."""
    refused = any(missing.condition is ConditionType.MILVUS_READY for missing in observed.missing)
    return refused and manifest["kind"] == STATEFUL_SETS.kind


def _unused_lite(decision: Decision) -> list[Delete]:
    if decision.lite is not LiteReason.UNUSED:
        return []
    observed = decision.observed
    ours = (live for live in observed.lite if live.controller_uid == observed.owner.uid)
    return [Delete(ref=live.ref, uid=live.uid) for live in ours]


def _build(observed: Observed, step: NextStep) -> list[Write]:
    """The new attempt's Job is created before the old Job is deleted: only the Jobs count the attempts."""
    namespace = observed.owner.namespace
    return [
        *(_start(observed, step.start) if step.start is not None else ()),
        *(Delete(ref=JOBS.ref(namespace, job.name), uid=job.uid) for job in step.unwanted_jobs),
        *(Delete(ref=live.ref, uid=live.uid) for live in step.unwanted_config_maps),
    ]


def _start(observed: Observed, start: Progress) -> list[Write]:
    assert observed.embedder is not None  # the wanted build has no name without it
    owner, spec, model = observed.owner, observed.spec, observed.embedder.model
    shards = max(1, start.shards)
    job = build_job(owner, spec, observed.images, model, start.build, start.step, shards=shards)
    return [
        Apply(manifest=build_config_map(owner, spec, model, start.build)),
        Create(manifest=job, field=field_refused(job, "spec.build.pod", spec.build.pod)),
    ]
