"""Results that nobody may wait for any more."""

import asyncio
from typing import Any


def heard(future: "asyncio.Future[Any]") -> None:
    """Take what a future failed with as heard: else asyncio logs it when nobody has waited for it."""
    if not future.cancelled():
        future.exception()
