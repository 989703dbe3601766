"""Another fetcher goes on where a killed one stopped: real processes, one cache, and a hub that counts.

The hub's client and the lock are real too. Replicas that share a cache are in test_engine_model_cache.py.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from flotilla_runtime.models.files import read_marker
from local_cluster.processes import free_port
from tests.support.hub import Hub
from tests.support.waiting import eventually

pytestmark = [pytest.mark.services, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
REPOSITORY = "org/model"
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
WEIGHTS = bytes(range(256)) * 4096  # 1 MiB
STALLED = {"stall": {"file": SECOND, "after_bytes": len(WEIGHTS) // 2}}
WAITS = "another replica is fetching"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetcher:
    """The fetcher of one replica, and what it says."""

    process: "subprocess.Popen[bytes]"
    log: Path

    def said(self, words: str) -> bool:
        """A line of the fetcher's."""
        return words in self.log.read_text()

    def ended_well(self) -> bool:
        return self.process.wait(120) == 0


@pytest.fixture
def stub(tmp_path: Path) -> Iterator[Hub]:
    model = tmp_path / "hub" / REPOSITORY
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    (model / FIRST).write_bytes(WEIGHTS)
    (model / SECOND).write_bytes(WEIGHTS)
    port = free_port()
    command = [sys.executable, "-m", "hub_stub", "--root", str(tmp_path / "hub"), "--host", "127.0.0.1"]
    process = subprocess.Popen([*command, "--port", str(port)], cwd=ROOT / "e2e")
    try:
        running = Hub(url=f"http://127.0.0.1:{port}", repository=REPOSITORY)
        eventually(running.answers)
        yield running
    finally:
        process.kill()
        process.wait(60)


@pytest.fixture
def fetch(stub: Hub, tmp_path: Path) -> Iterator[Callable[[str], Fetcher]]:
    """Starts the fetcher of a replica, as the init container does; all share the folder `cache`."""
    started: list[Fetcher] = []

    def start(replica: str) -> Fetcher:
        folder = tmp_path / "cache" / "model"
        log = tmp_path / f"{replica}.log"
        arguments = ["--source", f"hf://{REPOSITORY}", "--to", str(folder), "--termination-log", os.devnull]
        environment = {
            **os.environ,
            "HF_ENDPOINT": stub.url,
            "HF_HOME": str(tmp_path / replica),
            "HF_HUB_DOWNLOAD_TIMEOUT": "300",  # or a fetcher that stalls would ask again by itself
            "PYTHONPATH": str(ROOT / "runtime"),
        }
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "flotilla_runtime.models", *arguments],
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
            )
        started.append(Fetcher(process=process, log=log))
        return started[-1]

    yield start
    for fetcher in started:
        if fetcher.process.poll() is None:
            fetcher.process.kill()
            fetcher.process.wait(60)


@pytest.mark.holds("engine.md", "A downloader that is killed is followed by one that keeps the whole files")
def test_a_downloader_that_is_killed_is_followed_by_one_that_goes_on(
    stub: Hub, fetch: Callable[[str], Fetcher], tmp_path: Path
) -> None:
    """With the files that are whole; of the one that was cut, nothing is left lying about."""
    folder = tmp_path / "cache" / "model"
    stub.set_faults(STALLED)
    first = fetch("first")
    eventually(partial(first_there_and_second_begun, folder))
    second = fetch("second")
    eventually(partial(second.said, WAITS))
    first.process.send_signal(signal.SIGKILL)
    assert first.process.wait(60) == -signal.SIGKILL
    assert read_marker(folder) is None
    stub.set_faults({})
    assert second.ended_well(), second.log.read_text()
    assert (stub.downloads(FIRST), stub.downloads(SECOND)) == (1, 2)
    assert [(folder / name).read_bytes() == WEIGHTS for name in (FIRST, SECOND)] == [True, True]
    assert list(folder.rglob("*.incomplete")) == []


def first_there_and_second_begun(folder: Path) -> bool:
    """One file is whole, another is on its way."""
    return (folder / FIRST).exists() and any(folder.rglob("*.incomplete"))
