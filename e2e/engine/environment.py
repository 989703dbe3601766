"""Installs the engine's packages into the cache, or finds them there.

- The lock file holds torch's CUDA build. vLLM's CPU build asks for torch's CPU wheel, which the package index
  does not have; the CUDA build works on a CPU as well.
- The byte code is compiled here, and Python is told never to check it against the source. The pods mount the
  folder read-only, so they could not write byte code, and the files' times may differ there.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engine.cache import alone, built_aside, cache_root, content_key, point
from engine.entrypoint import MODEL_INFOS
from local_cluster.declared import ENGINE, check_declared

REQUIREMENTS = Path(__file__).parent / "requirements"
LOCK = REQUIREMENTS / "engine.txt"
LAYOUT = "packages-1"
DISK_NEEDED_BYTES = 14 * 1024**3  # 6 GiB installed, 6 GiB in the installer's cache, and room to unpack
# The classes of the models and draft heads of the demo and the tests.
ARCHITECTURES = ("LlamaForCausalLM", "BertModel", "EagleLlamaForCausalLM", "Eagle3LlamaForCausalLM")
INSPECT = """
import sys
from vllm.model_executor.models.registry import ModelRegistry

for name in sys.argv[1:]:
    ModelRegistry.models[name].inspect_model_cls()
"""

Progress = Callable[[str], None]


class EngineError(RuntimeError):
    """The engine cannot be installed or started; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """An installed engine: the folder of its packages and a Python that can run them."""

    folder: Path
    python: Path

    @property
    def packages(self) -> Path:
        """The folder for PYTHONPATH."""
        return self.folder / "site-packages"


def python_311() -> Path:
    """A Python 3.11 of this machine; the system's own is preferred to a version manager's."""
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
        "the CPU engine's packages need Python 3.11, and this machine has none; "
        "install it (Debian 12: apt-get install python3.11)"
    )


def engine_folder(root: Path | None = None) -> Path:
    """The folder that the containers mount; its link `current` names the environment in use."""
    return (root or cache_root()) / "engine"


def find(root: Path | None = None) -> Environment | None:
    """The environment of this checkout's lock file, or None when it is not installed."""
    folder = engine_folder(root) / content_key([LOCK], LAYOUT)
    return Environment(folder=folder, python=python_311()) if folder.is_dir() else None


def ensure(root: Path | None = None, progress: Progress = print) -> Environment:
    """The environment of this checkout's lock file; installs it when it is missing."""
    if root is None:
        check_declared(ENGINE)
    python = python_311()
    parent = engine_folder(root)
    folder = parent / content_key([LOCK], LAYOUT)
    with alone(folder):
        if not folder.is_dir():
            _make(folder, python, progress)
        if not (folder / MODEL_INFOS).is_dir():
            _inspect_models(folder, python, progress)
    point(parent / "current", folder)
    return Environment(folder=folder, python=python)


def _make(folder: Path, python: Path, progress: Progress) -> None:
    _check_room(folder.parent)
    began = time.monotonic()
    with built_aside(folder) as scratch:
        progress("engine: installing vLLM's CPU build and its libraries (6 GB; takes one to five minutes)")
        install(LOCK, scratch / "site-packages", python)
        progress(f"engine: installed after {time.monotonic() - began:.0f} s; compiling its byte code")
        _compile(scratch / "site-packages", python)
    progress(f"engine: ready in {folder} after {time.monotonic() - began:.0f} s")


def _inspect_models(folder: Path, python: Path, progress: Progress) -> None:
    """Keep what vLLM finds out about the classes of our models, so that no start has to find it out."""
    progress("engine: asking vLLM about the classes of our models (half a minute)")
    with tempfile.TemporaryDirectory(prefix="model-infos-", dir=folder.parent) as scratch:
        variables = {"PYTHONPATH": str(folder / "site-packages"), "VLLM_CACHE_ROOT": scratch}
        done = subprocess.run(
            [str(python), "-c", INSPECT, *ARCHITECTURES],
            check=False,
            capture_output=True,
            text=True,
            env={**os.environ, **variables},
        )
        if done.returncode != 0:
            raise EngineError(f"vLLM does not know our models: {done.stderr.strip()[-2000:]}")
        found = Path(scratch, "modelinfos")
        for path in (found, *found.iterdir()):
            path.chmod(0o755 if path.is_dir() else 0o644)
        found.rename(folder / MODEL_INFOS)


def _check_room(parent: Path) -> None:
    parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(parent).free
    if free < DISK_NEEDED_BYTES:
        raise EngineError(
            f"the disk of {parent} has {free / 1024**3:.1f} GiB free, and installing the engine needs "
            f"{DISK_NEEDED_BYTES / 1024**3:.0f} GiB; free some space, or set FLOTILLA_CACHE to a folder "
            "on a larger disk"
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
        raise EngineError(f"installing the packages of {lock} failed: {done.stderr.strip()[-2000:]}")


def _compile(target: Path, python: Path) -> None:
    # Failures are ignored: some packages ship files for other Python versions, which are never imported.
    subprocess.run(
        [
            *(str(python), "-m", "compileall", "-q", "-q", "-j", "0"),
            *("--invalidation-mode", "unchecked-hash", str(target)),
        ],
        check=False,
        capture_output=True,
    )
