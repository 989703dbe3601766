"""A store of dictionaries, for builds that must fail; test_memory_store holds it against Milvus Lite."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from flotilla_runtime.contract import CollectionConfig, MilvusConnection
from flotilla_runtime.indexing.records import Chunk, document_id
from flotilla_runtime.indexing.store import Descriptor, Store, StoredDocument


@dataclass(slots=True)
class Collection:
    """A collection's descriptor and rows. A row has a chunk's document, the hash of the document's content,
    the number of the document's chunks, and the chunk's ordinal.
    """

    about: Descriptor | None
    rows: dict[str, tuple[str, str, int, int]] = field(default_factory=dict)


class MemoryStore(Store):
    """The store of a build in the memory of one process, in place of Milvus."""

    def __init__(self) -> None:
        super().__init__(MilvusConnection(uri="http://127.0.0.1:1"))
        self.held: dict[str, Collection] = {}
        self.aliases: dict[str, str] = {}
        self.loses_deletes = False

    def collections(self, prefix: str) -> list[str]:
        return sorted(name for name in self.held if name.startswith(prefix))

    def create(self, collection: CollectionConfig, descriptor: Descriptor) -> None:
        self.held.setdefault(collection.name, Collection(descriptor))

    def describe(self, collection: str) -> Descriptor | None:
        return self.held[collection].about

    def mark_promoted(self, collection: str, descriptor: Descriptor) -> None:
        self.held[collection].about = descriptor

    def resolve(self, alias: str) -> str | None:
        return self.aliases.get(alias)

    def point(self, alias: str, collection: str) -> None:
        self.aliases[alias] = collection

    def drop(self, collection: str) -> None:
        self.held.pop(collection, None)

    def upsert(
        self, collection: str, content_hash: str, total: int, rows: Sequence[tuple[Chunk, Sequence[float]]]
    ) -> None:
        for chunk, _ in rows:
            row = (document_id(chunk.document), content_hash, total, chunk.ordinal)
            self.held[collection].rows[chunk.id] = row

    def delete_tail(self, collection: str, document: str, total: int) -> None:
        rows = self.held[collection].rows
        self.held[collection].rows = {
            name: row for name, row in rows.items() if row[0] != document or row[3] < total
        }

    def delete_documents(self, collection: str, documents: Iterable[str]) -> None:
        if self.loses_deletes:
            return
        gone = set(documents)
        rows = self.held[collection].rows
        self.held[collection].rows = {name: row for name, row in rows.items() if row[0] not in gone}

    def flush(self, collection: str) -> None:
        """Do nothing: every read already sees what was written."""

    def count(self, collection: str, documents: Sequence[str] | None = None) -> int:
        rows = self.held[collection].rows.values()
        return sum(documents is None or row[0] in documents for row in rows)

    def stored(self, collection: str, documents: Sequence[str]) -> dict[str, StoredDocument]:
        seen: dict[str, list[tuple[str, int]]] = {}
        for document, content_hash, total, _ in self.held[collection].rows.values():
            if document in documents:
                seen.setdefault(document, []).append((content_hash, total))
        return {
            document: StoredDocument(
                hash=versions[0][0],
                chunks=len(versions),
                complete=len(set(versions)) == 1 and versions[0][1] == len(versions),
            )
            for document, versions in seen.items()
        }

    def documents(self, collection: str) -> set[str]:
        return {row[0] for row in self.held[collection].rows.values()}
