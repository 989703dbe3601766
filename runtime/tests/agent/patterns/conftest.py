"""Patterns run on a loop whose clock jumps, so no time-out in these tests depends on the machine.

Those that use a thread or a socket run on a real one: documents are cut in a thread.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from flotilla_runtime.agent.patterns import branches
from tests.support.virtual_time import VirtualTimeLoop

NEED_REAL_TIME = ("test_documents.py", "test_examples.py", "test_async_first.py")
NEEDS_A_SOCKET = "test_the_request_of_a_loser_is_closed_at_once"


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], Any]]:
    if item.path.name in NEED_REAL_TIME or item.name.startswith(NEEDS_A_SOCKET):
        return {"real": asyncio.SelectorEventLoop}
    return {"virtual": VirtualTimeLoop}


@pytest.fixture(autouse=True)
def short_replays(monkeypatch: pytest.MonkeyPatch) -> None:
    """A branch whose time was up before a crash gets a moment to end from the journal: a short one here."""
    monkeypatch.setattr(branches, "REPLAY_MS", 20)
