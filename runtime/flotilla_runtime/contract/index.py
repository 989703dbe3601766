"""The contract for vector indexes: builds and the retriever."""

from enum import StrEnum
from typing import Final

from pydantic import Field

from flotilla_runtime.contract.names import CONFIG_DIRECTORY, DOMAIN, PORT_RETRIEVER
from flotilla_runtime.contract.sections import Section, WireModel

ANNOTATION_ATTEMPT: Final = f"{DOMAIN}/attempt"  # on a Job: how many attempts of the build came before
LABEL_STEP: Final = f"{DOMAIN}/step"
LABEL_BUILD: Final = f"{DOMAIN}/build"

ENV_MILVUS_TOKEN: Final = "FLOTILLA_MILVUS_TOKEN"  # noqa: S105 (a name, not a token)
ENV_EMBEDDER_KEY: Final = "FLOTILLA_EMBEDDER_KEY"
ENV_MEMORY_LIMIT: Final = "FLOTILLA_MEMORY_LIMIT_BYTES"  # of the build's container

SOURCE_DIRECTORY: Final = "/source"
WORKSPACE_DIRECTORY: Final = "/workspace"
CALLER_KEYS_DIRECTORY: Final = "/var/run/flotilla/keys"  # of the retriever: the mounted secret
KEYLESS_FILE: Final = "keyless"  # beside config.json; with the text KEYLESS searches need no key
KEYLESS: Final = "true"
TOKENIZER_DIRECTORY: Final = "/model"

EXIT_RETRY: Final = 1  # a step failed and another try may help
EXIT_PERMANENT: Final = 3  # a step failed until a person changes something

# Each version is part of a generation's id, so that a change of our code makes a new generation.
PARSER_VERSION: Final = 2
CHUNKER_VERSION: Final = 1
COLLECTION_SCHEMA_VERSION: Final = 1
CHUNK_PREFIX_TOKENS: Final = 32  # room for title and heading in front of a chunk's own tokens
CHUNK_SPECIAL_TOKENS: Final = 2  # the tokens that a tokenizer adds around a text


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
    SECRET_UNUSABLE = "SecretUnusable"  # noqa: S105 (a reason, not a secret)
    TOO_MANY_DEAD_LETTERS = "TooManyDeadLetters"
    COUNT_MISMATCH = "CountMismatch"
    UNEXPECTED = "Unexpected"


class MilvusConnection(Section):
    """The Milvus that holds the index; its token, if any, is in the environment variable ENV_MILVUS_TOKEN."""

    uri: str
    database: str = "default"


class Embedder(Section):
    """The model that makes or made a generation's vectors.

    `identity` is the source and revision of its weights. The tokenizer is fetched from `tokenizer_repository`
    when no model folder is mounted at TOKENIZER_DIRECTORY.
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
    """The choice of documents among the files under `root`; without include patterns, all files are."""

    root: str
    uri: str
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    max_document_mib: int = 64


class ChunkingConfig(Section):
    """The length of a chunk, and how much of it the next chunk repeats, in tokens."""

    chunk_tokens: int = 220
    overlap_tokens: int = 32


class CollectionConfig(Section):
    """The collection of the generation and its index; the names of all generations start with `prefix`."""

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
    """Always discovered = indexed + duplicates + dead_lettered. `removed` were in the index before."""

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
    """The report of a build step, which its pod writes as termination message for the operator.

    `reason` is None when the step succeeded; else `message` says what is wrong. `dead_letters` is a sample;
    the whole list is in the workspace.
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


class EmbedderAddress(Section):
    """The base URL at which a ModelReplicaSet that embeds is called."""

    model_ref: str
    url: str


class RetrieverConfig(Section):
    """`config.json` of the retriever.

    The collection of the alias says which ModelReplicaSet embedded it. Its address comes from here:
    `embedder` is the one of the spec, and any other is called at one of the addresses that routers of
    `namespace` have. Without a namespace, as an operator of version 0.1.0 writes it, the collection's address
    is used.

    Each entry in `caller_keys_directory` is the key of a caller. Without it everybody may search. While the
    file `keyless_path` says KEYLESS, so may whoever sends no key. Both are read again when they change.
    """

    index: str
    namespace: str | None = None
    embedder: EmbedderAddress | None = None
    milvus: MilvusConnection
    alias: str
    top_k: int = 8
    deadline_milliseconds: int = 500
    caller_keys_directory: str | None = None
    keyless_path: str = f"{CONFIG_DIRECTORY}/{KEYLESS_FILE}"
    port: int = PORT_RETRIEVER


class RetrieveRequest(WireModel):
    """The body of POST /v1/retrieve."""

    query: str = Field(min_length=1, max_length=8192)
    top_k: int | None = Field(default=None, ge=1, le=100)


class Passage(WireModel):
    """One chunk of a document; with `page` for PDF, and `anchor` for HTML and Markdown where it has one."""

    id: str
    document: str
    title: str
    heading: str
    page: int | None = None
    anchor: str | None = None
    text: str
    score: float = Field(allow_inf_nan=False)  # it stands in journals, which others read


class RetrieveResponse(WireModel):
    """The answer to POST /v1/retrieve, best passage first."""

    passages: tuple[Passage, ...]
    generation: str
    took_milliseconds: float


class RetrieverStatus(WireModel):
    """The answer to GET /v1/status; `generation` is None before the first promotion."""

    index: str
    generation: str | None = None
    build: str | None = None
    chunks: int | None = None
    embedder: str | None = None
    problem: str | None = None
    requests: int = 0
    p50_milliseconds: float | None = None
    p99_milliseconds: float | None = None
