"""Waiting for what must become true."""

import asyncio
import time
from collections.abc import Awaitable, Callable


async def until(condition: Callable[[], bool], *, seconds: float = 30) -> float:
    """How long it took; fails when it took longer than `seconds`."""
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started >= seconds:
            raise TimeoutError(f"not within {seconds} s")
        await asyncio.sleep(0.01)
    return time.monotonic() - started


async def until_told(ask: Callable[[], Awaitable[bool]], *, seconds: float = 30) -> None:
    """Ask until the answer is yes."""
    async with asyncio.timeout(seconds):
        while True:
            if await ask():
                return
            await asyncio.sleep(0.02)
