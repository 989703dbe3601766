"""Finds what the spec refers to, and what of it the namespace lacks: secrets and entries, claims, the model.

Each secret is read only once, so the versions of the entries that exist are returned as well.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from pydantic import ValidationError

from flotilla_operator.api.model_replica_set import ModelReplicaSetSpec, Task
from flotilla_operator.api.vector_index import VectorIndexSpec
from flotilla_operator.cluster.caches import Caches
from flotilla_operator.controllers.conditions import is_true
from flotilla_operator.controllers.controller import World
from flotilla_operator.controllers.images import images_of
from flotilla_operator.controllers.pod_classes import NamedClass, classes_of, missing_of
from flotilla_operator.controllers.vector_index.reasons import ConditionType, Reason
from flotilla_operator.controllers.vector_index.seen import EmbedderSeen, ReportedMissing
from flotilla_operator.objects.owners import Owner
from flotilla_operator.objects.resources import (
    CONFIG_MAPS,
    MODEL_REPLICA_SETS,
    PERSISTENT_VOLUME_CLAIMS,
    PRIORITY_CLASSES,
    RUNTIME_CLASSES,
    Reference,
)
from flotilla_operator.workloads.images import Images
from flotilla_operator.workloads.model_replica_set import internal_url
from flotilla_operator.workloads.node_cache import known_hub_url
from flotilla_operator.workloads.proxies import named_proxies
from flotilla_operator.workloads.vector_index.identity import EmbedderModel
from flotilla_operator.workloads.vector_index.milvus import lacks_milvus_image
from flotilla_operator.workloads.vector_index.retriever import caller_entry
from flotilla_operator.workloads.vector_index.source import document_source
from flotilla_runtime import contract

CLASS_MISSING = {
    PRIORITY_CLASSES: Reason.PRIORITY_CLASS_MISSING,
    RUNTIME_CLASSES: Reason.RUNTIME_CLASS_MISSING,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class References:
    """What is missing, and the versions of the secret entries that exist, by the environment variable that
    takes their value.
    """

    missing: list[ReportedMissing] = field(default_factory=list)
    secret_versions: dict[str, str] = field(default_factory=dict)


def references_of(owner: Owner, spec: VectorIndexSpec) -> Iterator[Reference]:
    """The model, the documents, the workspace and the classes of pods that the spec refers to."""
    yield Reference(MODEL_REPLICA_SETS, owner.namespace, spec.embedding.model_ref.name)
    source = document_source(spec.source.path)
    if source.claim is not None:
        yield Reference(PERSISTENT_VOLUME_CLAIMS, owner.namespace, source.claim)
    if source.config_map is not None:
        yield Reference(CONFIG_MAPS, owner.namespace, source.config_map)
    if spec.build.workspace.claim_name is not None:
        yield Reference(PERSISTENT_VOLUME_CLAIMS, owner.namespace, spec.build.workspace.claim_name)
    for classes in _classes_of(spec).values():
        yield from (named.reference for named in classes)


async def references_seen(owner: Owner, spec: VectorIndexSpec, world: World) -> References:
    """Look up everything that the spec refers to."""
    seen = References()
    await _look_at_secrets(seen, owner, spec, world)
    await _look_at_callers(seen, owner, spec, world)
    seen.missing.extend(_missing_image(spec, images_of(world.config)))
    seen.missing.extend(_missing_objects(owner, spec, world.caches))
    return seen


def embedder_of(owner: Owner, spec: VectorIndexSpec, caches: Caches) -> EmbedderSeen | None:
    """The model that the spec refers to; None when it does not exist or its spec is invalid."""
    name = spec.embedding.model_ref.name
    manifest = caches.get(MODEL_REPLICA_SETS, owner.namespace, name)
    if manifest is None:
        return None
    try:
        model_spec = ModelReplicaSetSpec.model_validate(manifest.get("spec"))
    except ValidationError:
        return None
    model_owner = Owner.of(MODEL_REPLICA_SETS.kind, manifest)
    return EmbedderSeen(
        spec=model_spec,
        available=is_true(manifest, "Available"),
        model=EmbedderModel(name=name, url=internal_url(model_owner, model_spec), spec=model_spec),
    )


async def _look_at_secrets(seen: References, owner: Owner, spec: VectorIndexSpec, world: World) -> None:
    token = spec.milvus.token_secret_ref
    if token is not None:
        entry = _Entry(
            variable=contract.ENV_MILVUS_TOKEN,
            condition=ConditionType.MILVUS_READY,
            field="spec.milvus.tokenSecretRef",
            name=token.name,
            key=token.key,
            to=spec.milvus.uri,
            through=named_proxies(spec.retriever.pod.env, spec.build.pod.env),
        )
        await _look_at_entry(seen, owner, world, entry)
    embedder = embedder_of(owner, spec, world.caches)
    if embedder is not None:
        await _look_at_hub_token(seen, owner, spec, embedder.spec, world)
    keys = embedder.spec.router.auth_secret_ref if embedder is not None else None
    if keys is not None:
        entry = _Entry(
            variable=contract.ENV_EMBEDDER_KEY,
            condition=ConditionType.EMBEDDER_READY,
            field="spec.embedding.modelRef: spec.router.authSecretRef of ModelReplicaSet "
            f"{spec.embedding.model_ref.name!r}",
            name=keys.name,
            key=caller_entry(owner),
        )
        await _look_at_entry(seen, owner, world, entry)


async def _look_at_callers(seen: References, owner: Owner, spec: VectorIndexSpec, world: World) -> None:
    """The secret with the callers' keys. Without an entry that has one, nobody could search."""
    named = spec.retriever.auth_secret_ref
    if named is None:
        return
    secret = await world.secret(owner.namespace, named.name)
    if secret is not None and any(secret.problem(key) is None for key in secret.data):
        return
    reason = Reason.SECRET_KEY_MISSING
    problem = f"the Secret {named.name!r} holds no key, so nobody can search; add an entry for each caller"
    if secret is None:
        reason = Reason.SECRET_MISSING
        problem = f"there is no Secret {named.name!r} in this namespace; create it"
    seen.missing.append(
        ReportedMissing(
            condition=ConditionType.RETRIEVER_READY,
            reason=reason,
            message=f"spec.retriever.authSecretRef: {problem}",
        )
    )


