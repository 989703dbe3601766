"""The collections of generations in Milvus, and the alias that points to the live one.

Each collection has a descriptor: which model made the vectors, and this model's vector of `CANARY`. A client
that resolves the alias learns from it how to embed a query, and can check that a model is the right one. The
descriptor is stored as a collection property and as the description, because Milvus Lite keeps only
properties.

Calls block, so asynchronous code runs them in threads: pymilvus' asynchronous client cannot create an index
on Milvus Lite. Reads on which a decision depends are strongly consistent.
"""

import base64
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
from flotilla_runtime.contract.failure_texts import what_failed, without
from flotilla_runtime.indexing.embedding import Vector
from flotilla_runtime.indexing.errors import BuildError
from flotilla_runtime.indexing.records import Chunk
from flotilla_runtime.indexing.rows import row_of, schema_of

CANARY: Final = "flotilla"  # a text whose vector identifies a model
DESCRIPTOR: Final = "flotilla.descriptor"
ALIAS_NOT_FOUND: Final = frozenset({100, 1600})  # Milvus Lite's code, and Milvus'
NOT_LOADED: Final = 101
CONNECT_TIMEOUT_SECONDS: Final = 10.0
READ_TIMEOUT_SECONDS: Final = 30.0  # for one call, so that a Milvus that accepts and never answers is noticed
# By default the client pings every 10 s, and Milvus Lite then closes connections that are idle for 30 s.
KEEPALIVE: Final = {"grpc.keepalive_time_ms": 600_000, "grpc.keepalive_permit_without_calls": 0}
ROWS_A_PAGE: Final = 1_000
PASSAGE_FIELDS: Final = ("document", "title", "heading", "anchor", "page", "text")

logging.getLogger("pymilvus").setLevel(logging.CRITICAL)  # it also raises every error that it logs


