"""The kind VectorIndex: a search service over a folder of documents."""

from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field

from flotilla_operator.api.base import ApiModel, MapList, NotYet, NotYetReported, NotYetValues, Rule, rules
from flotilla_operator.api.parts import (
    CLAIM_FOLDER,
    NO_FOLDER_ABOVE,
    ApiObject,
    Conditions,
    Count,
    DeletionPolicy,
    HttpUrl,
    ImageReference,
    LongText,
    ObjectName,
    ObjectRef,
    Quantity,
    ResourceRequirements,
    SecretRef,
    ServiceOptions,
    ShortText,
    Status,
    Storage,
    Time,
    TokenSecretRef,
)
from flotilla_operator.api.pods import PodOptions, PodOptionsWithResources, PodRules

CONFIG_MAP_FORM = r"^configmap://[a-z0-9]([-a-z0-9.]*[a-z0-9])?/?$"
PATH_FORM = (
    f"self.matches('{CLAIM_FOLDER}') || self.matches('{CONFIG_MAP_FORM}') || "
    "self.startsWith('s3://') || self.startsWith('https://')"
)


class MilvusMode(StrEnum):
    """Milvus that stores the index."""

    LITE = "Lite"
    STANDALONE = "Standalone"
    DISTRIBUTED = "Distributed"
    EXTERNAL = "External"


class IndexType(StrEnum):
    """How vectors are indexed for search."""

    HNSW = "HNSW"
    IVF_FLAT = "IVFFlat"
    FLAT = "Flat"


class Metric(StrEnum):
    """How the similarity of two vectors is measured."""

    COSINE = "Cosine"
    INNER_PRODUCT = "InnerProduct"
    EUCLIDEAN = "Euclidean"


class Milvus(ApiModel):
    """The Milvus vector database that stores the index."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                rule="(self.mode == 'External') == has(self.uri)",
                message="spec.milvus.uri is required with spec.milvus.mode External and not allowed with "
                "other modes; set uri with mode External, and remove it with any other mode",
            ),
            Rule(
                rule="self.mode == 'External' || (self.database == 'default' && !has(self.tokenSecretRef))",
                message="spec.milvus.database and spec.milvus.tokenSecretRef are for spec.milvus.mode "
                "External only, because Milvus Lite has one database and no users; remove them",
            ),
            Rule(
                rule="self.mode != 'External' || (!has(self.image) && !has(self.pod) && "
                f"string(self.storage.size) == '{Storage.model_fields['size'].default}' && "
                "!has(self.storage.storageClassName))",
                message="spec.milvus.image, spec.milvus.storage and spec.milvus.pod are for spec.milvus.mode "
                "Lite only; remove them",
            ),
        )
    )

    mode: Annotated[
        MilvusMode,
        NotYetValues(
            values=("Standalone", "Distributed"),
            rule="!(self in ['Standalone', 'Distributed'])",
            message="spec.milvus.mode Standalone and Distributed are not yet supported; set mode Lite or "
            "External",
            promise="Standalone: runs a Milvus server. Distributed: runs a cluster with Milvus Operator.",
        ),
    ] = MilvusMode.LITE
    """Lite: Flotilla runs Milvus Lite in one pod with a PersistentVolumeClaim. External: the index is stored
    in an existing Milvus at `uri`. Not yet supported: Standalone and Distributed."""
    image: ImageReference | None = None
    """Container image of Milvus Lite, for mode Lite. Absent: the chart's `images.milvus`."""
    storage: Storage = Storage()
    """PersistentVolumeClaim of Milvus Lite, for mode Lite."""
    pod: Annotated[PodOptionsWithResources, PodRules("spec.milvus.pod")] = PodOptionsWithResources()
    """Options of the pod of Milvus Lite, for mode Lite. A change restarts it."""
    uri: HttpUrl | None = None
    """URL of the existing Milvus, for example `http://milvus:19530`. Required with mode External."""
    token_secret_ref: TokenSecretRef | None = None
    """Secret with the token of the existing Milvus, written `user:password`. Absent: no token is sent."""
    database: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] = (
        "default"
    )
    """Database in the existing Milvus, for mode External."""


