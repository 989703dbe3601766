"""Waits for a task on behalf of a client, as long as the client does."""

import asyncio
from collections.abc import Coroutine
from http import HTTPStatus
from typing import Any

from starlette.types import Receive

from flotilla_runtime.gateway.problems import ProblemError


async def while_there(receive: Receive, waiting: Coroutine[Any, Any, object]) -> None:
    """Wait for this, after the body was read. Raises a problem once the client has closed its connection."""
    ending, leaving = asyncio.create_task(waiting), asyncio.create_task(_left(receive))
    try:
        await asyncio.wait((ending, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not ending.done():
            raise ProblemError(
                HTTPStatus.BAD_REQUEST, "client-left", "the connection was closed; the task goes on"
            )
        await ending
    finally:
        ending.cancel()
        leaving.cancel()


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
