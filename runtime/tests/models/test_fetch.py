"""The tries of a download without a hub; with one they are in e2e/tests/test_hub_stub.py."""

from pathlib import Path

import pytest

from flotilla_runtime.models import fetch, hub
from flotilla_runtime.models.failures import SOURCE, Reason, TransientError
from flotilla_runtime.models.hub import Repository
from flotilla_runtime.models.listing import Listing

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
