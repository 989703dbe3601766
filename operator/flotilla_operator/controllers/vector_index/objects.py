"""The objects of an index that stand for as long as it does; a build's Jobs come and go beside them."""

from collections.abc import Mapping
from types import MappingProxyType

from flotilla_operator.api.vector_index import MilvusMode, VectorIndexSpec
from flotilla_operator.cluster.writes import Manifest
from flotilla_operator.controllers.vector_index.seen import EmbedderSeen
from flotilla_operator.workloads.images import Images
from flotilla_operator.workloads.labels import Owner
from flotilla_operator.workloads.vector_index.build import builds, workspace_claim
from flotilla_operator.workloads.vector_index.milvus import milvus_claim, milvus_objects
from flotilla_operator.workloads.vector_index.retriever import retriever, retriever_objects


def claims_of(owner: Owner, spec: VectorIndexSpec) -> list[Manifest]:
    """The claims that we make."""
    claims = [milvus_claim(owner, spec)] if spec.milvus.mode is MilvusMode.LITE else []
    workspace = workspace_claim(owner, spec)
    return [*claims, workspace] if workspace is not None else claims


def standing_objects(
    owner: Owner,
    spec: VectorIndexSpec,
    images: Images,
    embedder: EmbedderSeen | None,
    secret_versions: Mapping[str, str] = MappingProxyType({}),
) -> list[Manifest]:
    """Milvus Lite, where it is ours, and the retriever, in the order in which they are needed.

    `secret_versions` decides about the retriever's pods alone; where only names matter, there are none.
    """
    lite = (
        milvus_objects(owner, spec, images, [builds(owner), retriever(owner)])
        if spec.milvus.mode is MilvusMode.LITE
        else []
    )
    model = embedder.spec if embedder else None
    return [*lite, *retriever_objects(owner, spec, images, model, secret_versions)]
