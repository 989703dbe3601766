"""Reads request bodies up to a limit, without holding more than that in memory.

A body that is too long is refused as soon as its Content-Length or its bytes show it. The answer is sent
first, and what the client still sends is then discarded for a moment: closing the connection at once would
reset it, and many clients would report that instead of the 413.
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
    """The problem for a body over the limit."""
    return ProblemError(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        "body-too-long",
        f"the body is longer than {limit_bytes} bytes, the limit for a task; put long documents into an "
        "index and ask about them",
        headers={"Connection": "close"},
    )


async def read_body(request: Request, limit_bytes: int) -> bytes:
    """The whole body. Raises a problem as soon as it is too long or too slow."""
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
            HTTPStatus.REQUEST_TIMEOUT,
            "body-too-slow",
            f"the whole body did not arrive within {READ_WITHIN_SECONDS:g} s; send the request again",
        ) from None
    except ClientDisconnect:
        raise ProblemError(
            HTTPStatus.BAD_REQUEST,
            "body-cut-short",
            "the connection was closed before the whole body arrived; send the request again",
        ) from None
    return b"".join(parts)


class RefusedBody:
    """An ASGI response that is sent before the rest of the request is discarded."""

    def __init__(self, problem: ProblemError) -> None:
        self._body = json.dumps(problem.document(), ensure_ascii=False).encode()
        self._status = int(problem.status)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer, then discard what the client still sends, for a moment."""
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
