"""Parses documents into a title and sections; the format is chosen by the file's name.

Every error of a parser becomes a DocumentError. `parse` runs in a child process (`ParserProcess`), because
the PDF library is C++. A document that crashes the child, or keeps it busy forever, affects only that
document: the child parses one document at a time, and the time limit starts when it begins with the document.
"""

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import PurePosixPath

from flotilla_runtime.indexing.errors import DocumentError, DocumentReason
from flotilla_runtime.indexing.formats.html import parse_html
from flotilla_runtime.indexing.formats.markdown import parse_markdown
from flotilla_runtime.indexing.formats.pdf import parse_pdf
from flotilla_runtime.indexing.formats.plain_text import parse_plain_text
from flotilla_runtime.indexing.records import ParsedDocument

Parser = Callable[[bytes, str], ParsedDocument]

PARSERS: Mapping[str, Parser] = {
    ".htm": parse_html,
    ".html": parse_html,
    ".xhtml": parse_html,
    ".markdown": parse_markdown,
    ".md": parse_markdown,
    ".pdf": parse_pdf,
}
TIMEOUT_SECONDS = 120.0  # a page takes milliseconds; a parser that takes this long is considered stuck


def parse(content: bytes, path: str) -> ParsedDocument:
    """Parse the document at `path`; a file whose format is not known is read as plain text."""
    name = PurePosixPath(path)
    try:
        return PARSERS.get(name.suffix.lower(), parse_plain_text)(content, name.name)
    except DocumentError:
        raise
    except Exception as error:
        raise DocumentError(DocumentReason.BROKEN, f"the parser failed: {error!r}") from error


class ParserProcess:
    """Runs `parse` in a child process, which is replaced when it crashes or takes too long."""

    def __init__(self, timeout_seconds: float = TIMEOUT_SECONDS, parser: Parser = parse) -> None:
        self._timeout_seconds = timeout_seconds
        self._parser = parser
        self._pool = self._start()
        self._turn = asyncio.Lock()

    @staticmethod
    def _start() -> ProcessPoolExecutor:
        return ProcessPoolExecutor(max_workers=1, mp_context=get_context("spawn"))

    async def parse(self, content: bytes, path: str) -> ParsedDocument:
        """Like `parse`, with a DocumentError for a crash and for a time-out too."""
        async with self._turn:
            return await self._parse_alone(content, path)

    async def _parse_alone(self, content: bytes, path: str) -> ParsedDocument:
        future: Future[ParsedDocument] = self._pool.submit(self._parser, content, path)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), self._timeout_seconds)
        except TimeoutError:
            self._replace()
            raise DocumentError(
                DocumentReason.PARSER_TIMED_OUT, f"parsing took more than {self._timeout_seconds:.0f} s"
            ) from None
        except BrokenProcessPool:
            self._replace()
            raise DocumentError(
                DocumentReason.PARSER_CRASHED, "the parser crashed on this document"
            ) from None

    def _replace(self) -> None:
        self.close()
        self._pool = self._start()

    def close(self) -> None:
        """Kill the child, whatever it is doing."""
        children = list((self._pool._processes or {}).values())
        for child in children:
            child.kill()
        self._pool.shutdown(wait=True, cancel_futures=True)
