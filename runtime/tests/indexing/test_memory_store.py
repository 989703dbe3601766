"""The store of dictionaries answers as Milvus Lite does, for all that a build asks."""

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from flotilla_runtime.contract import CollectionConfig, Embedder, MilvusConnection
from flotilla_runtime.indexing.records import Chunk, document_id
from flotilla_runtime.indexing.store import Descriptor, Store
from indexing_support.memory_store import MemoryStore
from indexing_support.milvus import MilvusServer

pytestmark = [pytest.mark.services, pytest.mark.xdist_group("milvus")]

A, B = document_id("a.txt"), document_id("b.txt")


def chunk(document: str, ordinal: int) -> Chunk:
    return Chunk(
        document=document, ordinal=ordinal, title="", heading="", anchor=None, page=None, text="x", prefix=""
    )


def answers(store: Store, alias: str) -> Iterator[Any]:
    """Everything that the store says of two collections while one is filled, changed, shown and dropped."""
    one, two = (
        CollectionConfig(name=f"{alias}_g_{name}", alias=alias, prefix=f"{alias}_g_")
        for name in ("one", "two")
    )
    embedder = Embedder(model_ref="m", url="u", model="m", identity="m", dimension=2)
    about = Descriptor(generation="g", build="b", embedder=embedder, metric="COSINE", canary=(1.0, 0.0))
    yield store.resolve(alias)
    for collection in (one, two, one):
        store.create(collection, about)
    yield [name.removeprefix(alias) for name in store.collections(one.prefix)]
    store.upsert(one.name, "h1", 2, [(chunk("a.txt", 0), [1.0, 0.0]), (chunk("a.txt", 1), [0.0, 1.0])])
    store.upsert(one.name, "h2", 2, [(chunk("b.txt", 0), [1.0, 0.0])])
    store.flush(one.name)
    yield (store.count(one.name), store.count(one.name, [A]), store.documents(one.name))
    yield store.stored(one.name, [A, B, "nobody's"])
    store.upsert(one.name, "h3", 1, [(chunk("a.txt", 0), [0.0, 1.0])])
    yield store.stored(one.name, [A])
    store.delete_tail(one.name, A, 1)
    yield store.stored(one.name, [A])
    store.delete_documents(one.name, [B])
    yield (store.count(one.name), store.documents(one.name))
    store.mark_promoted(one.name, about.model_copy(update={"promoted_at": 7.0}))
    yield (store.describe(one.name), store.describe(two.name))
    for collection in (one, two):
        store.point(alias, collection.name)
        yield (store.resolve(alias) or "").removeprefix(alias)
    store.drop(one.name)
    yield [name.removeprefix(alias) for name in store.collections(one.prefix)]


def test_it_answers_as_milvus_does(milvus: MilvusServer) -> None:
    real = Store(MilvusConnection(uri=milvus.uri))
    try:
        expected = list(answers(real, f"flotilla_{uuid.uuid4().hex}"))
    finally:
        real.close()
    assert list(answers(MemoryStore(), "flotilla_a")) == expected
    assert len(expected) == 11
