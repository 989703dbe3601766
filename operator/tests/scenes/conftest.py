"""Each scene runs on a loop whose clock jumps, and must log no error."""

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.scenes.scene import Scene
from tests.support.virtual_time import VirtualTimeLoop


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], Any]]:
    return {"virtual": VirtualTimeLoop}


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    with capture_logs() as logs:
        async with Scene().playing() as made:
            yield made
    assert [entry for entry in logs if entry["log_level"] == "error"] == []
