"""Opens the files of a source, and checks what was opened.

Whoever writes to the source can exchange a file for a link at any time. So nothing that is found out by a
name counts: the file is opened, and the open file is checked. A link may lead to another file of the source,
as in a mounted ConfigMap, and nowhere else.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from flotilla_runtime.indexing.errors import DocumentError, DocumentReason

# Without O_NONBLOCK, opening a pipe would wait for somebody who writes to it.
OPENED = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC


@contextmanager
def opened(root: Path, path: str) -> Iterator[BinaryIO]:
    """The regular file at this path below `root`, open for reading; raises DocumentError."""
    try:
        number = os.open(root / path, OPENED)
    except OSError as error:
        raise DocumentError(
            DocumentReason.UNREADABLE,
            f"the file cannot be opened ({error.strerror}); let the group of the pods read it",
        ) from None
    with os.fdopen(number, "rb") as file:
        if not _where(number).is_relative_to(root.resolve()):
            raise DocumentError(
                DocumentReason.OUTSIDE_SOURCE, "this is a link that leads outside the source; copy the file"
            )
        if not stat.S_ISREG(os.fstat(number).st_mode):
            raise DocumentError(DocumentReason.UNREADABLE, "this is not a regular file")
        yield file


def _where(number: int) -> Path:
    """Where an open file is, by the kernel's own account."""
    return Path(f"/proc/self/fd/{number}").readlink()
