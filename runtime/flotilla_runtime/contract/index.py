"""Vector index: builds and the retriever."""

from enum import StrEnum
from typing import Final

from pydantic import Field

from flotilla_runtime.contract.names import DOMAIN, PORT_RETRIEVER
from flotilla_runtime.contract.sections import Section, WireModel

ANNOTATION_ATTEMPT: Final = f"{DOMAIN}/attempt"  # on a Job: how many times this step was tried before
LABEL_STEP: Final = f"{DOMAIN}/step"
LABEL_BUILD: Final = f"{DOMAIN}/build"

ENV_MILVUS_TOKEN: Final = "FLOTILLA_MILVUS_TOKEN"  # noqa: S105 (a name, not a token)
ENV_EMBEDDER_KEY: Final = "FLOTILLA_EMBEDDER_KEY"

SOURCE_DIRECTORY: Final = "/source"
WORKSPACE_DIRECTORY: Final = "/workspace"
TOKENIZER_DIRECTORY: Final = "/model"

EXIT_RETRY: Final = 1  # a step failed and another try may help
EXIT_PERMANENT: Final = 3  # a step failed until a person changes something

# What a change of our own code means for generations: each is part of a generation's id.
PARSER_VERSION: Final = 2
CHUNKER_VERSION: Final = 1
COLLECTION_SCHEMA_VERSION: Final = 1
CHUNK_PREFIX_TOKENS: Final = 32  # room for title and heading in front of a chunk's own tokens
CHUNK_SPECIAL_TOKENS: Final = 2  # what a tokenizer adds around a text


class BuildStep(StrEnum):
    """The steps of a build, in order; each is a Job."""

    PLAN = "plan"
    SHARDS = "shards"
    PROMOTE = "promote"


class BuildReason(StrEnum):
    """Why a step of a build stopped."""

    PATH_MISSING = "PathMissing"
    SOURCE_EMPTY = "SourceEmpty"
    SOURCE_UNREADABLE = "SourceUnreadable"
    EMBEDDER_UNREACHABLE = "EmbedderUnreachable"
    EMBEDDER_UNAUTHORIZED = "EmbedderUnauthorized"
    MODEL_UNKNOWN = "ModelUnknown"
    DIMENSION_MISMATCH = "DimensionMismatch"
    CHUNKS_TOO_LONG = "ChunksTooLong"
    MILVUS_UNREACHABLE = "MilvusUnreachable"
    WORKSPACE_INCOMPLETE = "WorkspaceIncomplete"
    TOO_MANY_DEAD_LETTERS = "TooManyDeadLetters"
    COUNT_MISMATCH = "CountMismatch"
    UNEXPECTED = "Unexpected"


class MilvusConnection(Section):
    """Where the index is kept; a token, if any, is in the environment variable ENV_MILVUS_TOKEN."""

    uri: str
    database: str = "default"


class Embedder(Section):
    """The model that made, or makes, a generation's vectors.

    `identity` is source and revision of its weights. `tokenizer_repository` is where the tokenizer is fetched
    from when no model folder is mounted at TOKENIZER_DIRECTORY.
    """

    model_ref: str
    url: str
    model: str
    identity: str
    dimension: int
    batch_size: int = 64
    normalize: bool = True
    tokenizer_repository: str | None = None
    tokenizer_revision: str | None = None


class SourceConfig(Section):
    """Which files under `root` are the documents; no include pattern means every file."""

    root: str
    uri: str
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    max_document_mib: int = 64


class ChunkingConfig(Section):
    """How long a chunk is, and how much of it the next one repeats."""

    chunk_tokens: int = 220
    overlap_tokens: int = 32


class CollectionConfig(Section):
    """The generation's own collection and how it is indexed; `prefix` starts the names of all generations."""

    name: str
    alias: str
    prefix: str
    index_type: str = "HNSW"
    metric: str = "COSINE"
    parameters: dict[str, int] = Field(default_factory=dict)
    shards: int = 1
    replicas: int = 1


class BuildConfig(Section):
    """`config.json` of the three steps of one build."""

    build: str
    generation: str
    source: SourceConfig
    chunking: ChunkingConfig = ChunkingConfig()
    embedder: Embedder
    milvus: MilvusConnection
    collection: CollectionConfig
    workspace: str = WORKSPACE_DIRECTORY
    shard_documents: int = 2000
    embedding_concurrency: int = 2
    max_failed_percent: float = 1
    require_count_parity: bool = True
    keep_generations: int = 2


class DocumentCounts(Section):
    """discovered = indexed + duplicates + dead_lettered, always; `removed` were indexed and are no more."""

    discovered: int = 0
    indexed: int = 0
    duplicates: int = 0
    dead_lettered: int = 0
    removed: int = 0


class DeadLetter(Section):
    """A document that could not be indexed, and why."""

    document: str
    reason: str
    message: str


class StepReport(Section):
    """What a step's pod leaves as its termination message, which is how the operator hears of it.

    `reason` is None when the step succeeded; else `message` says what to do. `dead_letters` is a sample: the
    whole list lies in the workspace.
    """

    step: BuildStep
    reason: BuildReason | None = None
    message: str = ""
    documents: DocumentCounts = DocumentCounts()
    chunks: int = 0
    shards: int = 0
    tokenizer: str = ""
    count_parity: bool | None = None
    dead_letters: tuple[DeadLetter, ...] = ()


class RetrieverConfig(Section):
    """`config.json` of the retriever; what embeds a query is written in the collection the alias leads to."""

    index: str
    milvus: MilvusConnection
    alias: str
    top_k: int = 8
    deadline_milliseconds: int = 500
    port: int = PORT_RETRIEVER


class RetrieveRequest(WireModel):
    """Body of POST /v1/retrieve."""

    query: str = Field(min_length=1, max_length=8192)
    top_k: int | None = Field(default=None, ge=1, le=100)


class Passage(WireModel):
    """One chunk of a document; `page` for PDF, `anchor` for HTML and Markdown, where there is one."""

    id: str
    document: str
    title: str
    heading: str
    page: int | None = None
    anchor: str | None = None
    text: str
    score: float


class RetrieveResponse(WireModel):
    """Answer of POST /v1/retrieve, best passage first."""

    passages: tuple[Passage, ...]
    generation: str
    took_milliseconds: float


class RetrieverStatus(WireModel):
    """Answer of GET /v1/status; `generation` is None before the first promotion."""

    index: str
    generation: str | None = None
    build: str | None = None
    chunks: int | None = None
    embedder: str | None = None
    problem: str | None = None
    requests: int = 0
    p50_milliseconds: float | None = None
    p99_milliseconds: float | None = None
