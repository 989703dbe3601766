"""Waiting for what must become true."""

import asyncio
import time
from collections.abc import Callable


async def until(condition: Callable[[], bool], *, seconds: float = 10) -> float:
    """How long it took; fails when it took longer than `seconds`."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds, f"not within {seconds} s"
        await asyncio.sleep(0.01)
    return time.monotonic() - started
