"""The folder of a namespace and a hub in a folder of the node: made once, and never through a link.

Root runs the command in a pod. Here the process may be anybody, who then makes the folder for itself.
"""

import os
import stat
from pathlib import Path

import pytest

from flotilla_runtime.models.failures import EXIT_STATUS, ModelError, Reason
from flotilla_runtime.models.node_folder import main, make

FETCHER = 65532 if os.geteuid() == 0 else os.geteuid()
STRANGER = 12345
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to others")


@pytest.mark.holds("security.md", "A namespace's folder is root's, and a hub's folder the fetcher's")
def test_the_last_folder_is_the_fetchers_and_those_above_are_not(tmp_path: Path) -> None:
    make(tmp_path, "team/hub", FETCHER)
    above, own = (tmp_path / "team").stat(), (tmp_path / "team" / "hub").stat()
    assert (above.st_uid, stat.S_IMODE(above.st_mode)) == (os.geteuid(), 0o755)
    assert (own.st_uid, stat.S_IMODE(own.st_mode)) == (FETCHER, 0o700)


def test_a_folder_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    make(tmp_path, "team/hub", FETCHER)
    (tmp_path / "team" / "hub" / "model").write_text("weights")
    make(tmp_path, "team/hub", FETCHER)
    make(tmp_path, "team/other-hub", FETCHER)
    make(tmp_path, "other-team/hub", FETCHER)
    assert (tmp_path / "team" / "hub" / "model").read_text() == "weights"


@as_root
def test_one_that_was_made_and_not_yet_given_away_is_given_away(tmp_path: Path) -> None:
    (tmp_path / "team").mkdir()
    (tmp_path / "team" / "hub").mkdir(mode=0o700)
    make(tmp_path, "team/hub", FETCHER)
    assert (tmp_path / "team" / "hub").stat().st_uid == FETCHER


def link(path: Path, to: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    path.symlink_to(to)


def writable(path: Path, _to: Path) -> None:
    path.mkdir()
    path.chmod(0o777)


def file(path: Path, _to: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    path.touch()


def of_a_stranger(path: Path, _to: Path) -> None:
    path.mkdir(parents=True)
    os.chown(path, STRANGER, STRANGER)


@pytest.mark.holds("security.md", "The root container follows no links and refuses what is not root's")
@pytest.mark.attack("A link in the folder leads the root container, or the kubelet, elsewhere")
@pytest.mark.parametrize(
    ("there", "at"),
    [
        pytest.param(link, "team", id="a link for the namespace"),
        pytest.param(link, "team/hub", id="a link for the hub"),
        pytest.param(file, "team", id="a file for the namespace"),
        pytest.param(file, "team/hub", id="a file for the hub"),
        pytest.param(writable, "team", id="a namespace that others could exchange"),
        pytest.param(of_a_stranger, "team", id="a stranger's namespace", marks=as_root),
        pytest.param(of_a_stranger, "team/hub", id="a stranger's hub", marks=as_root),
    ],
)
def test_what_did_not_come_from_here_is_refused(
    there: object, at: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    top, elsewhere, log = tmp_path / "top", tmp_path / "elsewhere", tmp_path / "log"
    top.mkdir()
    elsewhere.mkdir()
    before = elsewhere.stat()
    assert callable(there)
    there(top / at, elsewhere)
    options = ["--top", str(top), "--folder", "team/hub", "--owner", str(FETCHER)]
    assert main([*options, "--termination-log", str(log)]) == EXIT_STATUS[Reason.FOLDER_FAILED]
    assert log.read_text() == capsys.readouterr().err.strip()
    assert log.read_text().endswith("(spec.modelCache.path)")
    assert list(elsewhere.iterdir()) == []
    assert (elsewhere.stat().st_uid, elsewhere.stat().st_mode) == (before.st_uid, before.st_mode)


@pytest.mark.holds("security.md", "The root container follows no links and refuses what is not root's")
@pytest.mark.parametrize("folder", ["../hub", "team/../..", "/hub", "team//hub", "."])
def test_a_folder_that_leads_elsewhere_is_none(folder: str, tmp_path: Path) -> None:
    top = tmp_path / "top"
    top.mkdir()
    with pytest.raises(ModelError, match="leads elsewhere"):
        make(top, folder, FETCHER)
    assert [path.name for path in tmp_path.iterdir()] == ["top"]
    assert list(top.iterdir()) == []
