"""A symbolic link where files are to be fetched is refused, wherever it leads."""

from pathlib import Path

import pytest

from flotilla_runtime.models import files, lock
from flotilla_runtime.models.failures import CACHE, ModelError, Reason


@pytest.mark.holds("engine.md", "A folder that is or has a symbolic link is refused with `FolderLinked`")
@pytest.mark.parametrize(
    ("link", "reason"),
    [
        pytest.param(None, None, id="no link"),
        pytest.param("model", Reason.FOLDER_LINKED, id="the folder itself"),
        pytest.param("model/config.json", Reason.FOLDER_LINKED, id="a file"),
        pytest.param("model/1_Pooling", Reason.FOLDER_LINKED, id="a folder in it"),
        pytest.param("model/a/b/c", Reason.FOLDER_LINKED, id="deep in it"),
    ],
)
def test_a_folder_with_a_link_is_refused(link: str | None, reason: Reason | None, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    if link is not None:
        (tmp_path / link).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / link).symlink_to(other)
    refused = None
    try:
        files.refuse_links(tmp_path / "model")
    except ModelError as error:
        refused = error
    assert (refused and refused.reason, refused and refused.field) == (reason, reason and CACHE)


def test_links_are_not_followed_to_look_for_others(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path)
    files.refuse_links(tmp_path / "model")


def test_a_lock_is_no_link(tmp_path: Path) -> None:
    (tmp_path / ".model.lock").symlink_to(tmp_path / "other")
    with pytest.raises(OSError, match="symbolic links"), lock.held(tmp_path / "model", lambda _: None):
        pass
    assert not (tmp_path / "other").exists()
