"""A function for tests that kill its process: it notes each call, and ends when it may."""

import asyncio
import os
from pathlib import Path

NOTES = "NOTES"  # the variable with the path of the file


async def act(*, idempotency_key: str) -> str:
    """Note the call and the process, and wait until there is a file `go` beside the notes."""
    notes = Path(os.environ[NOTES])
    _note(notes, f"{idempotency_key} {os.getpid()}\n")
    while not (notes.parent / "go").exists():  # noqa: ASYNC110 - another process makes it
        await asyncio.sleep(0.02)
    return "done"


def _note(notes: Path, line: str) -> None:
    with notes.open("a") as file:
        file.write(line)
