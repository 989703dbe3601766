"""A parser that does on demand what a bug in a C library would, imported by the parser's own process."""

import os
import time

from flotilla_runtime.indexing.parsing import parse
from flotilla_runtime.indexing.records import ParsedDocument


def crashing_parser(content: bytes, path: str) -> ParsedDocument:
    """As `parse`, but for two words."""
    if content == b"crash":
        os.abort()
    if content == b"hang":
        time.sleep(600)
    return parse(content, path)