class Source(ApiModel):
    """The documents to index."""

    path: Annotated[
        str,
        Field(min_length=1, max_length=1024),
        Rule(
            rule=PATH_FORM,
            message="spec.source.path must be pvc://claim/folder or configmap://name; to index only some "
            "entries of a ConfigMap, list them in spec.source.include",
        ),
        Rule(
            rule=NO_FOLDER_ABOVE,
            message="spec.source.path must not contain a folder named ..; write the path without it",
        ),
        NotYetValues(
            values=("s3://", "https://"),
            rule="!(self.startsWith('s3://') || self.startsWith('https://'))",
            message="spec.source.path with s3:// or https:// is not yet supported; use pvc:// or configmap://",
            promise="Reads documents from an object store, or from a list of URLs.",
        ),
    ]
    """Where the documents are: `pvc://claim/folder` (a folder of a PersistentVolumeClaim) or
    `configmap://name` (all entries of a ConfigMap), in the same namespace. They are only read. Not yet
    supported: `s3://` and `https://`."""
    include: Annotated[tuple[ShortText, ...], Field(max_length=64)] = ()
    """Patterns of the files to index, compared with each file's whole path below `path`. `*` matches any text
    without a slash, `**/` any folders or none, and `?` one character: `*.html` matches `a.html`, and
    `**/*.html` also `x/y/a.html`. Empty: all files."""
    exclude: Annotated[tuple[ShortText, ...], Field(max_length=64)] = ()
    """Patterns of files that are not indexed, even if `include` matches them."""
    revision: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    """Any text, for example a date. Change it when the documents have changed: they are then read again, and
    the changed ones are indexed again. Absent: documents are read again only when another change starts a
    build. These are changes of `source`, `processing`, `embedding` (without `batchSize`), `index`,
    `milvus.mode`, `milvus.uri`, `milvus.database`, `build.shardDocuments`, or of the embedding model's
    name, source or revision."""
    schedule: Annotated[
        Annotated[str, Field(max_length=128)] | None,
        NotYet("change spec.source.revision when the documents have changed"),
    ] = None
    """When to look for changed documents, in the format of cron."""
    secret_ref: Annotated[SecretRef | None, NotYet()] = None
    """Secret with the credentials of the object store."""
    endpoint: Annotated[HttpUrl | None, NotYet()] = None
    """URL of the object store. Absent: that of AWS."""
    region: Annotated[Annotated[str, Field(max_length=64)] | None, NotYet()] = None
    """Region of the object store."""


class Deduplicate(ApiModel):
    """Removal of documents that are nearly the same as another one."""

    threshold: Annotated[float, Field(gt=0, le=1)] = 0.8
    """Share of common shingles (short word sequences), from 0 to 1, above which two documents count as the
    same."""


class Processing(ApiModel):
    """How documents are cut into chunks."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                rule="self.overlapTokens < self.chunkTokens",
                message="spec.processing.overlapTokens must be less than spec.processing.chunkTokens; lower "
                "overlapTokens, or raise chunkTokens",
            )
        )
    )

    chunk_tokens: Annotated[int, Field(ge=16, le=8192)] = 220
    """Length of the longest chunk, in tokens of the embedding model."""
    overlap_tokens: Annotated[int, Field(ge=0, le=4096)] = 32
    """How many tokens at the end of a chunk the next chunk repeats."""
    deduplicate: Annotated[Deduplicate | None, NotYet()] = None
    """Leaves out documents that are nearly the same as another one."""
    max_document_mib: Annotated[int, Field(ge=1, le=4096)] = 64
    """Size of the largest document, in MiB. A larger one is not indexed and counts as a dead letter, which is
    a document that could not be indexed."""


class Embedding(ApiModel):
    """The model that turns chunks and queries into vectors."""

    model_ref: ObjectRef
    """A ModelReplicaSet with task Embed in the same namespace."""
    dimension: Annotated[int, Field(ge=2, le=32_768)]
    """Dimension of the model's vectors: how many numbers each has."""
    batch_size: Annotated[int, Field(ge=1, le=2048)] = 64
    """How many chunks are sent to the model in one request."""
    normalize: bool = True
    """Whether vectors are scaled to length 1."""


