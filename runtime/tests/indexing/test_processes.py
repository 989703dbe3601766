"""The entry points as the pods run them: three steps, one of them killed, and the retriever until SIGTERM."""

import signal
import time
from pathlib import Path

import httpx2
import pytest

from indexing_support.builds import Index
from indexing_support.embedder import EmbedderState
from indexing_support.processes import EMBEDDER_KEY, log_of, readiness, retriever, run, started
from leaks.planted import planted

pytestmark = [pytest.mark.services, pytest.mark.xdist_group("milvus")]


@pytest.mark.holds(
    "decisions/0005-indexed-jobs.md",
    "A shard that fails is retried alone, and a shard that runs twice writes the same rows",
)
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
    assert set(embedder.authorizations) == {f"Bearer {EMBEDDER_KEY}"}


@pytest.mark.holds(
    "decisions/0007-index-builds.md",
    "A step's outcome is its termination message, at most 4 KiB, and its exit status says whether "
    "another try helps",
)
def test_an_exit_status_says_whether_another_try_helps(index: Index) -> None:
    status, report = run(index, "plan")
    assert (status, report.reason) == (3, "SourceEmpty")
    index.write("a.txt", "text")
    index.milvus_uri = "http://127.0.0.1:1"
    status, report = run(index, "plan")
    assert (status, report.reason) == (1, "MilvusUnreachable")


def wait_until(url: str, status: int) -> None:
    """Wait until the retriever says this of its readiness."""
    deadline = time.monotonic() + 60
    while (ready := readiness(url)) is None or ready.status_code != status:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_the_retriever_serves_until_it_is_told_to_end(index: Index) -> None:
    index.write("a.txt", "The moon moves the sea.")
    for step in ("plan", "shards", "promote"):
        assert run(index, step)[0] == 0
    with retriever(index) as (process, url):
        wait_until(url, 200)
        answer = httpx2.post(f"{url}/v1/retrieve", json={"query": "moon"}, timeout=10).json()
        assert answer["passages"][0]["text"] == "The moon moves the sea."
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


@pytest.mark.holds(
    "search.md",
    "Whoever sends a key of the Secret may search, everybody else gets 401 with `WWW-Authenticate` "
    "and the code `unauthorized`",
)
@pytest.mark.holds("security.md", "Nobody searches without a key, and keys are in no log, message or metric")
@pytest.mark.attack("A pod without a key searches an index")
def test_nobody_searches_without_a_key(index: Index, tmp_path: Path) -> None:
    (tmp_path / "ann").write_text(planted("a"))
    with retriever(index, keys=tmp_path) as (_, url):
        wait_until(url, 503)
        for wrong in (None, "Bearer", "Bearer another", "Basic YTphLWtleQ==", planted("a"), "Bearer ann"):
            headers = {} if wrong is None else {"Authorization": wrong}
            refused = httpx2.post(f"{url}/v1/retrieve", json={"query": "moon"}, headers=headers, timeout=10)
            assert (refused.status_code, refused.json()["code"]) == (401, "unauthorized")
        asked = httpx2.post(
            f"{url}/v1/retrieve",
            json={"query": "moon"},
            headers={"Authorization": f"Bearer {planted('a')}"},
            timeout=10,
        )
        assert asked.json()["code"] == "no-generation", "a caller with a key is let in"
    assert planted("a") not in log_of(index)
