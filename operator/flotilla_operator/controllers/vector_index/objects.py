"""The objects that an index has for its whole life; the Jobs of its builds are made elsewhere."""

from collections.abc import Mapping
from types import MappingProxyType

from flotilla_operator.api.vector_index import MilvusMode, VectorIndexSpec
from flotilla_operator.controllers.vector_index.seen import EmbedderSeen
from flotilla_operator.objects.owners import Owner
from flotilla_operator.objects.resources import Manifest
from flotilla_operator.workloads.images import Images
from flotilla_operator.workloads.vector_index.build import build_policy, builds, workspace_claim
from flotilla_operator.workloads.vector_index.milvus import milvus_claim, milvus_objects
from flotilla_operator.workloads.vector_index.retriever import retriever, retriever_objects


def claims_of(owner: Owner, spec: VectorIndexSpec) -> list[Manifest]:
    """The claims that the operator makes for the index."""
    claims = [milvus_claim(owner, spec)] if spec.milvus.mode is MilvusMode.LITE else []
    workspace = workspace_claim(owner, spec)
    return [*claims, workspace] if workspace is not None else claims


def standing_objects(
    owner: Owner,
    spec: VectorIndexSpec,
    images: Images,
    embedder: EmbedderSeen | None,
    secret_versions: Mapping[str, str] = MappingProxyType({}),
    *,
    keyless: bool = False,
) -> list[Manifest]:
    """Milvus Lite, unless Milvus is external, the builds' network policy and the retriever, in the order in
    which they are needed.

    `secret_versions` and `keyless` affect only the retriever; callers that need only names leave them out.
    """
    lite = (
        milvus_objects(owner, spec, images, [builds(owner), retriever(owner)])
        if spec.milvus.mode is MilvusMode.LITE
        else []
    )
    model = embedder.model if embedder else None
    retriever_parts = retriever_objects(owner, spec, images, model, secret_versions, keyless=keyless)
    return [*lite, build_policy(owner), *retriever_parts]
