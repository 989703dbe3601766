"""Reads request bodies up to a limit and within a time, without holding more than the limit in memory.

What the client still sends of a body that is refused is discarded by its connection (see connections).
"""

import asyncio

from starlette.requests import ClientDisconnect, Request

from flotilla_runtime.places import BODIES, Held


class BodyTooLongError(Exception):
    """The Content-Length or the bytes show that the body is longer than the limit."""


class BodyTooSlowError(Exception):
    """The whole body did not arrive in time."""


class NoRoomForBodyError(Exception):
    """The bodies of all requests together take as much memory as they may."""


class BodyCutShortError(Exception):
    """The connection was closed before the whole body arrived."""


async def read_body(request: Request, *, limit_bytes: int, within_seconds: float) -> bytes:
    """The whole body. Raises as soon as it is too long or too slow."""
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limit_bytes:
        raise BodyTooLongError
    held: Held | None = request.scope.get(BODIES)
    parts: list[bytes] = []
    length = 0
    try:
        async with asyncio.timeout(within_seconds):
            async for part in request.stream():
                length += len(part)
                if length > limit_bytes:
                    raise BodyTooLongError
                if held is not None and not held.take(len(part)):
                    raise NoRoomForBodyError
                parts.append(part)
    except TimeoutError:
        raise BodyTooSlowError from None
    except ClientDisconnect:
        raise BodyCutShortError from None
    return b"".join(parts)


def body_done(request: Request) -> None:
    """Give the bytes of the request's body back before the request ends; the caller has dropped the body."""
    held: Held | None = request.scope.get(BODIES)
    if held is not None:
        held.give_back()
