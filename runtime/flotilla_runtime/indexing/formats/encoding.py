"""Bytes to text without guessing: a byte order mark, what the document declares, UTF-8, or a refusal."""

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
    """The text of `content`; `declared` is the encoding the document names itself, if any."""
    for mark, encoding in MARKS:
        if content.startswith(mark):
            return _decode(content[len(mark) :], encoding)
    return _decode(content, declared or "utf-8")


def _decode(content: bytes, encoding: str) -> str:
    try:
        text = content.decode(encoding)
    except LookupError:
        raise DocumentError(DocumentReason.WRONG_ENCODING, f"the encoding {encoding!r} is unknown") from None
    except UnicodeDecodeError as error:
        byte = content[error.start]
        raise DocumentError(
            DocumentReason.WRONG_ENCODING,
            f"byte 0x{byte:02x} at {error.start} is not {encoding}; convert the document to UTF-8",
        ) from None
    if "\x00" in text:
        raise DocumentError(DocumentReason.UNSUPPORTED, "this is binary data, not text")
    return text
