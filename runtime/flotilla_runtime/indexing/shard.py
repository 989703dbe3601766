"""The shards step, once for each shard: read, parse, chunk, embed, write, verify, and write the marker.

A document that is in the collection completely and unchanged is skipped, so a second build of the same
generation only costs what has changed. A new version of a document replaces the old one chunk by chunk, and
then the old chunks that are left over are deleted. The chunks of a document that is now a dead letter stay
until the promote step has found that there are not too many dead letters. A shard that runs again after a
crash ends with the same rows.
"""

import asyncio
import hashlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from flotilla_runtime.contract import BuildReason, BuildStep, DeadLetter, DocumentCounts, StepReport
from flotilla_runtime.indexing.chunking import chunk_document
from flotilla_runtime.indexing.discovery import BYTES_PER_MIB
from flotilla_runtime.indexing.embedding import Refused
from flotilla_runtime.indexing.errors import BuildError, DocumentError, DocumentReason
from flotilla_runtime.indexing.parsing import ParserProcess
from flotilla_runtime.indexing.pieces import Tokenizer
from flotilla_runtime.indexing.records import Chunk, SourceDocument
from flotilla_runtime.indexing.source_files import opened
from flotilla_runtime.indexing.steps import StepContext
from flotilla_runtime.indexing.store import StoredDocument
from flotilla_runtime.indexing.tokenization import make_tokenizer
from flotilla_runtime.indexing.workspace import ShardResult

LOG = structlog.get_logger()


@dataclass(slots=True)
class _Tally:
    """The results of the shard's documents so far."""

    indexed: dict[str, int] = field(default_factory=dict)  # chunks, by document id
    unchanged: int = 0
    dead_letters: list[DeadLetter] = field(default_factory=list)


async def run_shard(context: StepContext, number: int, parser: ParserProcess) -> StepReport:
    """Index one shard; nothing is done for a shard that has its completion marker."""
    plan = context.workspace.require_plan()
    if number >= plan.shards:  # without usable documents there are no shards, but the Job has one index
        return StepReport(step=BuildStep.SHARDS)
    result = context.workspace.shard_result(number)
    if result is None:
        result = await _index(context, number, parser)
    return StepReport(
        step=BuildStep.SHARDS,
        documents=DocumentCounts(
            discovered=result.documents, indexed=result.indexed, dead_lettered=result.dead_lettered
        ),
        chunks=result.chunks,
        shards=1,
    )


async def _index(context: StepContext, number: int, parser: ParserProcess) -> ShardResult:
    documents = context.workspace.shard(number)
    tokenizer = make_tokenizer(context.workspace.tokenizer())
    collection = context.config.collection.name
    stored = await asyncio.to_thread(context.store.stored, collection, [d.id for d in documents])
    shard = _Shard(context=context, tokenizer=tokenizer, parser=parser, stored=stored)
    await shard.run(documents)
    tally = shard.tally
    await asyncio.to_thread(context.store.flush, collection)
    context.crash_point("before_verify_shard")
    await _verify(context, tally)
    context.workspace.write_dead_letters(f"{number:05d}", tally.dead_letters)
    result = ShardResult(
        documents=len(documents),
        indexed=len(tally.indexed),
        dead_lettered=len(tally.dead_letters),
        unchanged=tally.unchanged,
        chunks=sum(tally.indexed.values()),
        indexed_ids=tuple(sorted(tally.indexed)),
    )
    context.crash_point("before_finish_shard")
    context.workspace.finish_shard(number, result)
    context.crash_point("after_finish_shard")
    return result


