"""Gathers what a plan rests on, from the caches, and secrets by name."""

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from flotilla_operator.api.common import DeletionPolicy, TokenSecretRef
from flotilla_operator.api.vector_index import Milvus, MilvusMode, VectorIndex, VectorIndexSpec
from flotilla_operator.cluster.caches import Caches, controller_uid
from flotilla_operator.cluster.resources import (
    CONFIG_MAPS,
    JOBS,
    MODEL_REPLICA_SETS,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    VECTOR_INDEXES,
    Reference,
    resource_of,
)
from flotilla_operator.cluster.writes import Manifest
from flotilla_operator.controllers.controller import World
from flotilla_operator.controllers.images import images_of
from flotilla_operator.controllers.vector_index.cleanup import Cleanups, Remains
from flotilla_operator.controllers.vector_index.jobs import StepJob, pod_is_over, step_job
from flotilla_operator.controllers.vector_index.missing import embedder_of, references_seen
from flotilla_operator.controllers.vector_index.objects import claims_of, standing_objects
from flotilla_operator.controllers.vector_index.seen import (
    Cleanup,
    CleanupState,
    EmbedderSeen,
    Leaving,
    Observed,
)
from flotilla_operator.telemetry.measurements import Measurements, Target
from flotilla_operator.workloads.images import Images
from flotilla_operator.workloads.labels import Owner
from flotilla_operator.workloads.vector_index.build import builds, document_source
from flotilla_operator.workloads.vector_index.identity import alias_name, collection_prefix
from flotilla_operator.workloads.vector_index.milvus import milvus_objects
from flotilla_operator.workloads.vector_index.retriever import retriever
from flotilla_runtime import contract

FINALIZER = f"{contract.DOMAIN}/milvus"


def parsed(manifest: Manifest) -> VectorIndexSpec:
    """The spec; the loop turns what pydantic finds wrong into a condition."""
    return VectorIndex.model_validate(manifest).spec


def owner_of(manifest: Manifest) -> Owner:
    """The index as the owner of what it makes."""
    metadata = manifest["metadata"]
    return Owner(
        kind=VECTOR_INDEXES.kind,
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
    )


def leaves_something_outside(spec: VectorIndexSpec) -> bool:
    """Whether deleting the namespace's objects would leave data behind that must go."""
    external = spec.milvus.mode is MilvusMode.EXTERNAL
    return external and spec.retention.deletion_policy is DeletionPolicy.DELETE


def references_of(owner: Owner, spec: VectorIndexSpec) -> Iterator[Reference]:
    """The model, the documents and the workspace that the spec names."""
    yield Reference(MODEL_REPLICA_SETS, owner.namespace, spec.embedding.model_ref.name)
    source = document_source(spec.source.path)
    if source.claim is not None:
        yield Reference(PERSISTENT_VOLUME_CLAIMS, owner.namespace, source.claim)
    if source.config_map is not None:
        yield Reference(CONFIG_MAPS, owner.namespace, source.config_map)
    if spec.build.workspace.claim_name is not None:
        yield Reference(PERSISTENT_VOLUME_CLAIMS, owner.namespace, spec.build.workspace.claim_name)


async def observe(manifest: Manifest, world: World, cleanups: Cleanups) -> Observed | Leaving:
    """Everything the plan of this index rests on."""
    owner = owner_of(manifest)
    cleanups.keep_only(world.caches.store(VECTOR_INDEXES).uids())
    if "deletionTimestamp" not in manifest["metadata"]:
        cleanups.forget(owner.uid)
        return await _observe(manifest, owner, world)
    return Leaving(manifest=manifest, owner=owner, cleanup=await _cleanup(manifest, owner, world, cleanups))


async def _observe(manifest: Manifest, owner: Owner, world: World) -> Observed:
    spec = parsed(manifest)
    seen = await references_seen(owner, spec, world)
    caches = world.caches
    embedder = embedder_of(owner, spec, caches)
    targets = _targets(owner, caches)
    build_pods = _pods_of(caches, owner, builds(owner).selector)
    return Observed(
        manifest=manifest,
        owner=owner,
        spec=spec,
        images=images_of(world.config),
        embedder=embedder,
        missing=seen.missing,
        secret_versions=seen.secret_versions,
        existing=_existing(owner, spec, images_of(world.config), embedder, caches),
        unused_milvus=_unused_milvus(owner, spec, images_of(world.config), caches),
        jobs=_jobs(owner, caches),
        build_config_maps=[
            config_map
            for config_map in caches.owned(CONFIG_MAPS, owner.uid)
            if contract.LABEL_BUILD in (config_map["metadata"].get("labels") or {})
        ],
        live_build_pods={
            pod["metadata"]["name"]: pod["metadata"]["labels"].get(contract.LABEL_BUILD, "")
            for pod in build_pods
            if not pod_is_over(pod)
        },
        shared_workspace=_shared_workspace(owner, spec, caches),
        retriever_status=_retriever_status(targets, world.measurements),
        targets=targets,
    )


