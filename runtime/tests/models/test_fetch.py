"""The tries of a download without a hub; with one they are in e2e/tests/test_hub_stub.py."""

import hashlib
from pathlib import Path

import pytest

from flotilla_runtime.models import fetch, files, hub
from flotilla_runtime.models.failures import SOURCE, Reason, TransientError
from flotilla_runtime.models.hub import Repository
from flotilla_runtime.models.listing import Hash, Listing

REPOSITORY = Repository(name="org/model", revision=None)


def test_a_hub_that_stays_away_is_asked_so_often_with_growing_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Repository] = []
    waits: list[float] = []

    def away(repository: Repository) -> Listing:
        asked.append(repository)
        raise TransientError(Reason.DOWNLOAD_FAILED, field=SOURCE, problem="no answer", fix="wait")

    monkeypatch.setattr(hub, "list_files", away)
    patience = fetch.Patience(attempts=4, sleep=waits.append, draw=max)
    with pytest.raises(TransientError, match="no answer"):
        fetch.ensure(REPOSITORY, tmp_path / "model", patience, lambda _: None)
    assert (len(asked), waits) == (4, [2, 4, 8])


def test_a_file_is_hashed_once_however_often_the_rest_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A try that fails late must not cost the hashes of 140 GB again."""
    contents = {"config.json": b"{}", "a.safetensors": b"a", "b.safetensors": b"b"}
    hashes = {
        name: Hash(digest=hashlib.sha256(content).hexdigest(), of_blob=False)
        for name, content in contents.items()
    }
    sizes = {name: len(content) for name, content in contents.items()}
    listing = Listing(commit="c", sizes=sizes, hashes=hashes)
    hashed: list[str] = []
    tries: list[list[str]] = []

    def has_content(path: Path, wanted: Hash) -> bool:
        hashed.append(path.name)
        return hashlib.sha256(path.read_bytes()).hexdigest() == wanted.digest

    def download(_: Repository, __: Listing, names: list[str], folder: Path) -> None:
        tries.append(sorted(names))
        for name in names:
            (folder / name).write_bytes(b"?" if name.startswith("b") and len(tries) < 3 else contents[name])

    monkeypatch.setattr(hub, "list_files", lambda _: listing)
    monkeypatch.setattr(hub, "download", download)
    monkeypatch.setattr(files, "has_content", has_content)
    patience = fetch.Patience(attempts=3, sleep=lambda _: None)
    fetch.ensure(REPOSITORY, tmp_path / "model", patience, lambda _: None)
    assert tries == [sorted(contents), ["b.safetensors"], ["b.safetensors"]]
    assert sorted(hashed) == ["a.safetensors", *["b.safetensors"] * 3, "config.json"]
