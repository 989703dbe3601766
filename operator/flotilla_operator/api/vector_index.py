"""VectorIndex: a folder of documents as a served index."""

from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field

from flotilla_operator.api.base import ApiModel, MapList, NotYet, NotYetValues, Rule, rules
from flotilla_operator.api.common import (
    CLAIM_FOLDER,
    NO_FOLDER_ABOVE,
    ApiObject,
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

CONFIG_MAP_FORM = r"^configmap://[a-z0-9]([-a-z0-9.]*[a-z0-9])?/?$"
PATH_FORM = (
    f"self.matches('{CLAIM_FOLDER}') || self.matches('{CONFIG_MAP_FORM}') || "
    "self.startsWith('s3://') || self.startsWith('https://')"
)


class MilvusMode(StrEnum):
    """How Milvus runs."""

    LITE = "Lite"
    STANDALONE = "Standalone"
    DISTRIBUTED = "Distributed"
    EXTERNAL = "External"


class IndexType(StrEnum):
    """How vectors are searched."""

    HNSW = "HNSW"
    IVF_FLAT = "IVFFlat"
    FLAT = "Flat"


class Metric(StrEnum):
    """What "near" means."""

    COSINE = "Cosine"
    INNER_PRODUCT = "InnerProduct"
    EUCLIDEAN = "Euclidean"


class Milvus(ApiModel):
    """The vector database that holds the index."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                rule="(self.mode == 'External') == has(self.uri)",
                message="spec.milvus.uri goes with mode External, and mode External needs it",
            ),
            Rule(
                rule="self.mode == 'External' || (self.database == 'default' && !has(self.tokenSecretRef))",
                message="spec.milvus.database and tokenSecretRef are for mode External; remove them, since "
                "Milvus Lite has one database and no users",
            ),
            Rule(
                rule="self.mode != 'External' || (!has(self.image) && "
                f"string(self.storage.size) == '{Storage.model_fields['size'].default}' && "
                "!has(self.storage.storageClassName))",
                message="spec.milvus.image and storage are for mode Lite; remove them, since Flotilla makes "
                "no Milvus in mode External",
            ),
        )
    )

    mode: Annotated[
        MilvusMode,
        NotYetValues(
            values=("Standalone", "Distributed"),
            rule="!(self in ['Standalone', 'Distributed'])",
            message="spec.milvus.mode Standalone and Distributed are not acted on by this release of "
            "Flotilla; use Lite or External",
            promise="runs a Milvus server, or a cluster through Milvus Operator",
        ),
    ] = MilvusMode.LITE
    """Lite: one pod with a claim. External: a Milvus you have, at `uri`."""
    image: ImageReference | None = None
    """The image of mode Lite; the chart's `images.milvus` where absent."""
    storage: Storage = Storage()
    """The claim of mode Lite."""
    uri: HttpUrl | None = None
    """Where the Milvus of mode External is."""
    token_secret_ref: TokenSecretRef | None = None
    """Its token, as `user:password`. The default key is `token`."""
    database: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] = (
        "default"
    )
    """The database in Milvus."""


class Source(ApiModel):
    """The documents."""

    path: Annotated[
        str,
        Field(min_length=1, max_length=1024),
        Rule(
            rule=PATH_FORM,
            message="spec.source.path must be pvc://claim/folder or configmap://name; a ConfigMap is read "
            "whole and has no folders: choose its entries with spec.source.include",
        ),
        Rule(
            rule=NO_FOLDER_ABOVE,
            message="spec.source.path must not lead upwards; name the folder without ..",
        ),
        NotYetValues(
            values=("s3://", "https://"),
            rule="!(self.startsWith('s3://') || self.startsWith('https://'))",
            message="spec.source.path s3:// and https:// are not acted on by this release of Flotilla; "
            "use pvc:// or configmap://",
            promise="reads documents from an object store or from a list of addresses",
        ),
    ]
    """Where they are, in the same namespace: `pvc://claim/folder` or `configmap://name`. Only read."""
    include: Annotated[tuple[ShortText, ...], Field(max_length=64)] = ()
    """Patterns of the files that count, for example `**/*.html`; all where empty."""
    exclude: Annotated[tuple[ShortText, ...], Field(max_length=64)] = ()
    """Patterns of files that do not count, though included."""
    revision: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    """Any text. Another one says that the documents have changed: they are read again, and what changed is
    indexed anew."""
    schedule: Annotated[
        Annotated[str, Field(max_length=128)] | None, NotYet("looks for changed documents by itself")
    ] = None
    """When to look for changes, as cron writes it."""
    secret_ref: Annotated[SecretRef | None, NotYet("signs in to an object store")] = None
    """Credentials of the object store."""
    endpoint: Annotated[HttpUrl | None, NotYet("names an object store that is not AWS")] = None
    """Where the object store is."""
    region: Annotated[
        Annotated[str, Field(max_length=64)] | None, NotYet("names the region of an object store")
    ] = None
    """The object store's region."""


