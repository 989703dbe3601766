"""The engine's tests run on a loop whose clock jumps, so no time-out in them depends on the machine.

Those that talk to a real server need a socket, so they run on a real loop.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from tests.support.virtual_time import VirtualTimeLoop


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], Any]]:
    if item.get_closest_marker("services") is not None:
        return {"real": asyncio.SelectorEventLoop}
    return {"virtual": VirtualTimeLoop}
