"""A generation's collection in Milvus, and the alias that makes one of them the index.

The descriptor (which model made the vectors, and what it makes of `CANARY`) is kept with the collection, so
that whoever resolves the alias knows how to embed a query, and can prove that a model is the one it claims
to be. It is a collection property as well as the description, because Milvus Lite keeps only the first.

Calls block: asynchronous code runs them in threads (pymilvus' own asynchronous client cannot create an index
on Milvus Lite). Reads that decide anything are strongly consistent.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import grpc
from pydantic import BaseModel, ConfigDict, ValidationError
from pymilvus import MilvusClient, MilvusException

from flotilla_runtime.contract import BuildReason, CollectionConfig, Embedder, MilvusConnection
from flotilla_runtime.indexing.embedding import Vector
from flotilla_runtime.indexing.errors import BuildError
from flotilla_runtime.indexing.records import Chunk
from flotilla_runtime.indexing.rows import row_of, schema_of

CANARY: Final = "flotilla"  # a text that is embedded to recognise a model by
DESCRIPTOR: Final = "flotilla.descriptor"
ALIAS_NOT_FOUND: Final = frozenset({100, 1600})  # Milvus Lite's code, and Milvus'
NOT_LOADED: Final = 101
CONNECT_TIMEOUT_SECONDS: Final = 10.0
READ_TIMEOUT_SECONDS: Final = 30.0  # of one call; a Milvus that accepts and says nothing is away
# The client's own ping every 10 s makes Milvus Lite hang up on a connection that is idle for half a minute.
KEEPALIVE: Final = {"grpc.keepalive_time_ms": 600_000, "grpc.keepalive_permit_without_calls": 0}
ROWS_A_PAGE: Final = 1_000
PASSAGE_FIELDS: Final = ("document", "title", "heading", "anchor", "page", "text")

logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # what it logs as an error, it raises too


class Descriptor(BaseModel):
    """What a generation was made with."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    generation: str
    build: str
    embedder: Embedder
    metric: str
    canary: tuple[float, ...]
    promoted_at: float | None = None  # Unix seconds; None: it never was live


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredDocument:
    """What the collection holds of a document; `complete` when it is all of one version."""

    hash: str
    chunks: int
    complete: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """A row that a search found."""

    id: str
    score: float
    fields: Mapping[str, Any]