class Index(ApiModel):
    """How Milvus stores and searches vectors."""

    type: IndexType = IndexType.HNSW
    """HNSW: a graph, which is fast and nearly exact. IVFFlat: clusters of vectors, of which only the nearest
    are searched. Flat: every vector is compared, which is exact and for small indexes."""
    metric: Metric = Metric.COSINE
    """How the similarity of two vectors is measured. Cosine: by their angle. InnerProduct: by their inner
    product. Euclidean: by their distance."""
    parameters: Annotated[dict[Annotated[str, Field(max_length=64)], int], Field(max_length=16)] = Field(
        default_factory=dict
    )
    """Parameters for building the index, with the names of Milvus. Absent: `M` 16 and `efConstruction` 200
    for HNSW, `nlist` 128 for IVFFlat."""
    shards: Annotated[Annotated[int, Field(ge=1, le=64)] | None, NotYet()] = None
    """Into how many shards the index is divided, so that several nodes can hold it."""
    replicas: Annotated[Annotated[int, Field(ge=1, le=32)] | None, NotYet()] = None
    """How many copies of each shard are held in memory."""
    partition_key: Annotated[Annotated[str, Field(max_length=64)] | None, NotYet()] = None
    """Field whose values separate the tenants of one index."""
    hybrid: Annotated[bool | None, NotYet()] = None
    """Whether to search by words as well as by vectors."""


class Workspace(ApiModel):
    """The claim on which a build stores intermediate files."""

    size: Quantity = "10Gi"
    """Size of the claim that Flotilla creates."""
    claim_name: ObjectName | None = None
    """Name of an existing claim to use instead. If its access mode is ReadWriteMany, a build uses several
    nodes. Absent: Flotilla creates a claim, and all pods of a build run on one node."""
    storage_class_name: ObjectName | None = None
    """StorageClass of the claim that Flotilla creates. Absent: the cluster's default."""


class Build(ApiModel):
    """How a generation of the index is built."""

    parallelism: Annotated[int, Field(ge=1, le=256)] = 4
    """How many pods parse and embed documents at the same time."""
    shard_documents: Annotated[int, Field(ge=1, le=1_000_000)] = 2000
    """How many documents make up one build shard. A pod indexes one build shard at a time."""
    workspace: Workspace = Workspace()
    """The PersistentVolumeClaim on which a build stores intermediate files."""
    max_failed_percent: Annotated[float, Field(ge=0, le=100)] = 1
    """Share of documents, in percent, that may be dead letters (documents that could not be indexed). If
    there are more, the build fails and the generation that is served stays."""
    resources: ResourceRequirements = ResourceRequirements()
    """Resource requests and limits (core/v1) of each build pod. The parser of documents gets half of the
    limit of memory, and 2Gi at most. Absent: 100m CPU and 512Mi memory are requested, and memory is limited
    to 2Gi, or to what is requested if that is more; each holds unless you set that one."""
    pod: Annotated[
        PodOptions,
        PodRules("spec.build.pod", ("HF_TOKEN", "HF_ENDPOINT", "JOB_UID")),
    ] = PodOptions()
    """Options of the pods of a build, beside `resources`. A change takes effect with the next Job: running
    ones keep what they have."""


class Gate(ApiModel):
    """The checks that a new generation must pass before it is served."""

    count_parity: bool = True
    """Whether Milvus must hold exactly as many chunks as the build stored. If false, a difference is only
    reported in `status.gate.countParity`."""
    min_recall_at_10: Annotated[Annotated[float, Field(ge=0, le=1)] | None, NotYet()] = None
    """Lowest recall at 10, from 0 to 1: the share of the ten nearest chunks, by exact search, that the new
    generation finds."""
    golden_set_ref: Annotated[ObjectRef | None, NotYet()] = None
    """ConfigMap with the golden set: questions, and the documents that answer them."""
    min_ndcg: Annotated[Annotated[float, Field(ge=0, le=1)] | None, NotYet()] = None
    """Lowest nDCG of the new generation on the golden set, from 0 to 1. nDCG (normalised discounted
    cumulative gain) says how far up the right documents are among the results."""
    max_p99_milliseconds: Annotated[Annotated[int, Field(ge=1, le=60_000)] | None, NotYet()] = None
    """Longest time of a search, in milliseconds, that 99 % of searches must meet."""
    sample: Annotated[Annotated[int, Field(ge=1, le=100_000)] | None, NotYet()] = None
    """How many searches are measured."""


class Hedge(ApiModel):
    """A second search, sent when the first one is slow."""

    enabled: bool = True
    """Whether slow searches are sent a second time."""
    budget_percent: Annotated[float, Field(ge=0, le=100)] = 5
    """Share of searches, in percent, that may be sent a second time."""


