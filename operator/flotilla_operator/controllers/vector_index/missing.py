"""What the spec names and the namespace lacks: secrets and their entries, claims, ConfigMaps, the model."""

from collections.abc import Iterator

from pydantic import ValidationError

from flotilla_operator.api.model_replica_set import ModelReplicaSetSpec, Task
from flotilla_operator.api.vector_index import VectorIndexSpec
from flotilla_operator.cluster.caches import Caches
from flotilla_operator.cluster.resources import CONFIG_MAPS, MODEL_REPLICA_SETS, PERSISTENT_VOLUME_CLAIMS
from flotilla_operator.controllers.conditions import is_true
from flotilla_operator.controllers.controller import World
from flotilla_operator.controllers.vector_index.reasons import ConditionType, Reason
from flotilla_operator.controllers.vector_index.seen import EmbedderSeen, Missing
from flotilla_operator.workloads.labels import Owner
from flotilla_operator.workloads.model_replica_set import service_url
from flotilla_operator.workloads.vector_index.build import document_source
from flotilla_operator.workloads.vector_index.identity import EmbedderModel
from flotilla_operator.workloads.vector_index.retriever import caller_entry


async def missing_references(owner: Owner, spec: VectorIndexSpec, world: World) -> list[Missing]:
    """All of it, each with the condition it belongs to."""
    return [*await _missing_secrets(owner, spec, world), *_missing_objects(owner, spec, world.caches)]


def embedder_of(owner: Owner, spec: VectorIndexSpec, caches: Caches) -> EmbedderSeen | None:
    """The model that the spec names, None when it is not there or cannot be read."""
    name = spec.embedding.model_ref.name
    manifest = caches.get(MODEL_REPLICA_SETS, owner.namespace, name)
    if manifest is None:
        return None
    try:
        model_spec = ModelReplicaSetSpec.model_validate(manifest.get("spec"))
    except ValidationError:
        return None
    metadata = manifest["metadata"]
    model_owner = Owner(
        kind=MODEL_REPLICA_SETS.kind, namespace=owner.namespace, name=name, uid=metadata["uid"]
    )
    return EmbedderSeen(
        spec=model_spec,
        available=is_true(manifest, "Available"),
        model=EmbedderModel(name=name, url=service_url(model_owner), spec=model_spec),
    )


async def _missing_secrets(owner: Owner, spec: VectorIndexSpec, world: World) -> list[Missing]:
    found = []
    token = spec.milvus.token_secret_ref
    if token is not None:
        field = "spec.milvus.tokenSecretRef"
        found.append(
            await _missing_entry(world, owner, ConditionType.MILVUS_READY, field, token.name, token.key)
        )
    embedder = embedder_of(owner, spec, world.caches)
    keys = embedder.spec.router.auth_secret_ref if embedder is not None else None
    if keys is not None:
        field = f"spec.embedding.modelRef: callers of {spec.embedding.model_ref.name} need a key"
        entry = caller_entry(owner)
        found.append(
            await _missing_entry(world, owner, ConditionType.EMBEDDER_READY, field, keys.name, entry)
        )
    return [missing for missing in found if missing is not None]


async def _missing_entry(
    world: World, owner: Owner, condition: ConditionType, field: str, name: str, key: str
) -> Missing | None:
    secret = await world.secret(owner.namespace, name)
    if secret is None:
        message = f"{field}: there is no Secret {name!r} in this namespace; create it"
        return Missing(condition=condition, reason=Reason.SECRET_MISSING, message=message)
    if key not in secret.data:
        message = f"{field}: the Secret {name!r} has no entry {key!r}; add it"
        return Missing(condition=condition, reason=Reason.SECRET_KEY_MISSING, message=message)
    return None


def _missing_objects(owner: Owner, spec: VectorIndexSpec, caches: Caches) -> Iterator[Missing]:
    source = document_source(spec.source.path)
    claim, config_map, workspace = source.claim, source.config_map, spec.build.workspace.claim_name
    if claim is not None and caches.get(PERSISTENT_VOLUME_CLAIMS, owner.namespace, claim) is None:
        yield Missing(
            condition=ConditionType.SOURCE_REACHABLE,
            reason=Reason.CLAIM_MISSING,
            message=f"spec.source.path: there is no PersistentVolumeClaim {claim!r} here; create it",
        )
    if config_map is not None and caches.get(CONFIG_MAPS, owner.namespace, config_map) is None:
        yield Missing(
            condition=ConditionType.SOURCE_REACHABLE,
            reason=Reason.CONFIG_MAP_MISSING,
            message=f"spec.source.path: there is no ConfigMap {config_map!r} here; create it",
        )
    if workspace is not None and caches.get(PERSISTENT_VOLUME_CLAIMS, owner.namespace, workspace) is None:
        yield Missing(
            condition=ConditionType.BUILT,
            reason=Reason.CLAIM_MISSING,
            message="spec.build.workspace.claimName: there is no PersistentVolumeClaim "
            f"{workspace!r} here; create it",
        )
    yield from _missing_embedder(owner, spec, caches)


def _missing_embedder(owner: Owner, spec: VectorIndexSpec, caches: Caches) -> Iterator[Missing]:
    name = spec.embedding.model_ref.name
    manifest = caches.get(MODEL_REPLICA_SETS, owner.namespace, name)
    embedder = embedder_of(owner, spec, caches)
    reason, problem = None, ""
    if manifest is None:
        reason = Reason.MODEL_MISSING
        problem = f"there is no ModelReplicaSet {name!r} here; create it"
    elif embedder is None:
        reason = Reason.MODEL_INVALID
        problem = f"the ModelReplicaSet {name!r} cannot be read; see its conditions"
    elif embedder.spec.model.task is not Task.EMBED:
        reason = Reason.WRONG_TASK
        problem = (
            f"the ModelReplicaSet {name!r} has task {embedder.spec.model.task}; name one with task Embed"
        )
    if reason is not None:
        yield Missing(
            condition=ConditionType.EMBEDDER_READY,
            reason=reason,
            message=f"spec.embedding.modelRef: {problem}",
        )
