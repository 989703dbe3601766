"""The headers of a tool: each file of a mounted secret is one, read for each call."""

import asyncio
import re
from pathlib import Path
from typing import Final

from flotilla_runtime.contract import SecretError
from flotilla_runtime.secret_files import files_in, secret_in

NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
OURS: Final = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "idempotency-key", "accept-encoding"}
)


class HeaderError(Exception):
    """A file of the secret cannot be a header. The message never has its content."""


async def headers_of(directory: str | None) -> dict[str, str]:
    """The headers in this directory, if there is one; raises HeaderError."""
    return {} if directory is None else await asyncio.to_thread(read_headers, directory)


def read_headers(directory: str) -> dict[str, str]:
    """The headers in this directory; raises HeaderError."""
    try:
        return {file.name: _value(file) for file in files_in(Path(directory))}
    except OSError as problem:
        raise HeaderError(f"the headers of the tool cannot be read: {problem.strerror}") from None


def _value(file: Path) -> str:
    if not NAME.fullmatch(file.name) or file.name.lower() in OURS:
        raise HeaderError(f"the key {file.name} of the headers' secret cannot be the name of a header")
    try:
        return secret_in(file, where=f"the key {file.name} of the headers' secret")
    except SecretError as problem:
        raise HeaderError(str(problem)) from None
