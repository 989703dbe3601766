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
from flotilla_operator.controllers.controller import Secret, World
from flotilla_operator.controllers.images import images_of
from flotilla_operator.controllers.mounted_claims import NamedClaim, claim_problem
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
from flotilla_operator.objects.used_by import User
from flotilla_operator.workloads.images import Images
from flotilla_operator.workloads.model_replica_set import internal_url
from flotilla_operator.workloads.model_source import ClaimSource, model_of
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
    """Missing references, and the versions of the secret entries that exist, by the environment variable that
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
    seen.missing.extend(_missing_claims(owner, spec, world))
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
            user=_user(owner),
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
            user=User(kind=MODEL_REPLICA_SETS.kind, name=spec.embedding.model_ref.name),
        )
        await _look_at_entry(seen, owner, world, entry)


async def _look_at_callers(seen: References, owner: Owner, spec: VectorIndexSpec, world: World) -> None:
    """The secret with the callers' keys. Without an entry that has one, nobody could search."""
    named = spec.retriever.auth_secret_ref
    if named is None:
        return
    secret = await world.secret(owner.namespace, named.name)
    if secret is None:
        reason = Reason.SECRET_MISSING
        problem = f"there is no Secret {named.name!r} in this namespace; create it"
    elif (why := world.why_not_mounted(owner.namespace, secret, _user(owner))) is not None:
        reason = Reason.SECRET_FOR_OTHERS
        problem = f"the Secret {named.name!r} is not mounted: {why}"
    elif secret.holds_a_key():
        return
    else:
        reason = Reason.SECRET_KEY_MISSING
        problem = (
            f"the Secret {named.name!r} holds no key, so nobody can search; add an entry for each caller"
        )
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
    A secret that is not sent must be for `user`, the object whose spec names it.
    """

    variable: str
    condition: ConditionType
    field: str
    name: str
    key: str
    to: str | None = None
    through: tuple[str | None, ...] = ()
    user: User | None = None


def _user(owner: Owner) -> User:
    return User(kind=owner.kind, name=owner.name)


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
    elif (kept_back := _kept_back(owner, secret, world, entry)) is not None:
        reason, problem = kept_back
    else:
        seen.secret_versions[entry.variable] = secret.version(entry.key)
        return
    message = f"{entry.field}: {problem}"
    seen.missing.append(ReportedMissing(condition=entry.condition, reason=reason, message=message))


def _kept_back(owner: Owner, secret: Secret, world: World, entry: _Entry) -> tuple[Reason, str] | None:
    """Why a secret is not sent to its URL, or not mounted; None where it is."""
    if entry.to is not None:
        why = world.why_not_sent(secret, entry.to, through=entry.through)
        reason, problem = Reason.SECRET_FOR_ELSEWHERE, f"the Secret {entry.name!r} is not sent: {why}"
        return None if why is None else (reason, problem)
    if entry.user is not None:
        why = world.why_not_mounted(owner.namespace, secret, entry.user)
        reason, problem = Reason.SECRET_FOR_OTHERS, f"the Secret {entry.name!r} is not mounted: {why}"
        return None if why is None else (reason, problem)
    return None


def _missing_objects(owner: Owner, spec: VectorIndexSpec, caches: Caches) -> Iterator[ReportedMissing]:
    config_map = document_source(spec.source.path).config_map
    if config_map is not None and caches.get(CONFIG_MAPS, owner.namespace, config_map) is None:
        yield ReportedMissing(
            condition=ConditionType.SOURCE_REACHABLE,
            reason=Reason.CONFIG_MAP_MISSING,
            message=f"spec.source.path: there is no ConfigMap {config_map!r} in this namespace; create it",
        )
    yield from _missing_classes(spec, caches)
    yield from _missing_embedder(owner, spec, caches)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Claim:
    """A claim that pods of the index mount, the object whose spec names it, and the condition for it."""

    named: NamedClaim
    user: User
    condition: ConditionType


def _claims(owner: Owner, spec: VectorIndexSpec, embedder: EmbedderSeen | None) -> Iterator[_Claim]:
    source, workspace = document_source(spec.source.path).claim, spec.build.workspace.claim_name
    if source is not None:
        named = NamedClaim(field="spec.source.path", name=source)
        yield _Claim(named=named, user=_user(owner), condition=ConditionType.SOURCE_REACHABLE)
    if workspace is not None:
        named = NamedClaim(field="spec.build.workspace.claimName", name=workspace)
        yield _Claim(named=named, user=_user(owner), condition=ConditionType.BUILT)
    if embedder is None:
        return
    model = model_of(embedder.spec)
    if isinstance(model, ClaimSource):
        name = spec.embedding.model_ref.name
        named = NamedClaim(
            field=f"spec.embedding.modelRef: spec.model.source of ModelReplicaSet {name!r}", name=model.claim
        )
        user = User(kind=MODEL_REPLICA_SETS.kind, name=name)
        yield _Claim(named=named, user=user, condition=ConditionType.EMBEDDER_READY)


def _missing_claims(owner: Owner, spec: VectorIndexSpec, world: World) -> Iterator[ReportedMissing]:
    for claim in _claims(owner, spec, embedder_of(owner, spec, world.caches)):
        problem = claim_problem(claim.named, owner.namespace, claim.user, world)
        if problem is not None:
            reason = Reason.CLAIM_MISSING if problem.is_missing else Reason.CLAIM_FOR_OTHERS
            yield ReportedMissing(condition=claim.condition, reason=reason, message=problem.message)


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
