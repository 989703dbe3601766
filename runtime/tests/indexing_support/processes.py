"""The steps of a build and the retriever as their pods run them: processes with a configuration file."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx2

from flotilla_runtime.contract import MilvusConnection, RetrieverConfig, StepReport
from indexing_support.builds import Index
from leaks.planted import planted
from local_cluster.processes import free_port

RUNTIME = Path(__file__).parents[2]
EMBEDDER_KEY = planted("embedder")
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(RUNTIME), "FLOTILLA_EMBEDDER_KEY": EMBEDDER_KEY}
NOTHING: Mapping[str, str] = {}


def log_of(index: Index) -> str:
    """The output of the index's processes so far."""
    return (index.folder / "processes.log").read_text()


@contextmanager
def started(
    index: Index, step: str, *, shard: int = 0, environment: Mapping[str, str] = NOTHING
) -> Iterator["subprocess.Popen[bytes]"]:
    """A step that runs until it ends or the block does."""
    config, report = index.folder / "config.json", index.folder / "report"
    config.write_text(index.config("b1").model_dump_json())
    report.unlink(missing_ok=True)
    arguments = [step, "--config", str(config), "--report", str(report)]
    environment = {"JOB_COMPLETION_INDEX": str(shard), **environment}
    with _process(index, "flotilla_runtime.indexing", arguments, environment) as process:
        yield process


def run(
    index: Index, step: str, shard: int = 0, *, environment: Mapping[str, str] = NOTHING
) -> tuple[int, StepReport]:
    """A step's exit status and report."""
    with started(index, step, shard=shard, environment=environment) as process:
        status = process.wait(120)
    return status, StepReport.model_validate_json((index.folder / "report").read_bytes())


@contextmanager
def retriever(
    index: Index, *, environment: Mapping[str, str] = NOTHING, keys: Path | None = None
) -> Iterator[tuple["subprocess.Popen[bytes]", str]]:
    """The retriever, and where it is going to listen; with `keys`, callers need one of that folder."""
    port = free_port()
    config = RetrieverConfig(
        index="handbook",
        milvus=MilvusConnection(uri=index.milvus_uri),
        alias=index.alias,
        deadline_milliseconds=10_000,
        caller_keys_directory=str(keys) if keys is not None else None,
        port=port,
    )
    path = index.folder / "retriever.json"
    path.write_text(config.model_dump_json())
    with _process(index, "flotilla_runtime.retrieval", ["--config", str(path)], environment) as process:
        yield process, f"http://127.0.0.1:{port}"


def readiness(url: str) -> httpx2.Response | None:
    """The answer of a retriever on its readiness, None while it does not listen."""
    try:
        return httpx2.get(f"{url}/readyz", timeout=10)
    except httpx2.TransportError:
        return None


@contextmanager
def _process(
    index: Index, module: str, arguments: list[str], environment: Mapping[str, str]
) -> Iterator["subprocess.Popen[bytes]"]:
    with (index.folder / "processes.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            env={**ENVIRONMENT, **environment},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # a killed step leaves its parser process behind
