"""Logs of servers that are killed: one JSON object a line, each line one write.

What was written outlives its process, because the kernel has it. A last line that its writer did not finish
is left out: nobody has got an answer for it.
"""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any


class Log:
    """Appends to a log; several processes may append to the same."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(self, entry: Any) -> None:
        """Append a dataclass."""
        os.write(self._file, json.dumps(asdict(entry)).encode() + b"\n")

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def lines_of(path: Path) -> Iterator[Mapping[str, Any]]:
    """The lines that were written whole."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield json.loads(line)
