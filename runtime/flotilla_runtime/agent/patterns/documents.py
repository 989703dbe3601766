"""Document fan-out: documents are cut where a reader would, and a pool of workers goes through the chunks.

All workers share one bucket of tokens, so together they keep to a rate. Cutting blocks no other task.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from flotilla_runtime.agent.patterns.branches import Branch, Group
from flotilla_runtime.agent.patterns.plans import Plan, Rate
from flotilla_runtime.agent.patterns.runtime import Branching, Place
from flotilla_runtime.agent.patterns.values import Gathered, PatternKind, gathered
from flotilla_runtime.indexing.chunking import Cutter
from flotilla_runtime.indexing.pieces import PlainTokenizer

CHUNK_TOKENS: Final = 1000
WORKERS: Final = 8
MOST_CHUNKS: Final = 10_000
MOST_CHARACTERS: Final = 16 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentChunk:
    """A piece of a document; `number` counts from 1. `tokens` is what it has at most."""

    document: str
    number: int
    text: str
    tokens: int


Work = Callable[[DocumentChunk], Awaitable[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Documented:
    """The results of each document's chunks, by their numbers."""

    by_document: Mapping[str, Gathered] = field(default_factory=dict)

    @property
    def expected(self) -> int:
        """How many chunks there are."""
        return sum(len(one.values) for one in self.by_document.values())

    @property
    def received(self) -> int:
        """How many chunks have a value."""
        return sum(len(one.present) for one in self.by_document.values())

    @property
    def is_complete(self) -> bool:
        """Whether every chunk has a value."""
        return self.received == self.expected

    @property
    def values(self) -> list[Any]:
        """The values that are there, in the order of the documents and their chunks."""
        return [value for one in self.by_document.values() for value in one.present.values()]

    @property
    def document(self) -> dict[str, Any]:
        """All of it as JSON, marked as incomplete where it is."""
        return {
            "documents": {name: one.document for name, one in self.by_document.items()},
            "expected": self.expected,
            "received": self.received,
            "complete": self.is_complete,
        }


def refuse_bad_documents(
    texts: Mapping[str, str], chunk_tokens: int, overlap_tokens: int, workers: int
) -> None:
    """Raise ValueError for what cannot be meant."""
    if sum(map(len, texts.values())) > MOST_CHARACTERS:
        raise ValueError(f"documents takes {MOST_CHARACTERS} characters at most")
    if chunk_tokens < 1 or not 0 <= overlap_tokens < chunk_tokens:
        raise ValueError("chunk_tokens must be at least 1, and overlap_tokens less than it and at least 0")
    if workers < 1:
        raise ValueError("workers must be at least 1")


def chunks_of(texts: Mapping[str, str], chunk_tokens: int, overlap_tokens: int) -> list[DocumentChunk]:
    """The chunks of all documents, in order."""
    cutter = Cutter(tokenizer=PlainTokenizer(), chunk_tokens=chunk_tokens, overlap_tokens=overlap_tokens)
    chunks: list[DocumentChunk] = []
    for name, text in texts.items():
        number = 0
        for start, end in cutter.cut(text):
            piece = text[start:end].strip()
            if not piece:
                continue
            number += 1
            chunks.append(DocumentChunk(document=name, number=number, text=piece, tokens=cutter.count(piece)))
            if len(chunks) > MOST_CHUNKS:
                raise ValueError(f"the documents have more than {MOST_CHUNKS} chunks; raise chunk_tokens")
    return chunks


async def documented(
    branching: Branching,
    place: Place,
    texts: Mapping[str, str],
    work: Work,
    *,
    chunk_tokens: int,
    overlap_tokens: int,
    plan: Plan,
    counts_tokens: bool,
    timeout_seconds: float | None,
) -> Documented:
    """Cut the documents, and work on their chunks."""
    chunks = await branching.aside(partial(chunks_of, texts, chunk_tokens, overlap_tokens))
    places = {name: str(number) for number, name in enumerate(texts, start=1)}  # any name is a document's
    keys = [f"{places[chunk.document]}/{chunk.number}" for chunk in chunks]
    branches = [
        Branch(
            key=key,
            make=partial(work, chunk),
            timeout_seconds=timeout_seconds,
            cost=chunk.tokens if counts_tokens else 1,
        )
        for key, chunk in zip(keys, chunks, strict=True)
    ]
    ended = await Group(branching, place, branches, plan).ended()
    by_document: dict[str, dict[str, Any]] = {name: {} for name in texts}
    for key, chunk in zip(keys, chunks, strict=True):
        by_document[chunk.document][str(chunk.number)] = ended[key]
    return Documented(by_document={name: gathered(list(own), own) for name, own in by_document.items()})


def pool(workers: int, rate: Rate | None) -> Plan:
    """So many chunks at the same time, and within the rate."""
    return Plan(kind=PatternKind.DOCUMENTS, at_once=workers, rate=rate)