async def _look_at_hub_token(
    seen: References, owner: Owner, spec: VectorIndexSpec, embedder: ModelReplicaSetSpec, world: World
) -> None:
    """A build fetches the embedding model's tokenizer with the token of the ModelReplicaSet."""
    token = embedder.model.token_secret_ref
    secret = await world.secret(owner.namespace, token.name) if token is not None else None
    if secret is None:
        return
    why = world.why_not_sent(secret, known_hub_url(embedder), through=named_proxies(spec.build.pod.env))
    if why is None:
        return
    seen.missing.append(
        ReportedMissing(
            condition=ConditionType.EMBEDDER_READY,
            reason=Reason.SECRET_FOR_ELSEWHERE,
            message="spec.embedding.modelRef: spec.model.tokenSecretRef of the ModelReplicaSet: the Secret "
            f"{secret.name!r} is not sent: {why}",
        )
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """An entry of a secret that the spec asks for, and the variable that takes its value.

    `to` is the URL outside of Flotilla's own pods to which it is sent, `through` the proxies of the spec.
    """

    variable: str
    condition: ConditionType
    field: str
    name: str
    key: str
    to: str | None = None
    through: tuple[str | None, ...] = ()


def _missing_image(spec: VectorIndexSpec, images: Images) -> Iterator[ReportedMissing]:
    if lacks_milvus_image(spec, images):
        yield ReportedMissing(
            condition=ConditionType.MILVUS_READY,
            reason=Reason.MILVUS_IMAGE_MISSING,
            message="spec.milvus.mode Lite: no image of Milvus Lite is named; set images.milvus.repository "
            "in the values of Flotilla's chart, or spec.milvus.image",
        )


async def _look_at_entry(seen: References, owner: Owner, world: World, entry: _Entry) -> None:
    secret = await world.secret(owner.namespace, entry.name)
    if secret is None:
        reason = Reason.SECRET_MISSING
        problem = f"there is no Secret {entry.name!r} in this namespace; create it"
    elif (wrong := secret.problem(entry.key)) is not None:
        reason = Reason.SECRET_KEY_MISSING
        problem = wrong
    elif (
        entry.to is not None
        and (why := world.why_not_sent(secret, entry.to, through=entry.through)) is not None
    ):
        reason = Reason.SECRET_FOR_ELSEWHERE
        problem = f"the Secret {entry.name!r} is not sent: {why}"
    else:
        seen.secret_versions[entry.variable] = secret.version(entry.key)
        return
    message = f"{entry.field}: {problem}"
    seen.missing.append(ReportedMissing(condition=entry.condition, reason=reason, message=message))


def _missing_objects(owner: Owner, spec: VectorIndexSpec, caches: Caches) -> Iterator[ReportedMissing]:
    source = document_source(spec.source.path)
    claim, config_map, workspace = source.claim, source.config_map, spec.build.workspace.claim_name
    if claim is not None and caches.get(PERSISTENT_VOLUME_CLAIMS, owner.namespace, claim) is None:
        yield ReportedMissing(
            condition=ConditionType.SOURCE_REACHABLE,
            reason=Reason.CLAIM_MISSING,
            message=f"spec.source.path: there is no PersistentVolumeClaim {claim!r} in this namespace; "
            "create it",
        )
    if config_map is not None and caches.get(CONFIG_MAPS, owner.namespace, config_map) is None:
        yield ReportedMissing(
            condition=ConditionType.SOURCE_REACHABLE,
            reason=Reason.CONFIG_MAP_MISSING,
            message=f"spec.source.path: there is no ConfigMap {config_map!r} in this namespace; create it",
        )
    if workspace is not None and caches.get(PERSISTENT_VOLUME_CLAIMS, owner.namespace, workspace) is None:
        yield ReportedMissing(
            condition=ConditionType.BUILT,
            reason=Reason.CLAIM_MISSING,
            message="spec.build.workspace.claimName: there is no PersistentVolumeClaim "
            f"{workspace!r} in this namespace; create it",
        )
    yield from _missing_classes(spec, caches)
    yield from _missing_embedder(owner, spec, caches)


def _classes_of(spec: VectorIndexSpec) -> Mapping[ConditionType, list[NamedClass]]:
    """The classes that the spec names, by the condition that reports on them."""
    return {
        ConditionType.MILVUS_READY: list(classes_of("spec.milvus.pod", spec.milvus.pod)),
        ConditionType.BUILT: list(classes_of("spec.build.pod", spec.build.pod)),
        ConditionType.RETRIEVER_READY: list(classes_of("spec.retriever.pod", spec.retriever.pod)),
    }


def _missing_classes(spec: VectorIndexSpec, caches: Caches) -> Iterator[ReportedMissing]:
    for condition, classes in _classes_of(spec).items():
        for named in missing_of(classes, caches):
            reason = CLASS_MISSING[named.resource]
            yield ReportedMissing(condition=condition, reason=reason, message=named.missing)


def _missing_embedder(owner: Owner, spec: VectorIndexSpec, caches: Caches) -> Iterator[ReportedMissing]:
    name = spec.embedding.model_ref.name
    manifest = caches.get(MODEL_REPLICA_SETS, owner.namespace, name)
    embedder = embedder_of(owner, spec, caches)
    reason, problem = None, ""
    if manifest is None:
        reason = Reason.MODEL_MISSING
        problem = f"there is no ModelReplicaSet {name!r} in this namespace; create it"
    elif embedder is None:
        reason = Reason.MODEL_INVALID
        problem = f"the spec of ModelReplicaSet {name!r} is invalid; see its conditions"
    elif embedder.spec.model.task is not Task.EMBED:
        reason = Reason.WRONG_TASK
        problem = (
            f"the spec.model.task of ModelReplicaSet {name!r} is {embedder.spec.model.task}; refer to one "
            "with the task Embed"
        )
    if reason is not None:
        yield ReportedMissing(
            condition=ConditionType.EMBEDDER_READY,
            reason=reason,
            message=f"spec.embedding.modelRef: {problem}",
        )
