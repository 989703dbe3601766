"""Parses plain text into one section; empty lines separate paragraphs."""

from flotilla_runtime.indexing.errors import DocumentError, DocumentReason
from flotilla_runtime.indexing.formats.encoding import decode
from flotilla_runtime.indexing.records import ParsedDocument, Section


def parse_plain_text(content: bytes, name: str) -> ParsedDocument:
    """The whole text, with the file's name as title."""
    text = decode(content).replace("\r\n", "\n").strip()
    if not text:
        raise DocumentError(DocumentReason.NO_TEXT, "the document contains no text")
    return ParsedDocument(title=name, sections=(Section(text=text),))
