"""Reads request bodies up to a limit, without ever holding more than that.

A body that is too long is refused as soon as that is known, from its Content-Length or from its bytes. The
answer goes out first and what the client still sends is then thrown away for a moment: closing at once would
reset the connection, and many clients would see that instead of the 413.
"""

import asyncio
import json
from http import HTTPStatus
from typing import Any, Final

from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope, Send

from flotilla_runtime.gateway.problems import MEDIA_TYPE, ProblemError

READ_WITHIN_SECONDS: Final = 30.0
DISCARD_WITHIN_SECONDS: Final = 3.0
DISCARD_BYTES: Final = 64 * 1024 * 1024


def too_long(limit_bytes: int) -> ProblemError:
    """The problem of a body over the limit."""
    return ProblemError(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        "body-too-long",
        f"a task may be {limit_bytes} bytes long; put long documents into an index and ask about them",
        headers={"Connection": "close"},
    )


async def read_body(request: Request, limit_bytes: int) -> bytes:
    """The whole body, or a problem as soon as it is known to be too long or too slow."""
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limit_bytes:
        raise too_long(limit_bytes)
    parts: list[bytes] = []
    length = 0
    try:
        async with asyncio.timeout(READ_WITHIN_SECONDS):
            async for part in request.stream():
                length += len(part)
                if length > limit_bytes:
                    raise too_long(limit_bytes)
                parts.append(part)
    except TimeoutError:
        raise ProblemError(
            HTTPStatus.REQUEST_TIMEOUT, "body-too-slow", f"no whole body within {READ_WITHIN_SECONDS:g} s"
        ) from None
    except ClientDisconnect:
        raise ProblemError(HTTPStatus.BAD_REQUEST, "body-cut-short", "the body was cut short") from None
    return b"".join(parts)


class RefusedBody:
    """An ASGI response that is sent whole before the rest of the request is thrown away."""

    def __init__(self, problem: ProblemError) -> None:
        self._body = json.dumps(problem.document(), ensure_ascii=False).encode()
        self._status = int(problem.status)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, then read on for a moment."""
        headers = [
            (b"content-type", MEDIA_TYPE.encode()),
            (b"content-length", str(len(self._body)).encode()),
            (b"connection", b"close"),
        ]
        await send({"type": "http.response.start", "status": self._status, "headers": headers})
        await send({"type": "http.response.body", "body": self._body, "more_body": True})
        await _discard(receive)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _discard(receive: Receive) -> None:
    left = DISCARD_BYTES
    try:
        async with asyncio.timeout(DISCARD_WITHIN_SECONDS):
            while left > 0:
                message: Any = await receive()
                if message["type"] != "http.request" or not message.get("more_body"):
                    return
                left -= len(message.get("body", b""))
    except TimeoutError:
        return
