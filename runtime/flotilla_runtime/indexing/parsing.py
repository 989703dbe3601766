"""Parses documents into a title and sections; the format is chosen by the file's name.

Every error of a parser becomes a DocumentError. `parse` runs in a child process (`ParserProcess`), because
the PDF library is C++. A document that crashes the child, keeps it busy forever or needs more memory than the
child may have affects only that document: the child parses one document at a time, and the time limit starts
when it begins with the document.
"""

import asyncio
import math
import resource
import signal
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path, PurePosixPath

from flotilla_runtime.contract.failure_texts import what_failed
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
BYTES_PER_MIB = 1024 * 1024
MOST_MEMORY_BYTES = 2 * 1024 * BYTES_PER_MIB
SIGN_OF_REFUSED_MEMORY = 0.8  # of the limit; some libraries only say that they failed when they get no more
MORE_MEMORY = "raise the memory limit of spec.build.resources, of which it gets half, or split the document"
TIMEOUT_SECONDS = 120.0  # a page takes milliseconds; a parser that takes this long is considered stuck


def parse(content: bytes, path: str) -> ParsedDocument:
    """Parse the document at `path`; a file whose format is not known is read as plain text."""
    name = PurePosixPath(path)
    _forget_peak()
    try:
        return PARSERS.get(name.suffix.lower(), parse_plain_text)(content, name.name)
    except DocumentError:
        raise
    except Exception as error:
        limit, peak = _memory_limit_bytes(), _peak_bytes()
        if isinstance(error, MemoryError) or peak > limit * SIGN_OF_REFUSED_MEMORY:
            raise DocumentError(
                DocumentReason.PARSER_OUT_OF_MEMORY,
                f"the parser had {peak // BYTES_PER_MIB} MiB of memory when it was refused more, and may "
                f"have {limit // BYTES_PER_MIB} MiB; {MORE_MEMORY}",
            ) from None
        raise DocumentError(DocumentReason.BROKEN, f"the parser failed: {what_failed(error)}") from error


def memory_of_parser(pod_limit_bytes: int | None) -> int:
    """How much memory the parser may have, in bytes: half of what the pod may have, but at most 2 GiB.

    The other half is for the process that embeds and writes, and for the document itself.
    """
    half = MOST_MEMORY_BYTES if pod_limit_bytes is None else pod_limit_bytes // 2
    return min(half, MOST_MEMORY_BYTES)


def limit_memory(limit_bytes: int) -> None:
    """Let this process have at most so much memory of its own. An allocation beyond it fails."""
    resource.setrlimit(resource.RLIMIT_DATA, (limit_bytes, limit_bytes))


def _memory_limit_bytes() -> float:
    """How much memory of its own this process may have."""
    soft, _ = resource.getrlimit(resource.RLIMIT_DATA)
    return math.inf if soft == resource.RLIM_INFINITY else soft


def _forget_peak() -> None:
    """Let the kernel count the peak of this process' memory from now on."""
    with suppress(OSError):  # the peak is then that of all documents so far
        Path("/proc/self/clear_refs").write_text("5")


def _peak_bytes() -> int:
    """The most memory that this process had since then."""
    status = Path("/proc/self/status").read_text()
    kibibytes = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(kibibytes) * 1024


def _crash(exit_codes: Sequence[int | None], limit_bytes: int) -> DocumentError:
    """The problem of a document whose parser ended by itself.

    The PDF library aborts when it is refused memory; its checks and wild pointers end with other signals. The
    C library aborts too when it finds its heap destroyed, which looks the same and is rare.
    """
    if -signal.SIGABRT in exit_codes:
        return DocumentError(
            DocumentReason.PARSER_OUT_OF_MEMORY,
            "the parser aborted, as its library does when it is refused memory, and may have "
            f"{limit_bytes // BYTES_PER_MIB} MiB; {MORE_MEMORY}",
        )
    return DocumentError(DocumentReason.PARSER_CRASHED, "the parser crashed on this document")


class ParserProcess:
    """Runs `parse` in a child process, which is replaced when it crashes or takes too long."""

    def __init__(
        self,
        timeout_seconds: float = TIMEOUT_SECONDS,
        parser: Parser = parse,
        memory_bytes: int = MOST_MEMORY_BYTES,
    ) -> None:
        self._timeout_seconds = timeout_seconds
        self._parser = parser
        self._memory_bytes = memory_bytes
        self._pool = self._start()
        self._turn = asyncio.Lock()

    def _start(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            max_workers=1,
            mp_context=get_context("spawn"),
            initializer=limit_memory,
            initargs=(self._memory_bytes,),
        )

    async def parse(self, content: bytes, path: str) -> ParsedDocument:
        """Like `parse`, with a DocumentError for a crash and for a time-out too."""
        async with self._turn:
            return await self._parse_alone(content, path)

    async def _parse_alone(self, content: bytes, path: str) -> ParsedDocument:
        future: Future[ParsedDocument] = self._pool.submit(self._parser, content, path)
        children = self._children()
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), self._timeout_seconds)
        except TimeoutError:
            self._replace()
            raise DocumentError(
                DocumentReason.PARSER_TIMED_OUT, f"parsing took more than {self._timeout_seconds:.0f} s"
            ) from None
        except DocumentError as error:
            if error.reason is DocumentReason.PARSER_OUT_OF_MEMORY:
                self._replace()  # a library that failed in the middle may keep what it had
            raise
        except BrokenProcessPool:
            self._replace()
            raise _crash([child.exitcode for child in children], self._memory_bytes) from None

    def _children(self) -> list[BaseProcess]:
        """The child, once it has begun."""
        return list((self._pool._processes or {}).values())

    def _replace(self) -> None:
        self.close()
        self._pool = self._start()

    def close(self) -> None:
        """Kill the child, whatever it is doing."""
        for child in self._children():
            child.kill()
        self._pool.shutdown(wait=True, cancel_futures=True)
