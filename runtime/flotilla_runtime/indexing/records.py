"""The values that pass between the stages of a build.

Ids are deterministic: a document's id follows from its path below the source, and a chunk's from its document
and its position. So a stage that runs twice makes the same rows, and an upsert stores them once.
"""

import hashlib
from dataclasses import dataclass

SEPARATOR = " > "  # between the headings of a section, when they are embedded or shown


def document_id(path: str) -> str:
    """The id of the document at `path`, relative to the source's root."""
    return hashlib.sha256(path.encode()).hexdigest()[:32]


def chunk_id(document: str, ordinal: int) -> str:
    """The id of the chunk at position `ordinal` of a document; `document` is the document's id."""
    return f"{document}-{ordinal:06d}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceDocument:
    """A file that the plan step found; `path` is relative to the source's root, with forward slashes."""

    path: str
    size_bytes: int

    @property
    def id(self) -> str:
        """The document's id."""
        return document_id(self.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """The text under one heading or on one page; an empty line separates blocks of text."""

    text: str
    headings: tuple[str, ...] = ()
    anchor: str | None = None
    page: int | None = None

    @property
    def heading(self) -> str:
        """The headings above this section, joined."""
        return SEPARATOR.join(self.headings)


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedDocument:
    """A document's title and its sections in reading order."""

    title: str
    sections: tuple[Section, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A part of a document. `text` is shown, and is embedded together with `prefix`: title and headings."""

    document: str
    ordinal: int
    title: str
    heading: str
    anchor: str | None
    page: int | None
    text: str
    prefix: str

    @property
    def embedded_text(self) -> str:
        """The text that the embedder gets."""
        return f"{self.prefix}\n{self.text}"

    @property
    def id(self) -> str:
        """The chunk's id."""
        return chunk_id(document_id(self.document), self.ordinal)