class Descriptor(BaseModel):
    """Describes how a generation was made."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    generation: str
    build: str
    embedder: Embedder
    metric: str
    canary: tuple[float, ...]
    promoted_at: float | None = None  # Unix seconds; None: it was never live
    index_uid: str = ""  # of the VectorIndex that promoted it last; empty before


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredDocument:
    """A document's chunks in the collection; `complete` when all of them exist and have the same version."""

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
        """The connection; it is made when it is first needed, so that a server can start before Milvus."""
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
        """Turn Milvus' errors into BuildErrors that are tried again, because a temporary error looks the same
        as a permanent one.

        A broken connection recovers by itself some seconds after Milvus does. For errors that pymilvus does
        not retry, such as a deadline or a missing permission, it raises gRPC's own exceptions. When pymilvus
        cannot connect, its error does not say why, but the gRPC error that caused it does.
        """
        try:
            yield
        except MilvusException as error:
            if isinstance(error.__cause__, grpc.Call):
                raise self._not_answered(error.__cause__) from error
            raise BuildError(
                BuildReason.MILVUS_UNREACHABLE,
                f"Milvus at {self._connection.uri} refused a request ({error.code}): "
                f"{self._told(error.message)}",
            ) from error
        except grpc.RpcError as error:
            raise self._not_answered(error) from error
        except grpc.FutureTimeoutError as error:
            raise BuildError(
                BuildReason.MILVUS_UNREACHABLE, f"Milvus at {self._connection.uri} did not answer in time"
            ) from error

    def _told(self, said: str | None) -> str:
        """The words of Milvus, without the token, which pymilvus sends in base64."""
        token = self._token or ""
        encoded = base64.b64encode(token.encode()).decode().rstrip("=")
        longest_first = sorted([token, *token.split(":", 1), encoded], key=len, reverse=True)
        return without(said or "", longest_first)

    def _not_answered(self, error: Any) -> BuildError:
        said = f"{error.code().name}: {self._told(error.details())}" if isinstance(error, grpc.Call) else ""
        said = said or what_failed(error)
        return BuildError(
            BuildReason.MILVUS_UNREACHABLE, f"Milvus at {self._connection.uri} did not answer ({said})"
        )

    def close(self) -> None:
        """Close the connection, if there is one."""
        if "_client" in self.__dict__:
            self._client.close()

    def collections(self, prefix: str) -> list[str]:
        """The collections whose names start with `prefix`, sorted by name."""
        with self._errors():
            found = self._client.list_collections(timeout=READ_TIMEOUT_SECONDS)
            return sorted(name for name in found if name.startswith(prefix))

    def create(self, collection: CollectionConfig, descriptor: Descriptor) -> None:
        """Create the collection with its index; an existing one is only loaded."""
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
        """The descriptor of a collection; None when the collection is not ours."""
        with self._errors():
            found = self._client.describe_collection(collection, timeout=READ_TIMEOUT_SECONDS)
        for text in (found.get("properties", {}).get(DESCRIPTOR), found.get("description")):
            try:
                return Descriptor.model_validate_json(text or "")
            except ValidationError:
                continue
        return None

    def mark_promoted(self, collection: str, descriptor: Descriptor) -> None:
        """Record which build the collection contains."""
        with self._errors():
            self._client.alter_collection_properties(
                collection, properties={DESCRIPTOR: descriptor.model_dump_json()}
            )

    def resolve(self, alias: str) -> str | None:
        """The collection to which an alias points; None when there is no such alias."""
        with self._errors():
            try:
                found = self._client.describe_alias(alias, timeout=READ_TIMEOUT_SECONDS)
            except MilvusException as error:
                if error.code in ALIAS_NOT_FOUND:
                    return None
                raise
            return str(found["collection_name"])

    def point(self, alias: str, collection: str) -> None:
        """Point the alias to the collection, atomically for all readers."""
        current = self.resolve(alias)
        with self._errors():
            if current is None:
                self._client.create_alias(collection, alias)
            elif current != collection:
                self._client.alter_alias(collection, alias)

    def drop(self, collection: str) -> None:
        """Drop a collection; it is no error when it does not exist."""
        with self._errors():
            self._client.drop_collection(collection)

    def drop_alias(self, alias: str) -> None:
        """Drop an alias; it is no error when it does not exist."""
        if self.resolve(alias) is not None:
            with self._errors():
                self._client.drop_alias(alias)

    def upsert(
        self, collection: str, content_hash: str, total: int, rows: Sequence[tuple[Chunk, Sequence[float]]]
    ) -> None:
        """Write chunks of one document; `total` is the number of all its chunks."""
        with self._errors():
            self._client.upsert(
                collection, [row_of(chunk, vector, content_hash, total) for chunk, vector in rows]
            )

    def delete_tail(self, collection: str, document: str, total: int) -> None:
        """Delete the document's chunks from position `total` on; `document` is its id."""
        with self._errors():
            self._client.delete(collection, filter=f'document_id == "{document}" and ordinal >= {total}')

    def delete_documents(self, collection: str, documents: Iterable[str]) -> None:
        """Delete every chunk of these documents, given by id."""
        for part in _parts(documents):
            with self._errors():
                self._client.delete(collection, filter=f"document_id in {_quoted(part)}")

    def flush(self, collection: str) -> None:
        """Make all writes durable."""
        with self._errors():
            self._client.flush(collection)

    def count(self, collection: str, documents: Sequence[str] | None = None) -> int:
        """The number of chunks, of all documents or of these ids."""
        if documents is None:
            return self._count(collection, "")
        return sum(self._count(collection, f"document_id in {_quoted(part)}") for part in _parts(documents))

    def stored(self, collection: str, documents: Sequence[str]) -> dict[str, StoredDocument]:
        """Read the collection's state of these documents, by id; documents without chunks are left out."""
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
        """The ids of all documents that have chunks."""
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
        """The result of `call`. The collection is loaded if needed: a restart of Milvus Lite unloads all."""
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
