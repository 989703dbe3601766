"""VectorIndexes: a small one that a row changes where it matters, and ones that use every field acted on."""

from collections.abc import Mapping
from typing import Any

from flotilla_operator.api.vector_index import VectorIndex, VectorIndexSpec
from flotilla_operator.objects.owners import Owner
from tests.builders.model_replica_set import merged
from tests.builders.pod_options import pod_options

OWNER = Owner(kind="VectorIndex", namespace="default", name="handbook", uid="uid-handbook")


def vector_index(
    name: str = "handbook",
    *,
    namespace: str = "default",
    generation: int = 1,
    annotations: Mapping[str, str] | None = None,
    status: Mapping[str, Any] | None = None,
    **spec: Any,
) -> dict[str, Any]:
    """An index over a folder of a claim, embedded by `minilm`."""
    base = {
        "source": {"path": "pvc://documents/handbook"},
        "embedding": {"modelRef": {"name": "minilm"}, "dimension": 384},
    }
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": namespace,
        "uid": f"uid-{name}",
        "generation": generation,
        "resourceVersion": "1",
        "creationTimestamp": "2026-05-01T11:00:00Z",
    }
    if annotations:
        metadata["annotations"] = dict(annotations)
    manifest = {
        "apiVersion": "flotilla.dev/v1alpha1",
        "kind": "VectorIndex",
        "metadata": metadata,
        "spec": merged(base, spec),
    }
    return manifest if status is None else {**manifest, "status": dict(status)}


def index_spec(**spec: Any) -> VectorIndexSpec:
    """The parsed spec of such an index."""
    return VectorIndex.model_validate(vector_index(**spec)).spec


def _on_lite() -> dict[str, Any]:
    return vector_index(
        "full-lite",
        milvus={
            "mode": "Lite",
            "image": "registry.example/own-milvus:1",
            "storage": {"size": "5Gi", "storageClassName": "fast"},
        },
        source={
            "path": "pvc://documents/handbook",
            "include": ["**/*.html", "**/*.md"],
            "exclude": ["drafts/**"],
            "revision": "2026-05-01",
        },
        processing={"chunkTokens": 200, "overlapTokens": 20, "maxDocumentMiB": 16},
        embedding={"modelRef": {"name": "minilm"}, "dimension": 384, "batchSize": 32, "normalize": False},
        index={"type": "IVFFlat", "metric": "InnerProduct", "parameters": {"nlist": 64}},
        build={
            "parallelism": 3,
            "shardDocuments": 500,
            "workspace": {"size": "3Gi", "storageClassName": "shared"},
            "maxFailedPercent": 2.5,
            "resources": {"requests": {"cpu": "1"}, "limits": {"memory": "2Gi"}},
        },
        gate={"countParity": True},
        retriever={
            "replicas": 2,
            "topK": 5,
            "deadlineMilliseconds": 900,
            "authSecretRef": {"name": "searchers"},
            "service": {"type": "LoadBalancer", "annotations": {"example.com/scheme": "internal"}},
        },
        retention={"generations": 3, "deletionPolicy": "Delete"},
        paused=False,
    )


def full_featured_objects() -> list[dict[str, Any]]:
    """Objects that together use every field this release acts on."""
    return [
        _on_lite(),
        vector_index(
            "full-external",
            milvus={
                "mode": "External",
                "uri": "http://milvus.example:19530",
                "tokenSecretRef": {"name": "milvus", "key": "pass"},
                "database": "books",
            },
            source={"path": "configmap://pages"},
            build={"workspace": {"claimName": "shared"}},
            retention={"deletionPolicy": "Delete"},
            paused=True,
        ),
        vector_index(
            "full-pods",
            milvus={"pod": pod_options()},
            build={"pod": pod_options(resources=False)},
            retriever={"pod": pod_options()},
        ),
    ]
