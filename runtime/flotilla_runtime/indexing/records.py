"""The values that pass between the stages of a build.

Every id is a function of what it names: a document's of its path below the source, a chunk's of its document
and its place in it. So a stage that runs twice makes the same rows and an upsert makes them once.
"""

import hashlib
from dataclasses import dataclass

SEPARATOR = " > "  # between the headings of a path, as it is embedded and shown


def document_id(path: str) -> str:
    """The id of the document at `path`, relative to the source's root."""
    return hashlib.sha256(path.encode()).hexdigest()[:32]


def chunk_id(document: str, ordinal: int) -> str:
    """The id of the chunk at place `ordinal` of a document; `document` is its id."""
    return f"{document}-{ordinal:06d}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceDocument:
    """A file that the plan found; `path` is relative to the source's root, with forward slashes."""

    path: str
    size_bytes: int

    @property
    def id(self) -> str:
        """The document's id."""
        return document_id(self.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A stretch of text under one heading, or on one page; blocks of text are set apart by an empty line."""

    text: str
    headings: tuple[str, ...] = ()
    anchor: str | None = None
    page: int | None = None

    @property
    def heading(self) -> str:
        """The path of headings that leads here."""
        return SEPARATOR.join(self.headings)


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedDocument:
    """What a document says, in reading order."""

    title: str
    sections: tuple[Section, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """What is embedded and found: `text` is shown, and embedded behind `prefix`, its title and headings."""

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
        """What the embedder is given."""
        return f"{self.prefix}\n{self.text}"

    @property
    def id(self) -> str:
        """The chunk's id."""
        return chunk_id(document_id(self.document), self.ordinal)
