"""A claim or a folder of the node that the downloader may not write: it says so, without a stack trace."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from flotilla_runtime.models import __main__ as models
from flotilla_runtime.models import fetch, hub
from flotilla_runtime.models.failures import CACHE, EXIT_STATUS, ModelError, Reason

NOBODY = 65534
REPOSITORY = hub.Repository(name="org/model", revision="0" * 40)


@pytest.fixture
def denied(tmp_path: Path) -> Iterator[Path]:
    """A folder that this process may read and not write; root may write everywhere, so it is nobody then."""
    tmp_path.chmod(0o555)
    was = os.geteuid()
    if was == 0:
        os.seteuid(NOBODY)
    yield tmp_path
    os.seteuid(was)
    tmp_path.chmod(0o755)


@pytest.mark.parametrize(
    "place",
    [
        pytest.param("model", id="where the lock would lie"),
        pytest.param("org--model/files", id="where the lock's folder would"),
    ],
)
def test_a_claim_that_cannot_be_written(place: str, denied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--source", "hf://org/model", "--to", str(denied / place)]
    status = models.main([*arguments, "--termination-log", str(denied / "log")])
    assert status == EXIT_STATUS[Reason.FOLDER_UNWRITABLE]
    told = capsys.readouterr().err
    assert told.startswith("FolderUnwritable: ")
    assert "Permission denied" in told
    assert told.rstrip().endswith(f"or name another one ({CACHE})")


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        pytest.param(errno.EROFS, Reason.FOLDER_UNWRITABLE, id="a claim mounted to be read only"),
        pytest.param(errno.ESTALE, Reason.FOLDER_FAILED, id="a share that went away"),
        pytest.param(errno.EIO, Reason.FOLDER_FAILED, id="a disk that breaks"),
        pytest.param(
            errno.ENAMETOOLONG, Reason.FOLDER_FAILED, id="a name that the file system has no room for"
        ),
        pytest.param(errno.ENOSPC, Reason.DISK_FULL, id="a claim without room for a lock"),
    ],
)
def test_other_ways_not_to_be_written(
    number: int, reason: Reason, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(path: object, *_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(Path, "mkdir", fails)
    with pytest.raises(ModelError) as failed:
        fetch.ensure(REPOSITORY, tmp_path / "model", fetch.Patience(attempts=1), lambda _: None)
    assert (failed.value.reason, failed.value.field) == (reason, CACHE)
    assert os.strerror(number) in failed.value.problem
    assert ("writable" in failed.value.fix) == (reason is Reason.FOLDER_UNWRITABLE)
