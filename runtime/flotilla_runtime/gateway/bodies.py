"""Reads the body of a request. One that is refused is answered with a problem."""

from http import HTTPStatus
from typing import Final

from starlette.requests import Request

from flotilla_runtime.gateway.problems import ProblemError, unavailable
from flotilla_runtime.places import RETRY_AFTER_SECONDS
from flotilla_runtime.request_body import (
    BodyCutShortError,
    BodyTooLongError,
    BodyTooSlowError,
    NoRoomForBodyError,
    read_body,
)

READ_WITHIN_SECONDS: Final = 30.0


async def read_posted(request: Request, limit_bytes: int) -> bytes:
    """The whole body."""
    try:
        return await read_body(request, limit_bytes=limit_bytes, within_seconds=READ_WITHIN_SECONDS)
    except BodyTooLongError:
        raise ProblemError(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            "body-too-long",
            f"the body is longer than {limit_bytes} bytes, the limit for a task; put long documents into an "
            "index and ask about them",
        ) from None
    except BodyTooSlowError:
        raise ProblemError(
            HTTPStatus.REQUEST_TIMEOUT,
            "body-too-slow",
            f"the whole body did not arrive within {READ_WITHIN_SECONDS:g} s; send the request again",
        ) from None
    except NoRoomForBodyError:
        raise unavailable(
            "the bodies of all requests together take as much memory as they may; try again in "
            f"{RETRY_AFTER_SECONDS} s",
            RETRY_AFTER_SECONDS,
        ) from None
    except BodyCutShortError:
        raise ProblemError(
            HTTPStatus.BAD_REQUEST,
            "body-cut-short",
            "the connection was closed before the whole body arrived; send the request again",
        ) from None
