"""Installs the engine's packages into the cache, or finds them there.

Two things are less obvious. vLLM's CPU build asks for torch's CPU wheel, which the package index does not
have; its CUDA build works on a CPU as well, so the lock file holds that one and its libraries. And the byte
code is compiled here, with hashes that are never checked again, because the pods mount the folder read-only
and could neither write it nor trust the files' times.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engine.cache import alone, built_aside, cache_root, content_key, point

REQUIREMENTS = Path(__file__).parent / "requirements"
LOCK = REQUIREMENTS / "engine.txt"
LAYOUT = "packages-1"
DISK_NEEDED_BYTES = 14 * 1024**3  # 6 GiB installed, once more in the installer's cache, and room to unpack

Progress = Callable[[str], None]


class EngineError(RuntimeError):
    """The engine cannot be prepared or started; the message says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """An installed engine: the folder of its packages and a Python that can run them."""

    folder: Path
    python: Path

    @property
    def packages(self) -> Path:
        """What goes on PYTHONPATH."""
        return self.folder / "site-packages"


def python_311() -> Path:
    """A Python 3.11 on this machine, the system's before any version manager's shim."""
    candidates = [Path("/usr/bin/python3.11")]
    if sys.version_info[:2] == (3, 11):
        candidates.append(Path(sys.base_prefix) / "bin" / "python3.11")
    found = shutil.which("python3.11")
    if found:
        candidates.append(Path(found))
    for candidate in candidates:
        if os.access(candidate, os.X_OK):
            return candidate
    raise EngineError(
        "the CPU engine's packages are built for Python 3.11 and there is none on this machine; "
        "install python3.11 (Debian 12: apt-get install python3.11)"
    )


def engine_folder(root: Path | None = None) -> Path:
    """The folder that the containers mount; `current` in it is the environment in use."""
    return (root or cache_root()) / "engine"


def find(root: Path | None = None) -> Environment | None:
    """The environment of this checkout's lock file, or None where it has not been installed."""
    folder = engine_folder(root) / content_key([LOCK], LAYOUT)
    return Environment(folder=folder, python=python_311()) if folder.is_dir() else None


def ensure(root: Path | None = None, progress: Progress = print) -> Environment:
    """The environment of this checkout's lock file, installed first where it is missing."""
    python = python_311()
    parent = engine_folder(root)
    folder = parent / content_key([LOCK], LAYOUT)
    with alone(folder):
        if not folder.is_dir():
            _make(folder, python, progress)
    point(parent / "current", folder)
    return Environment(folder=folder, python=python)


def _make(folder: Path, python: Path, progress: Progress) -> None:
    _check_room(folder.parent)
    began = time.monotonic()
    with built_aside(folder) as scratch:
        progress("engine: installing vLLM's CPU build and its libraries (6 GB, one to five minutes)")
        install(LOCK, scratch / "site-packages", python)
        progress(f"engine: installed after {time.monotonic() - began:.0f} s, compiling byte code")
        _compile(scratch / "site-packages", python)
    progress(f"engine: ready after {time.monotonic() - began:.0f} s in {folder}")


def _check_room(parent: Path) -> None:
    parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(parent).free
    if free < DISK_NEEDED_BYTES:
        raise EngineError(
            f"{parent} has {free / 1024**3:.1f} GiB free, the engine needs "
            f"{DISK_NEEDED_BYTES / 1024**3:.0f}; free some, or set FLOTILLA_CACHE to a larger disk"
        )


def install(lock: Path, target: Path, python: Path) -> None:
    """Install exactly the packages of a lock file into a plain folder."""
    beside = Path(sys.executable).parent / "uv"
    command = [
        *(str(beside) if beside.exists() else "uv", "pip", "install", "--python", str(python)),
        *("--target", str(target), "--no-deps", "--require-hashes", "--requirement", str(lock)),
    ]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise EngineError(f"installing {lock.name} failed: {done.stderr.strip()[-2000:]}")


def _compile(target: Path, python: Path) -> None:
    # Some packages ship files for other Python versions that do not compile; they are never imported.
    subprocess.run(
        [
            *(str(python), "-m", "compileall", "-q", "-q", "-j", "0"),
            *("--invalidation-mode", "unchecked-hash", str(target)),
        ],
        check=False,
        capture_output=True,
    )
