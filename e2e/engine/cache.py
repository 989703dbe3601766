"""Where the engine's large files are kept, and under which names.

Everything is addressed by the content that made it: another lock file gives another folder, so a half-built
or outdated folder is never mistaken for the wanted one. A folder appears under its final name by one rename,
after it is complete.
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
    """Whoever else would make `folder` waits until the block has ended; then it is there."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f".{folder.name}.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextmanager
def built_aside(folder: Path) -> Iterator[Path]:
    """A scratch folder that takes `folder`'s name when the block ends well, and vanishes otherwise."""
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
    """Make `link` a relative symbolic link to its sibling `target`, in one step.

    Relative, because the folder that holds both is mounted elsewhere in the containers.
    """
    if link.is_symlink() and link.readlink() == Path(target.name):
        return
    fresh = link.with_name(f".{link.name}-{os.getpid()}")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target.name)
    fresh.replace(link)