async def _cleanup(manifest: Manifest, owner: Owner, world: World, cleanups: Cleanups) -> Cleanup:
    """How far the removal is; what keeps it from starting is told, and tried again until the deadline."""
    if FINALIZER not in (manifest["metadata"].get("finalizers") or ()):
        cleanups.forget(owner.uid)
        return Cleanup(state=CleanupState.NOT_NEEDED)
    try:
        remains = await _remains(manifest, owner, world)
    except Exception as error:
        why = f"the collections were not removed ({type(error).__name__}: {error}); drop them by hand"
        return Cleanup(state=CleanupState.RUNNING, message=why)
    if remains is None:
        return Cleanup(state=CleanupState.NOT_NEEDED)
    return cleanups.state(owner.uid, remains)


async def _remains(manifest: Manifest, owner: Owner, world: World) -> Remains | None:
    """What is to be removed, whatever else of the spec cannot be read; None when nothing is."""
    spec = _mapping(manifest.get("spec"))
    there, retention = _mapping(spec.get("milvus")), _mapping(spec.get("retention"))
    policy = retention.get("deletionPolicy")
    if there.get("mode") != MilvusMode.EXTERNAL or "uri" not in there or policy != DeletionPolicy.DELETE:
        return None
    named = there.get("tokenSecretRef")
    token = TokenSecretRef.model_validate(named) if named is not None else None
    secret = await world.secret(owner.namespace, token.name) if token is not None else None
    content = secret.data.get(token.key) if secret is not None and token is not None else None
    return Remains(
        uri=str(there["uri"]),
        database=str(there.get("database", Milvus.model_fields["database"].default)),
        token=_text(content) if content is not None else None,
        alias=alias_name(owner),
        prefix=collection_prefix(owner),
    )


def _text(token: bytes) -> str:
    try:
        return token.decode()
    except UnicodeDecodeError:
        raise ValueError("the token of spec.milvus.tokenSecretRef is not UTF-8") from None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _existing(
    owner: Owner,
    spec: VectorIndexSpec,
    images: Images,
    embedder: EmbedderSeen | None,
    caches: Caches,
) -> Mapping[tuple[str, str], Manifest]:
    wanted = [*standing_objects(owner, spec, images, embedder), *claims_of(owner, spec)]
    names = [(resource_of(manifest), manifest["metadata"]["name"]) for manifest in wanted]
    live = {(resource.kind, name): caches.get(resource, owner.namespace, name) for resource, name in names}
    return {place: manifest for place, manifest in live.items() if manifest is not None}


def _unused_milvus(owner: Owner, spec: VectorIndexSpec, images: Images, caches: Caches) -> list[Manifest]:
    if spec.milvus.mode is MilvusMode.LITE:
        return []
    lite = milvus_objects(owner, spec, images, clients=[])
    found = (caches.get(resource_of(one), owner.namespace, one["metadata"]["name"]) for one in lite)
    return [manifest for manifest in found if manifest is not None and controller_uid(manifest) == owner.uid]


def _jobs(owner: Owner, caches: Caches) -> list[StepJob]:
    found = [
        step_job(job, caches.owned(PODS, job["metadata"]["uid"]))
        for job in caches.owned(JOBS, owner.uid)
        if "deletionTimestamp" not in job["metadata"]
    ]
    return [job for job in found if job is not None]


def _pods_of(caches: Caches, owner: Owner, selector: Mapping[str, str]) -> list[Manifest]:
    return [
        pod
        for pod in caches.by_label(PODS, contract.LABEL_OWNER_NAME, owner.name)
        if pod["metadata"]["namespace"] == owner.namespace
        and selector.items() <= (pod["metadata"].get("labels") or {}).items()
    ]


def _shared_workspace(owner: Owner, spec: VectorIndexSpec, caches: Caches) -> bool:
    """Whether several nodes can write to the workspace at once."""
    name = spec.build.workspace.claim_name
    claim = caches.get(PERSISTENT_VOLUME_CLAIMS, owner.namespace, name) if name is not None else None
    return claim is not None and "ReadWriteMany" in (claim["spec"].get("accessModes") or ())


def _targets(owner: Owner, caches: Caches) -> list[Target]:
    """Where each retriever pod says what it serves."""
    targets = []
    for pod in _pods_of(caches, owner, retriever(owner).selector):
        ip = (pod.get("status") or {}).get("podIP")
        if ip:
            host = f"[{ip}]" if ":" in ip else ip
            url = f"http://{host}:{contract.PORT_RETRIEVER}/v1/status"
            targets.append(Target(key=pod["metadata"]["uid"], url=url))
    return targets


def _retriever_status(targets: list[Target], measurements: Measurements) -> contract.RetrieverStatus | None:
    """What the first retriever that answers says."""
    for target in targets:
        found = measurements.latest(target.key)
        if found is not None and found.document is not None:
            try:
                return contract.RetrieverStatus.model_validate(found.document)
            except ValidationError:
                continue
    return None
