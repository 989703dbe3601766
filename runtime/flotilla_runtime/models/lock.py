"""One downloader a folder: replicas that start at once on a node, or share a claim, fetch a model once.

The lock is the kernel's own on a file beside the folder. It goes with the process that holds it, however that
ends, so a downloader that was killed leaves no lock behind, and the next one goes on with the files that it
left whole.
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
    """Hold the folder's lock while the block runs; who must wait says so now and then. False where the file
    system has no locks, so that others may be at work in the folder.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    file = _opened(folder.parent / f".{folder.name}.lock")
    try:
        yield _acquire(file, folder, say, sleep)
    finally:
        os.close(file)


def _opened(path: Path) -> int:
    """For writing, which NFS asks for before it locks; a file of another user's will do where it does not."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except PermissionError as refused:
        try:
            return os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            raise refused from None


def _acquire(file: int, folder: Path, say: Callable[[str], None], sleep: Callable[[float], None]) -> bool:
    waited, said_at = 0.0, 0.0
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if waited == 0.0 or waited - said_at >= SAY_SECONDS:
                say(f"another replica fills {folder}; waiting until it is done")
                said_at = waited
            sleep(LOOK_SECONDS)
            waited += LOOK_SECONDS
        except OSError as refused:
            say(f"no lock on {folder.parent} ({refused.strerror}); replicas may fetch the same files twice")
            return False
        else:
            return True
