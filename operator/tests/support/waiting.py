"""Waiting in tests: for a condition, never for a time."""

import asyncio
from collections.abc import Callable


async def until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    """Return once the condition holds; fail after so many seconds."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what is waited for is in another process or a fake
            await asyncio.sleep(0.005)
