"""Decodes bytes without guessing: by a byte order mark, else the declared encoding, else UTF-8."""

import codecs

from flotilla_runtime.indexing.errors import DocumentError, DocumentReason

MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def decode(content: bytes, declared: str | None = None) -> str:
    """The text of `content`; `declared` is the encoding that the document itself names, if any."""
    for mark, encoding in MARKS:
        if content.startswith(mark):
            return _decode(content[len(mark) :], encoding)
    return _decode(content, declared or "utf-8")


def _decode(content: bytes, encoding: str) -> str:
    try:
        text = content.decode(encoding)
    except LookupError:
        raise DocumentError(
            DocumentReason.WRONG_ENCODING,
            f"the document names the unknown encoding {encoding!r}; convert it to UTF-8",
        ) from None
    except UnicodeDecodeError as error:
        byte = content[error.start]
        raise DocumentError(
            DocumentReason.WRONG_ENCODING,
            f"the byte 0x{byte:02x} at position {error.start} is not {encoding}; convert the document to "
            "UTF-8",
        ) from None
    if "\x00" in text:
        raise DocumentError(DocumentReason.UNSUPPORTED, "this is binary data, not text")
    return text