class Retriever(ApiModel):
    """The pods that answer searches."""

    replicas: Annotated[int, Field(ge=1, le=100)] = 1
    """How many retriever pods run."""
    top_k: Annotated[int, Field(ge=1, le=100)] = 8
    """How many passages an answer has if the caller does not say."""
    deadline_milliseconds: Annotated[int, Field(ge=10, le=60_000)] = 500
    """How long an answer may take, in milliseconds. After that the search is answered with 504."""
    hedge: Annotated[Hedge | None, NotYet()] = None
    """Sends a search to a second pod when the first one is slow."""
    auth_secret_ref: SecretRef | None = None
    """Secret with the keys of callers: the name of each entry is a caller, its value is the bearer token of
    that caller. An AgentFleet needs an entry `agentfleet-NAME` there. A change takes effect without a
    restart. Absent: Flotilla makes a key in the Secret `NAME-retriever-key`, and the AgentFleets of the
    namespace send it."""
    service: ServiceOptions = ServiceOptions()
    """Options of the service `NAME-retriever`, at which searches are answered."""
    pod: Annotated[PodOptionsWithResources, PodRules("spec.retriever.pod")] = PodOptionsWithResources()
    """Options of the retriever pods. A change replaces them one after another."""


class Freshness(ApiModel):
    """How far the index may lag behind the documents."""

    max_lag_seconds: Annotated[int, Field(ge=1, le=31_536_000)] = 3600
    """Longest time from the change of a document until it is served, in seconds."""


class Retention(ApiModel):
    """Rules for the data to keep."""

    generations: Annotated[int, Field(ge=1, le=10)] = 2
    """How many of the generations that were served are kept in Milvus, the active one included."""
    deletion_policy: DeletionPolicy = DeletionPolicy.RETAIN
    """Action on the index's data when this object is deleted. Retain: with mode Lite, the claim of Milvus
    Lite is kept, and with mode External, the collections in your Milvus. Delete: they are deleted."""


class VectorIndexSpec(ApiModel):
    """Desired state of an index."""

    milvus: Milvus = Milvus()
    """The Milvus vector database that stores the index."""
    source: Source
    """The documents to index."""
    processing: Processing = Processing()
    """How documents are cut into chunks. A chunk is the piece of text that gets one vector; a search returns
    chunks as its passages."""
    embedding: Embedding
    """The model that turns chunks and queries into vectors."""
    index: Index = Index()
    """How Milvus stores and searches vectors. A change builds a new generation of the index."""
    build: Build = Build()
    """How a generation of the index is built. Three Jobs run one after another: Plan finds the documents,
    Index parses, embeds and stores them, and Promote checks the result and makes it the one that is served. A
    change of embedding, chunk sizes or index makes a new generation; changed documents are indexed within the
    same one."""
    gate: Gate = Gate()
    """The checks that a build must pass before its generation is served."""
    retriever: Retriever = Retriever()
    """The pods that answer searches."""
    freshness: Annotated[Freshness | None, NotYet()] = None
    """How far the index may lag behind the documents."""
    retention: Retention = Retention()
    """How many generations are kept, and what happens to the data when this object is deleted."""
    paused: bool = False
    """While true, the operator changes nothing of this index and only updates its status."""


class DocumentsStatus(ApiModel):
    """Counts of documents. discovered is always the sum of indexed, duplicates and deadLettered."""

    discovered: Count = 0
    """Documents that were found at the source."""
    indexed: Count = 0
    """Documents that are in the index."""
    duplicates: Count = 0
    """Documents that were left out because another one is the same. 0 while `spec.processing.deduplicate` is
    not supported."""
    dead_lettered: Count = 0
    """Dead letters: documents that could not be indexed. The message of the condition Built gives examples
    and their causes."""
    removed: Count = 0
    """Documents that this build removed from the index, because they are no longer at the source or can no
    longer be indexed."""


class StageStatus(ApiModel):
    """One step of a build."""

    name: ShortText
    """Plan, Index or Promote. `spec.build` says what each step does."""
    done: Count = 0
    """How many parts of the step are done."""
    total: Count = 0
    """How many parts the step has: one, or for Index one for each build shard of `spec.build.shardDocuments`
    documents."""


