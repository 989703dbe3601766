"""The revisions whose tasks a worker takes; what the store grants for them is in test_store_revisions.py."""

from pathlib import Path

import pytest
import structlog

from flotilla_runtime.agent.worker.revisions import Revisions, read_adopted


def test_adopted_revisions_are_read_anew_every_few_seconds(tmp_path: Path) -> None:
    now = 0.0
    file = tmp_path / "adopted.json"
    revisions = Revisions("r3", str(file), lambda: now)
    assert revisions.now() == ("r3",), "the file may be missing"
    file.write_text('["r1", "r2"]')
    now = 4.9
    assert revisions.now() == ("r3",)
    now = 5.0
    assert revisions.now() == ("r3", "r1", "r2")
    file.write_text("[]")
    now = 10.0
    assert revisions.now() == ("r3",)


@pytest.mark.parametrize("text", ["", "{}", "[1]", "null", '["r1"'])
def test_a_file_that_cannot_be_read_changes_nothing_and_is_told(tmp_path: Path, text: str) -> None:
    now = 0.0
    file = tmp_path / "adopted.json"
    file.write_text('["r1"]')
    revisions = Revisions("r2", str(file), lambda: now)
    assert revisions.now() == ("r2", "r1")
    file.write_text(text)
    now = 60.0
    with structlog.testing.capture_logs() as logged:
        assert revisions.now() == ("r2", "r1")
    assert [line["event"] for line in logged] == ["adopted_revisions_unreadable"]


def test_a_worker_without_a_file_has_its_own_revision_alone() -> None:
    assert Revisions("", None, lambda: 0.0).now() == ("",)
    assert read_adopted('["a"]') == ["a"]