class Deduplicate(ApiModel):
    """Leave out documents that are nearly the same."""

    threshold: Annotated[float, Field(gt=0, le=1)] = 0.8
    """The share of common shingles above which two documents count as one."""


class Processing(ApiModel):
    """How documents become chunks."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            Rule(
                rule="self.overlapTokens < self.chunkTokens",
                message="spec.processing.overlapTokens must be less than chunkTokens",
            )
        )
    )

    chunk_tokens: Annotated[int, Field(ge=16, le=8192)] = 220
    """How long a chunk is, in the embedder's tokens."""
    overlap_tokens: Annotated[int, Field(ge=0, le=4096)] = 32
    """How much of it the next one repeats."""
    deduplicate: Annotated[Deduplicate | None, NotYet("leaves out documents that are nearly the same")] = None
    """Leave out documents that are nearly the same."""
    max_document_mib: Annotated[int, Field(ge=1, le=4096)] = 64
    """Larger documents are not indexed but counted as dead letters."""


class Embedding(ApiModel):
    """The model that turns text into vectors."""

    model_ref: ObjectRef
    """A ModelReplicaSet with task Embed in the same namespace."""
    dimension: Annotated[int, Field(ge=2, le=32_768)]
    """How long its vectors are."""
    batch_size: Annotated[int, Field(ge=1, le=2048)] = 64
    """How many chunks go into one request."""
    normalize: bool = True
    """Scale vectors to length 1."""


class Index(ApiModel):
    """How vectors are kept and searched. A change builds a new generation aside and then swaps."""

    type: IndexType = IndexType.HNSW
    """HNSW: a graph, fast and nearly exact. IVFFlat: lists. Flat: exact, for small indexes."""
    metric: Metric = Metric.COSINE
    """What "near" means."""
    parameters: Annotated[dict[Annotated[str, Field(max_length=64)], int], Field(max_length=16)] = Field(
        default_factory=dict
    )
    """Parameters of the index as Milvus names them; for HNSW `M` and `efConstruction`."""
    shards: Annotated[
        Annotated[int, Field(ge=1, le=64)] | None, NotYet("spreads an index over several nodes")
    ] = None
    """Into how many shards the index is split."""
    replicas: Annotated[
        Annotated[int, Field(ge=1, le=32)] | None, NotYet("keeps an index in memory several times")
    ] = None
    """How often each shard is held in memory."""
    partition_key: Annotated[
        Annotated[str, Field(max_length=64)] | None, NotYet("keeps tenants apart inside one index")
    ] = None
    """The field whose values are kept apart."""
    hybrid: Annotated[bool | None, NotYet("searches by words as well as by meaning")] = None
    """Search by words as well."""


class Workspace(ApiModel):
    """Where a build keeps what it has made so far."""

    size: Quantity = "10Gi"
    """How much is asked for."""
    claim_name: ObjectName | None = None
    """A claim of your own instead; ReadWriteMany lets a build use several nodes."""
    storage_class_name: ObjectName | None = None
    """The storage class; the cluster's default where absent."""


class Build(ApiModel):
    """How an index is built."""

    parallelism: Annotated[int, Field(ge=1, le=256)] = 4
    """How many pods work at once."""
    shard_documents: Annotated[int, Field(ge=1, le=1_000_000)] = 2000
    """How many documents one of them takes at a time."""
    workspace: Workspace = Workspace()
    """Where a build keeps what it has made so far."""
    max_failed_percent: Annotated[float, Field(ge=0, le=100)] = 1
    """The share of documents that may fail before the build does."""
    resources: ResourceRequirements = ResourceRequirements()
    """What one build pod asks for (core/v1)."""


class Gate(ApiModel):
    """What a new generation must show before it is served."""

    count_parity: bool = True
    """Every document is accounted for: in = indexed + duplicates + dead letters."""
    min_recall_at_10: Annotated[
        Annotated[float, Field(ge=0, le=1)] | None, NotYet("measures the new generation against exact search")
    ] = None
    """The least share of the ten nearest that the index must find."""
    golden_set_ref: Annotated[
        ObjectRef | None, NotYet("asks the new generation questions whose answers are known")
    ] = None
    """A ConfigMap of questions and the documents that answer them."""
    min_ndcg: Annotated[
        Annotated[float, Field(ge=0, le=1)] | None,
        NotYet("judges the order of the answers to the golden set"),
    ] = None
    """The least nDCG on the golden set."""
    max_p99_milliseconds: Annotated[
        Annotated[int, Field(ge=1, le=60_000)] | None, NotYet("measures how fast the new generation answers")
    ] = None
    """The slowest that one search in a hundred may be."""
    sample: Annotated[
        Annotated[int, Field(ge=1, le=100_000)] | None, NotYet("says how many searches are measured")
    ] = None
    """How many searches are measured."""


