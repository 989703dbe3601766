"""The mounted secret → callers by the hash of their key."""

from pathlib import Path

import pytest

from flotilla_runtime.router.caller_keys import map_text, read_caller_keys

SHA256_OF_ONE = "7692C3AD3540BB803C020B3AEE66CD8887123234EA0C6E7143C0ADD73FF431ED"


@pytest.mark.holds(
    "router.md", "Callers' keys come from the secret, and the entry's name is the caller in the metrics"
)
def test_a_secret_as_the_kubelet_mounts_it(tmp_path: Path) -> None:
    data = tmp_path / "..2026_01_01"
    data.mkdir()
    (data / "fleet").write_bytes(b"one\n")
    (data / "empty").write_bytes(b"\n")
    (tmp_path / "..data").symlink_to(data.name)
    for name in ("fleet", "empty"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    found = read_caller_keys(tmp_path)
    assert found.by_hash == {SHA256_OF_ONE: "fleet"}
    assert len(found.problems) == 1
    assert found.problems[0].startswith("the entry empty is empty; ")


@pytest.mark.holds(
    "router.md",
    "Without the secret everybody who reaches the service may call; with one that is not there nobody",
)
def test_a_secret_that_is_not_there_lets_nobody_in(tmp_path: Path) -> None:
    assert read_caller_keys(tmp_path / "missing").by_hash == {}


def test_the_map_is_sorted() -> None:
    assert map_text({"B": "two", "A": "one"}) == "A one\nB two\n"
