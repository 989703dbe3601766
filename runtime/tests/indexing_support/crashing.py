"""A parser that does on demand what a bug in a C library would, imported by the parser's own process."""

import os
import signal
import time

from flotilla_runtime.indexing.parsing import parse
from flotilla_runtime.indexing.records import ParsedDocument


def crashing_parser(content: bytes, path: str) -> ParsedDocument:
    """As `parse`, but for three words."""
    if content == b"crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if content == b"abort":
        os.abort()
    if content == b"hang":
        time.sleep(600)
    return parse(content, path)