class Hedge(ApiModel):
    """Ask again elsewhere when an answer is late."""

    enabled: bool = True
    """Whether."""
    budget_percent: Annotated[float, Field(ge=0, le=100)] = 5
    """The share of searches that may be asked twice."""


class Retriever(ApiModel):
    """The service that answers searches."""

    replicas: Annotated[int, Field(ge=1, le=100)] = 1
    """How many pods."""
    top_k: Annotated[int, Field(ge=1, le=100)] = 8
    """How many passages an answer has, where the caller does not say."""
    deadline_milliseconds: Annotated[int, Field(ge=10, le=60_000)] = 500
    """How long an answer may take."""
    hedge: Annotated[Hedge | None, NotYet("asks again elsewhere when an answer is late")] = None
    """Ask again elsewhere when an answer is late."""
    service: ServiceOptions = ServiceOptions()
    """The service `NAME-retriever`."""


class Freshness(ApiModel):
    """How far the index may be behind the documents."""

    max_lag_seconds: Annotated[int, Field(ge=1, le=31_536_000)] = 3600
    """The longest time from a change to its being served."""


class Retention(ApiModel):
    """What is kept."""

    generations: Annotated[int, Field(ge=1, le=10)] = 2
    """How many generations, the active one included."""
    deletion_policy: DeletionPolicy = DeletionPolicy.RETAIN
    """Retain: the index's data outlives this object. Delete: it goes with it."""


class VectorIndexSpec(ApiModel):
    """What is wanted."""

    milvus: Milvus = Milvus()
    """The vector database that holds the index."""
    source: Source
    """The documents."""
    processing: Processing = Processing()
    """How documents become chunks."""
    embedding: Embedding
    """The model that turns text into vectors."""
    index: Index = Index()
    """How vectors are kept and searched."""
    build: Build = Build()
    """How an index is built."""
    gate: Gate = Gate()
    """What a new generation must show before it is served."""
    retriever: Retriever = Retriever()
    """The service that answers searches."""
    freshness: Annotated[Freshness | None, NotYet("is measured and reported")] = None
    """How far the index may be behind the documents."""
    retention: Retention = Retention()
    """What is kept."""
    paused: bool = False
    """While true the operator changes nothing of this object's and only reports."""


class DocumentsStatus(ApiModel):
    """Documents of the newest build: discovered = indexed + duplicates + deadLettered, always."""

    discovered: Count = 0
    """Found at the source."""
    indexed: Count = 0
    """Served."""
    duplicates: Count = 0
    """Left out since another is the same."""
    dead_lettered: Count = 0
    """Not to be read; the message of the condition Built says why."""
    removed: Count = 0
    """Served before and no longer at the source."""


class StageStatus(ApiModel):
    """One step of the running build."""

    name: ShortText
    """Which."""
    done: Count = 0
    """Parts done."""
    total: Count = 0
    """All parts."""


class GateStatus(ApiModel):
    """What the newest generation showed."""

    recall_at_10: float | None = None
    """The share of the ten nearest that it found."""
    ndcg: float | None = Field(default=None, alias="nDCG")
    """On the golden set."""
    count_parity: bool | None = None
    """Whether every document is accounted for."""
    p99_milliseconds: float | None = None
    """The slowest search in a hundred."""
    verdict: ShortText | None = None
    """Passed or Failed."""
    time: Time | None = None
    """When it was measured."""


class ShardsStatus(ApiModel):
    """Shards of the served index."""

    desired: Count = 0
    """How many there should be."""
    ready: Count = 0
    """How many are loaded."""


class VectorIndexStatus(Status):
    """What there is."""

    phase: ShortText | None = None
    """Pending, Building, Validating, Promoting, Ready, Degraded or Deleting."""
    active_generation: ShortText | None = None
    """The generation that is served."""
    candidate_generation: ShortText | None = None
    """The one that is being built."""
    url: LongText | None = None
    """Where searches are sent."""
    documents: DocumentsStatus | None = None
    """Documents of the newest build."""
    chunks: int | None = None
    """Chunks that are served."""
    stages: Annotated[tuple[StageStatus, ...], MapList("name"), Field(max_length=16)] = ()
    """Steps of the running build."""
    gate: GateStatus | None = None
    """What the newest generation showed."""
    shards: ShardsStatus | None = None
    """Shards of the served index."""
    freshness_lag_seconds: int | None = None
    """How far the index is behind the documents."""
    blocked_by: LongText | None = None
    """What the build waits for."""


class VectorIndex(ApiObject):
    """Documents, parsed, chunked, embedded and served from Milvus, one immutable generation at a time."""

    spec: VectorIndexSpec
    """What is wanted."""
    status: VectorIndexStatus = VectorIndexStatus()
    """What there is."""
