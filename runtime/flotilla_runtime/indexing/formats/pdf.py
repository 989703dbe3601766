"""Parses PDF into one section for each page, so that a passage can name its page."""

import pypdfium2
from pypdfium2 import raw

from flotilla_runtime.indexing.errors import DocumentError, DocumentReason
from flotilla_runtime.indexing.records import ParsedDocument, Section

SOFT_HYPHENS = str.maketrans({"\ufffe": "", "\u00ad": "", "\u0002": "", "\x00": ""})


def parse_pdf(content: bytes, name: str) -> ParsedDocument:
    """One section for each page; raises DocumentError for a file without text, such as a scan."""
    try:
        document = pypdfium2.PdfDocument(content)
    except pypdfium2.PdfiumError as error:
        if error.err_code == raw.FPDF_ERR_PASSWORD:
            raise DocumentError(
                DocumentReason.ENCRYPTED, "the PDF needs a password; save it without one"
            ) from None
        raise DocumentError(DocumentReason.BROKEN, f"the PDF cannot be opened: {error}") from None
    try:
        title = document.get_metadata_value("Title").strip() or name
        sections = [section for number in range(len(document)) if (section := _page(document, number))]
    except pypdfium2.PdfiumError as error:
        raise DocumentError(DocumentReason.BROKEN, f"the PDF has a broken page: {error}") from None
    finally:
        document.close()
    if not sections:
        raise DocumentError(
            DocumentReason.NO_TEXT, "the PDF contains no text; run text recognition on it if it is a scan"
        )
    return ParsedDocument(title=title, sections=tuple(sections))


def _page(document: pypdfium2.PdfDocument, number: int) -> Section | None:
    page = document[number]
    content = page.get_textpage()
    try:
        text = content.get_text_bounded().translate(SOFT_HYPHENS).replace("\r\n", "\n").strip()
    finally:
        content.close()
        page.close()
    return Section(text=text, page=number + 1) if text else None
