"""The entry points as the pods run them: three steps, one of them killed, and the retriever until SIGTERM."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from flotilla_runtime.contract import MilvusConnection, RetrieverConfig, StepReport
from indexing_support.builds import Index
from indexing_support.embedder import EmbedderState
from local_cluster.processes import free_port

pytestmark = pytest.mark.services

RUNTIME = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(RUNTIME), "FLOTILLA_EMBEDDER_KEY": "secret"}


@contextmanager
def started(index: Index, *arguments: str, shard: int = 0) -> Iterator["subprocess.Popen[bytes]"]:
    command = [sys.executable, "-m", "flotilla_runtime.indexing", *arguments]
    config = index.folder / "config.json"
    config.write_text(index.config("b1").model_dump_json())
    report = index.folder / "report"
    report.unlink(missing_ok=True)
    process = subprocess.Popen(
        [*command, "--config", str(config), "--report", str(report)],
        env={**ENVIRONMENT, "JOB_COMPLETION_INDEX": str(shard)},
        stdout=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def run(index: Index, step: str, shard: int = 0) -> tuple[int, StepReport]:
    with started(index, step, shard=shard) as process:
        status = process.wait(120)
    return status, StepReport.model_validate_json((index.folder / "report").read_bytes())


def test_a_killed_shard_is_run_again_and_the_index_is_whole(index: Index, embedder: EmbedderState) -> None:
    index.settings["shard_documents"] = 60
    for number in range(120):
        index.write(f"{number:03d}.txt", f"Ship number {number} sails at dawn. " * 20)
    assert run(index, "plan")[1].shards == 2
    assert run(index, "shards", 0)[0] == 0
    embedder.hold_after(40)
    with started(index, "shards", shard=1) as process:
        assert embedder.holding.wait(120)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    embedder.let_go()
    assert run(index, "promote")[1].reason == "WorkspaceIncomplete"
    assert index.live() is None
    assert run(index, "shards", 1)[0] == 0
    status, report = run(index, "promote")
    assert (status, report.documents.indexed, report.count_parity) == (0, 120, True)
    assert report.chunks == len(index.rows())
    assert set(embedder.authorizations) == {"Bearer secret"}


def test_an_exit_status_says_whether_another_try_helps(index: Index) -> None:
    status, report = run(index, "plan")
    assert (status, report.reason) == (3, "SourceEmpty")
    index.write("a.txt", "text")
    index.milvus_uri = "http://127.0.0.1:1"
    status, report = run(index, "plan")
    assert (status, report.reason) == (1, "MilvusUnreachable")


def test_the_retriever_serves_until_it_is_told_to_end(index: Index) -> None:
    index.write("a.txt", "The moon moves the sea.")
    for step in ("plan", "shards", "promote"):
        assert run(index, step)[0] == 0
    port = free_port()
    config = RetrieverConfig(
        index="handbook",
        milvus=MilvusConnection(uri=index.milvus_uri),
        alias=index.alias,
        deadline_milliseconds=10_000,
        port=port,
    )
    (index.folder / "retriever.json").write_text(config.model_dump_json())
    command = [sys.executable, "-m", "flotilla_runtime.retrieval"]
    arguments = ["--config", str(index.folder / "retriever.json")]
    process = subprocess.Popen([*command, *arguments], env=ENVIRONMENT, stdout=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 60
        while not is_ready(url):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        answer = httpx.post(f"{url}/v1/retrieve", json={"query": "moon"}, timeout=10).json()
        assert answer["passages"][0]["text"] == "The moon moves the sea."
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()


def is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=1).status_code == 200
    except httpx.TransportError:
        return False
