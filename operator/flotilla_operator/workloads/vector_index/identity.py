"""The ids of generations and builds: hashes of exactly what they depend on.

A generation depends on how vectors are made and stored. Another embedder, tokenizer, chunker, schema or index
makes another generation, which is built beside the live one. A build depends on its generation and on the
wanted documents. Neither depends on the operator's version; versions in the contract record changes of our
code that affect vectors.
"""

from dataclasses import dataclass

from flotilla_operator.api.model_replica_set import ModelReplicaSetSpec
from flotilla_operator.api.vector_index import IndexType, Metric, VectorIndexSpec
from flotilla_operator.objects.hashes import stable_hash
from flotilla_operator.objects.owners import Owner
from flotilla_runtime import contract

GENERATION_LENGTH = 8
# The names of Jobs contain these ids after up to 40 characters, and a shard's pod adds its index, all within
# 63.
BUILD_LENGTH = 6
PROMOTION_LENGTH = 4
INDEX_TYPES = {IndexType.HNSW: "HNSW", IndexType.IVF_FLAT: "IVF_FLAT", IndexType.FLAT: "FLAT"}
METRICS = {Metric.COSINE: "COSINE", Metric.INNER_PRODUCT: "IP", Metric.EUCLIDEAN: "L2"}
# Milvus itself has no defaults for these.
INDEX_PARAMETERS = {
    IndexType.HNSW: {"M": 16, "efConstruction": 200},
    IndexType.IVF_FLAT: {"nlist": 128},
    IndexType.FLAT: {},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedderModel:
    """The parts of the embedding ModelReplicaSet that matter to an index."""

    name: str
    url: str
    spec: ModelReplicaSetSpec

    @property
    def identity(self) -> str:
        """Source and revision of the weights."""
        model = self.spec.model
        return f"{model.source}@{model.revision}" if model.revision else model.source


def index_parameters(spec: VectorIndexSpec) -> dict[str, int]:
    """The parameters of the index: the defaults, overridden by the user's."""
    return {**INDEX_PARAMETERS[spec.index.type], **spec.index.parameters}


def generation_id(spec: VectorIndexSpec, embedder: EmbedderModel) -> str:
    """The id of the generation that the spec asks for."""
    depends_on = {
        "embedder": [embedder.name, embedder.spec.model.name, embedder.identity],
        "dimension": spec.embedding.dimension,
        "normalize": spec.embedding.normalize,
        "chunker": [spec.processing.chunk_tokens, spec.processing.overlap_tokens],
        "index": [spec.index.type.value, spec.index.metric.value, index_parameters(spec)],
        "versions": [contract.PARSER_VERSION, contract.CHUNKER_VERSION, contract.COLLECTION_SCHEMA_VERSION],
    }
    return "g-" + stable_hash(depends_on, length=GENERATION_LENGTH)


def build_id(spec: VectorIndexSpec, generation: str) -> str:
    """The id of the wanted build."""
    depends_on = {
        "generation": generation,
        "source": [spec.source.path, list(spec.source.include), list(spec.source.exclude)],
        "maxDocumentMiB": spec.processing.max_document_mib,
        "shardDocuments": spec.build.shard_documents,
        "milvus": [spec.milvus.mode.value, spec.milvus.uri, spec.milvus.database],
        "revision": spec.source.revision,
    }
    return stable_hash(depends_on, length=BUILD_LENGTH)


def promotion_id(spec: VectorIndexSpec, build: str) -> str:
    """The id of the wanted promotion: the build with these validation rules."""
    depends_on = {
        "build": build,
        "maxFailedPercent": spec.build.max_failed_percent,
        "countParity": spec.gate.count_parity,
        "generations": spec.retention.generations,
    }
    return stable_hash(depends_on, length=PROMOTION_LENGTH)


def alias_name(owner: Owner) -> str:
    """The index's alias in Milvus, where other indexes can exist too."""
    readable = f"{owner.namespace}_{owner.name}".replace("-", "_").replace(".", "_")
    return f"flotilla_{readable}_{stable_hash([owner.namespace, owner.name], length=6)}"


def collection_prefix(owner: Owner) -> str:
    """The prefix of the collections of all generations."""
    return f"{alias_name(owner)}_g_"


def collection_name(owner: Owner, generation: str) -> str:
    """The collection of a generation."""
    return collection_prefix(owner) + generation.removeprefix("g-")
