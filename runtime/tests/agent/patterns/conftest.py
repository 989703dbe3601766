import pytest

from flotilla_runtime.agent.patterns import branches


@pytest.fixture(autouse=True)
def short_replays(monkeypatch: pytest.MonkeyPatch) -> None:
    """A branch whose time was up before a crash gets a moment to end from the journal: a short one here."""
    monkeypatch.setattr(branches, "REPLAY_MS", 20)
