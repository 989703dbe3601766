"""The headers of a tool: each file of a mounted secret is one, read for each call."""

import asyncio
import re
from pathlib import Path
from typing import Final

NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
OURS: Final = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "idempotency-key", "accept-encoding"}
)
LONGEST_VALUE: Final = 8192


class HeaderError(Exception):
    """A file of the secret cannot be a header. The message never has its content."""


async def headers_of(directory: str | None) -> dict[str, str]:
    """The headers in this directory, if there is one; raises HeaderError."""
    return {} if directory is None else await asyncio.to_thread(read_headers, directory)


def read_headers(directory: str) -> dict[str, str]:
    """The headers in this directory; raises HeaderError."""
    try:
        files = [file for file in sorted(Path(directory).iterdir()) if not file.name.startswith("..")]
        return {file.name: _value(file) for file in files if file.is_file()}
    except OSError as problem:
        raise HeaderError(f"the headers of the tool cannot be read: {problem.strerror}") from None


def _value(file: Path) -> str:
    if not NAME.fullmatch(file.name) or file.name.lower() in OURS:
        raise HeaderError(f"the key {file.name} of the headers' secret cannot be the name of a header")
    content = file.read_bytes()
    try:
        value = content.decode("ascii").strip()
    except UnicodeDecodeError:
        value = ""
    if not value or not value.isprintable() or len(value) > LONGEST_VALUE:
        raise HeaderError(
            f"the key {file.name} of the headers' secret has no value that a header can have: one line of "
            f"at most {LONGEST_VALUE} printable ASCII characters"
        )
    return value