class Store:
    """Collections and aliases of one Milvus database."""

    def __init__(self, connection: MilvusConnection, token: str | None = None) -> None:
        self._connection = connection
        self._token = token

    @cached_property
    def _client(self) -> MilvusClient:
        """The connection, made when it is first needed, so that a server may start before Milvus does."""
        with self._errors():
            return MilvusClient(
                uri=self._connection.uri,
                token=self._token or "",
                db_name="" if self._connection.database == "default" else self._connection.database,
                timeout=CONNECT_TIMEOUT_SECONDS,
                grpc_options=KEEPALIVE,
            )

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Milvus' errors as ours: whether it is away or wrong for good cannot be told, so try again.

        A connection that broke comes back by itself, some seconds after Milvus does. Codes that pymilvus does
        not try again (a deadline, a permission) come out of it as gRPC's own errors.
        """
        try:
            yield
        except MilvusException as error:
            raise BuildError(
                BuildReason.MILVUS_UNREACHABLE, f"Milvus said no ({error.code}): {error.message}"
            ) from error
        except grpc.RpcError as error:
            said = f"{error.code().name}: {error.details()}" if isinstance(error, grpc.Call) else repr(error)
            raise BuildError(BuildReason.MILVUS_UNREACHABLE, f"Milvus did not answer ({said})") from error
        except grpc.FutureTimeoutError as error:
            raise BuildError(BuildReason.MILVUS_UNREACHABLE, "Milvus did not answer in time") from error

    def close(self) -> None:
        """Close the connection, if there is one."""
        if "_client" in self.__dict__:
            self._client.close()

    def collections(self, prefix: str) -> list[str]:
        """The collections whose names start with `prefix`, by name."""
        with self._errors():
            found = self._client.list_collections(timeout=READ_TIMEOUT_SECONDS)
            return sorted(name for name in found if name.startswith(prefix))

    def create(self, collection: CollectionConfig, descriptor: Descriptor) -> None:
        """Create the collection with its index; one that is there already is left alone."""
        with self._errors():
            if self._client.has_collection(collection.name, timeout=READ_TIMEOUT_SECONDS):
                self._client.load_collection(collection.name)
                return
            index = self._client.prepare_index_params()
            index.add_index(
                "vector",
                index_type=collection.index_type,
                metric_type=collection.metric,
                params=dict(collection.parameters),
            )
            about = descriptor.model_dump_json()
            self._client.create_collection(
                collection.name,
                schema=schema_of(descriptor.embedder.dimension, about),
                index_params=index,
                num_shards=collection.shards,
                consistency_level="Strong",
                properties={DESCRIPTOR: about},
            )
            self._client.load_collection(collection.name, replica_number=collection.replicas)

    def describe(self, collection: str) -> Descriptor | None:
        """The descriptor of a collection, None when it is not one of ours."""
        with self._errors():
            found = self._client.describe_collection(collection, timeout=READ_TIMEOUT_SECONDS)
        for text in (found.get("properties", {}).get(DESCRIPTOR), found.get("description")):
            try:
                return Descriptor.model_validate_json(text or "")
            except ValidationError:
                continue
        return None

    def mark_promoted(self, collection: str, descriptor: Descriptor) -> None:
        """Write which build the collection shows now."""
        with self._errors():
            self._client.alter_collection_properties(
                collection, properties={DESCRIPTOR: descriptor.model_dump_json()}
            )

    def resolve(self, alias: str) -> str | None:
        """The collection an alias leads to, None when there is no such alias."""
        with self._errors():
            try:
                found = self._client.describe_alias(alias, timeout=READ_TIMEOUT_SECONDS)
            except MilvusException as error:
                if error.code in ALIAS_NOT_FOUND:
                    return None
                raise
            return str(found["collection_name"])

    def point(self, alias: str, collection: str) -> None:
        """Let the alias lead to the collection, at once and for every reader."""
        current = self.resolve(alias)
        with self._errors():
            if current is None:
                self._client.create_alias(collection, alias)
            elif current != collection:
                self._client.alter_alias(collection, alias)

    def drop(self, collection: str) -> None:
        """Drop a collection; one that is not there is no error."""
        with self._errors():
            self._client.drop_collection(collection)

    def drop_alias(self, alias: str) -> None:
        """Drop an alias; one that is not there is no error."""
        if self.resolve(alias) is not None:
            with self._errors():
                self._client.drop_alias(alias)

    def upsert(
        self, collection: str, content_hash: str, total: int, rows: Sequence[tuple[Chunk, Sequence[float]]]
    ) -> None:
        """Write chunks of one document; `total` is how many it has."""
        with self._errors():
            self._client.upsert(
                collection, [row_of(chunk, vector, content_hash, total) for chunk, vector in rows]
            )

    def delete_tail(self, collection: str, document: str, total: int) -> None:
        """Delete the document's chunks at places `total` and above; `document` is its id."""
        with self._errors():
            self._client.delete(collection, filter=f'document_id == "{document}" and ordinal >= {total}')

    def delete_documents(self, collection: str, documents: Iterable[str]) -> None:
        """Delete every chunk of these documents, given by id."""
        for part in _parts(documents):
            with self._errors():
                self._client.delete(collection, filter=f"document_id in {_quoted(part)}")

    def flush(self, collection: str) -> None:
        """Make what was written durable."""
        with self._errors():
            self._client.flush(collection)

    def count(self, collection: str, documents: Sequence[str] | None = None) -> int:
        """How many chunks there are, of all documents or of these ids."""
        if documents is None:
            return self._count(collection, "")
        return sum(self._count(collection, f"document_id in {_quoted(part)}") for part in _parts(documents))

    def stored(self, collection: str, documents: Sequence[str]) -> dict[str, StoredDocument]:
        """What is there of these documents, by id; those of which there is nothing are left out."""
        seen: dict[str, list[tuple[str, int]]] = {}
        for part in _parts(documents):
            for row in self._rows(
                collection,
                f"document_id in {_quoted(part)}",
                ["document_id", "content_hash", "total"],
            ):
                seen.setdefault(row["document_id"], []).append((row["content_hash"], row["total"]))
        return {
            document: StoredDocument(
                hash=versions[0][0],
                chunks=len(versions),
                complete=len(set(versions)) == 1 and versions[0][1] == len(versions),
            )
            for document, versions in seen.items()
        }

    def documents(self, collection: str) -> set[str]:
        """The ids of every document of which there is a chunk."""
        return {row["document_id"] for row in self._rows(collection, "ordinal >= 0", ["document_id"])}

    def search(self, collection: str, vector: Vector, limit: int, timeout_seconds: float) -> list[Hit]:
        """The nearest chunks, best first."""

        def search() -> Any:
            return self._client.search(
                collection,
                data=[vector],
                anns_field="vector",
                limit=limit,
                output_fields=list(PASSAGE_FIELDS),
                timeout=timeout_seconds,
                consistency_level="Bounded",
            )

        with self._errors():
            found = self._when_loaded(collection, search)
        return [
            Hit(id=str(hit["id"]), score=float(hit["distance"]), fields=hit["entity"]) for hit in found[0]
        ]

    def _when_loaded(self, collection: str, call: Callable[[], Any]) -> Any:
        """What `call` gives; Milvus Lite comes back from a restart with every collection released."""
        try:
            return call()
        except MilvusException as error:
            if error.code != NOT_LOADED:
                raise
            self._client.load_collection(collection)
            return call()

    def _count(self, collection: str, condition: str) -> int:
        def count() -> Any:
            return self._client.query(
                collection,
                filter=condition,
                output_fields=["count(*)"],
                consistency_level="Strong",
                timeout=READ_TIMEOUT_SECONDS,
            )

        with self._errors():
            answer = self._when_loaded(collection, count)
        return int(answer[0]["count(*)"])

    def _rows(self, collection: str, condition: str, fields: list[str]) -> Iterator[dict[str, Any]]:
        def query() -> Any:
            return self._client.query_iterator(
                collection,
                batch_size=ROWS_A_PAGE,
                filter=condition,
                output_fields=fields,
                consistency_level="Strong",
                timeout=READ_TIMEOUT_SECONDS,
            )

        with self._errors():
            pages = self._when_loaded(collection, query)
            try:
                while page := pages.next():
                    yield from page
            finally:
                pages.close()


def _parts(documents: Iterable[str]) -> Iterator[list[str]]:
    listed = list(documents)
    for start in range(0, len(listed), ROWS_A_PAGE):
        yield listed[start : start + ROWS_A_PAGE]


def _quoted(documents: Sequence[str]) -> str:
    return "[" + ", ".join(f'"{document}"' for document in documents) + "]"