async def _verify(context: StepContext, tally: _Tally) -> None:
    """Raise BuildError unless the collection has exactly the chunks of the indexed documents."""
    collection = context.config.collection.name
    there = await asyncio.to_thread(context.store.count, collection, list(tally.indexed))
    wanted = sum(tally.indexed.values())
    if there != wanted:
        raise BuildError(
            BuildReason.COUNT_MISMATCH, f"{wanted} chunks were written, but {there} are in the collection"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shard:
    """Processes a shard's documents, a few at a time."""

    context: StepContext
    tokenizer: Tokenizer
    parser: ParserProcess
    stored: dict[str, StoredDocument]
    tally: _Tally = field(default_factory=_Tally)

    async def run(self, documents: Sequence[SourceDocument]) -> None:
        """Process all documents: each becomes indexed, unchanged or a dead letter, or the shard fails."""
        waiting = iter(documents)

        async def work() -> None:
            for document in waiting:
                await self._one(document)

        async with asyncio.TaskGroup() as group:
            for _ in range(max(1, self.context.config.embedding_concurrency)):
                group.create_task(work())

    async def _one(self, document: SourceDocument) -> None:
        try:
            await self._take(document)
        except DocumentError as error:
            LOG.warning("document_dead_lettered", document=document.path, reason=error.reason)
            self.tally.dead_letters.append(
                DeadLetter(document=document.path, reason=error.reason, message=error.message)
            )

    async def _take(self, document: SourceDocument) -> None:
        config = self.context.config
        content = await asyncio.to_thread(
            _read, Path(config.source.root), document.path, config.source.max_document_mib
        )
        content_hash = hashlib.sha256(content).hexdigest()
        stored = self.stored.get(document.id)
        if stored is not None and stored.complete and stored.hash == content_hash:
            self.tally.indexed[document.id] = stored.chunks
            self.tally.unchanged += 1
            return
        parsed = await self.parser.parse(content, document.path)
        chunks = await asyncio.to_thread(
            chunk_document, document.path, parsed, config.chunking, self.tokenizer
        )
        if not chunks:
            raise DocumentError(DocumentReason.NO_TEXT, "the document contains no text")
        vectors = await self._embed(chunks)
        await self._write(document, content_hash, chunks, vectors)
        self.tally.indexed[document.id] = len(chunks)

    async def _embed(self, chunks: Sequence[Chunk]) -> list[Sequence[float]]:
        """The vectors of all chunks. They are made before the first chunk is written, so that a document is
        incomplete in the collection only for a short time.

        The vectors are kept as in Milvus, with four bytes for each number instead of 32 in a list of floats.
        """
        size = self.context.config.embedder.batch_size
        vectors: list[Sequence[float]] = []
        for start in range(0, len(chunks), size):
            texts = [chunk.embedded_text for chunk in chunks[start : start + size]]
            for answer in await self.context.embedder.embed(texts):
                if isinstance(answer, Refused):
                    raise DocumentError(
                        DocumentReason.EMBEDDER_REFUSED,
                        f"the embedding model refuses chunk {len(vectors)}: {answer.message}",
                    )
                vectors.append(array("f", answer))
        return vectors

    async def _write(
        self, document: SourceDocument, content_hash: str, chunks: list[Chunk], vectors: list[Sequence[float]]
    ) -> None:
        store, collection = self.context.store, self.context.config.collection.name
        self.context.crash_point("before_upsert")
        rows = list(zip(chunks, vectors, strict=True))
        size = self.context.config.embedder.batch_size
        for start in range(0, len(rows), size):
            await asyncio.to_thread(
                store.upsert, collection, content_hash, len(rows), rows[start : start + size]
            )
            self.context.crash_point("after_upsert")
        if document.id in self.stored:
            await asyncio.to_thread(store.delete_tail, collection, document.id, len(chunks))
            self.context.crash_point("after_delete_tail")


def _read(root: Path, path: str, max_document_mib: int) -> bytes:
    limit = max_document_mib * BYTES_PER_MIB
    with opened(root, path) as file:
        try:
            content = file.read(limit + 1)
        except OSError as error:
            raise DocumentError(
                DocumentReason.UNREADABLE, f"the file cannot be read ({error.strerror})"
            ) from None
    if len(content) > limit:
        raise DocumentError(
            DocumentReason.TOO_LARGE,
            f"the file has more than {max_document_mib} MiB, the limit of spec.processing.maxDocumentMiB",
        )
    if not content:
        raise DocumentError(DocumentReason.EMPTY, "the file is empty (0 bytes)")
    return content
