"""Steps of the event loop, measured by the processor time that they take, which no other process adds to.

A step that sleeps takes none; ruff's ASYNC rules find those.
"""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def long_steps(seconds: float) -> Iterator[list[str]]:
    """List the steps that take longer, while the block runs."""
    found: list[str] = []
    run = asyncio.Handle._run

    def measured(handle: asyncio.Handle) -> None:
        began = time.thread_time()
        run(handle)
        if (took := time.thread_time() - began) > seconds:
            found.append(f"{handle!r} took {took:.3f} s of the processor")

    asyncio.Handle._run = measured  # type: ignore[method-assign, assignment]
    try:
        yield found
    finally:
        asyncio.Handle._run = run  # type: ignore[method-assign]
