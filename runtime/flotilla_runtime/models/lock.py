"""Allows one downloader per folder, so that replicas on one node, or with one claim, fetch a model once.

The lock is a kernel lock on a file beside the folder. The kernel releases it when the process ends in any
way, so a downloader that was killed leaves no lock behind. The next downloader continues with its complete
files.
"""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

LOOK_SECONDS = 0.5
SAY_SECONDS = 30.0


@contextmanager
def held(
    folder: Path, say: Callable[[str], None], *, sleep: Callable[[float], None] = time.sleep
) -> Iterator[bool]:
    """Hold the folder's lock while the block runs; while it waits for the lock, it prints that it does.

    Yields False when the file system has no locks, so that others may write to the folder at the same time.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    file = _opened(folder.parent / f".{folder.name}.lock")
    try:
        yield _acquire(file, folder, say, sleep)
    finally:
        os.close(file)


def _opened(path: Path) -> int:
    """Open the lock file for writing, as NFS requires for a lock; another user's file only for reading."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except PermissionError as refused:
        try:
            return os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        except FileNotFoundError:
            raise refused from None


def _acquire(file: int, folder: Path, say: Callable[[str], None], sleep: Callable[[float], None]) -> bool:
    waited, said_at = 0.0, 0.0
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if waited == 0.0 or waited - said_at >= SAY_SECONDS:
                say(f"another replica is fetching files into {folder}; waiting until it is done")
                said_at = waited
            sleep(LOOK_SECONDS)
            waited += LOOK_SECONDS
        except OSError as refused:
            say(
                f"the file system of {folder.parent} has no locks ({refused.strerror}); "
                "several replicas may fetch the same files"
            )
            return False
        else:
            return True
