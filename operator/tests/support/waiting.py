"""Waiting in tests: for a condition, never for a time.

The deadline is far beyond what a slow and busy machine needs, and below the five minutes of a sweep, so what
only a sweep would mend is not taken for what a watch saw. Only a test that fails waits for so long.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any

DEADLINE_SECONDS = 180.0


def eventually(condition: Callable[[], Any], seconds: float = DEADLINE_SECONDS, *, what: str = "") -> Any:
    """Return the condition's first answer that is not false. An error names `what` or the docstring."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        asked = getattr(condition, "func", condition)  # of a partial
        missing = what or asked.__doc__ or getattr(asked, "__qualname__", repr(asked))
        if time.monotonic() >= deadline:
            raise TimeoutError(f"not within {seconds:.0f} s: {missing}")
        time.sleep(0.1)
    return found


async def until(condition: Callable[[], object], seconds: float = DEADLINE_SECONDS) -> None:
    """Return once the condition holds; fail after so many seconds."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what is waited for is in another process or a fake
            await asyncio.sleep(0.005)
