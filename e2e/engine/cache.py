"""The cache folder of the engine's packages and models.

A folder's name is a hash of the files that it was made from: a changed lock file gives a new folder, so an
outdated one is never used. A folder is built under another name and renamed when it is complete, so a
half-built one is never used either.
"""

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

CACHE_VARIABLE = "FLOTILLA_CACHE"


def cache_root() -> Path:
    """The folder named by FLOTILLA_CACHE, else ~/.cache/flotilla."""
    configured = os.environ.get(CACHE_VARIABLE)
    return Path(configured) if configured else Path.home() / ".cache" / "flotilla"


def content_key(files: Iterable[Path], layout: str) -> str:
    """Twelve hexadecimal digits that change with any byte of `files` or with the layout's version."""
    digest = hashlib.sha256(layout.encode())
    for file in files:
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:12]


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the lock of `folder`, so that only one process at a time makes it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f".{folder.name}.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextmanager
def built_aside(folder: Path) -> Iterator[Path]:
    """A scratch folder: renamed to `folder` when the block succeeds, removed when it raises."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    scratch.chmod(0o755)
    try:
        yield scratch
        if folder.exists():
            shutil.rmtree(folder)
        scratch.rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def point(link: Path, target: Path) -> None:
    """Make `link` a symbolic link to its sibling `target`, in one step.

    The link is relative, because the containers mount the folder of both at another path.
    """
    if link.is_symlink() and link.readlink() == Path(target.name):
        return
    fresh = link.with_name(f".{link.name}-{os.getpid()}")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target.name)
    fresh.replace(link)
