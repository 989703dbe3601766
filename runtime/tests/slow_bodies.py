"""Requests whose bodies do not arrive as they should, without a server."""

import asyncio
from typing import Any

from starlette.requests import Request


def arriving(parts: list[bytes | None]) -> Request:
    """A request whose body arrives so far and then stops; None is where the connection is closed."""
    left = iter(parts)

    async def receive() -> dict[str, Any]:
        for part in left:
            if part is None:
                return {"type": "http.disconnect"}
            return {"type": "http.request", "body": part, "more_body": True}
        await asyncio.Event().wait()
        raise AssertionError

    return Request({"type": "http", "method": "POST", "headers": []}, receive)