class GateStatus(ApiModel):
    """The results of the checks of the gate."""

    recall_at_10: Annotated[float | None, NotYetReported()] = None
    """Recall at 10, from 0 to 1: the share of the ten nearest chunks, by exact search, that the index
    finds."""
    ndcg: Annotated[float | None, NotYetReported()] = Field(default=None, alias="nDCG")
    """nDCG (normalised discounted cumulative gain) on the golden set, from 0 to 1: how far up the right
    documents are among the results."""
    count_parity: bool | None = None
    """Whether Milvus holds exactly as many chunks as the build stored. Absent when the build had too many
    dead letters and was not checked further."""
    p99_milliseconds: Annotated[float | None, NotYetReported()] = None
    """Time that 99 % of the measured searches took at most, in milliseconds."""
    verdict: ShortText | None = None
    """Passed: the generation is served. Failed: the generation that was served before, if any, is still
    served."""
    time: Time | None = None
    """When this result was first reported."""


class ShardsStatus(ApiModel):
    """The shards of the index in Milvus."""

    desired: Count = 0
    """Number of shards that the index has. It is 1 while `spec.index.shards` is not supported."""
    ready: Count = 0
    """Number of shards that are loaded and can be searched."""


class KeysStatus(ApiModel):
    """The keys of searches."""

    secret_name: ShortText
    """Secret with the keys that the retriever was given."""
    entry: ShortText | None = None
    """Entry with the key that Flotilla made. Absent with `spec.retriever.authSecretRef`, where each caller
    has an entry of its own."""
    required: bool = False
    """Whether searches without a key are refused. It becomes true, and stays so, once no AgentFleet of the
    namespace has workers of a release that sends no keys. The retrievers follow within about a minute."""


class VectorIndexStatus(Status):
    """State that the operator last saw."""

    conditions: Conditions = ()
    """State of the index, one condition for each aspect. SpecValid: the operator can act on the spec.
    SourceReachable: the documents were found. EmbedderReady: the embedding model serves. MilvusReady: Milvus
    can be used. Built: the index that the spec asks for is built and served. Validated: its build passed the
    gate. RetrieverReady: a retriever pod is ready. Ready: the summary, True when all of these are.
    Reconciling: Ready is not True, and the operator expects it to become True without help. Stalled: Ready is
    not True, and a person must act."""
    phase: ShortText | None = None
    """Pending: nothing is served, and no build runs. Building: a build reads and indexes documents.
    Validating: a build is checked by the gate. Promoting: the first generation is about to be served. Ready:
    the index is served and up to date. Degraded: a generation is served, but the newest build failed or
    waits, or a part that the index needs is not ready. Deleting: the index is being deleted."""
    active_generation: ShortText | None = None
    """Generation that is served. A generation is a version of the index with its own embedding model, chunk
    sizes and index settings; its name is a hash over them."""
    candidate_generation: ShortText | None = None
    """Generation that is being built to replace the active one. Absent when there is none."""
    url: LongText | None = None
    """URL to which searches are posted, ending in /v1/retrieve. docs/search.md in Flotilla's repository
    explains the request and the answer."""
    keys: KeysStatus | None = None
    """Secret with the keys of searches, and whether they need one. Absent until there is a Secret."""
    documents: DocumentsStatus | None = None
    """Counts of documents of the last completed build."""
    chunks: int | None = None
    """Number of chunks in the active generation."""
    stages: Annotated[tuple[StageStatus, ...], MapList("name"), Field(max_length=16)] = ()
    """Progress of the newest build, one entry for each of its steps Plan, Index and Promote."""
    gate: GateStatus | None = None
    """Results of the newest build in the checks of `spec.gate`."""
    shards: ShardsStatus | None = None
    """Shards of the index in Milvus. They are not the shards of a build."""
    freshness_lag_seconds: Annotated[int | None, NotYetReported()] = None
    """How far the index lags behind the documents, in seconds."""
    blocked_by: LongText | None = None
    """Condition that keeps a build from starting, with its message. Absent when nothing does."""


class VectorIndex(ApiObject):
    """A search service over a folder of documents, at the URL in `status.url`. Flotilla parses the documents,
    cuts them into chunks, turns the chunks into vectors with an embedding model, and stores and searches the
    vectors in Milvus. A change of the embedding model, the chunk sizes or the index settings builds a new
    generation of the index beside the one that is served. The new generation is served when it is complete
    and has passed its checks."""

    spec: VectorIndexSpec
    """Desired state: the documents, the embedding model and how the index is built and served."""
    status: VectorIndexStatus = VectorIndexStatus()
    """State that the operator last saw: generations, builds, documents and conditions. The operator writes
    it."""
