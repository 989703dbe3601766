"""Refusals of requests: OpenAI's error body with the right status."""

import secrets
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from aiohttp import web
from aiohttp.typedefs import Middleware
from pydantic import BaseModel, ValidationError

from engine_double import shapes

Body = TypeVar("Body", bound=BaseModel)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


OPEN = ("/health", "/metrics")
ADMINISTRATION = "/admin/"  # the double's own


class RefusedError(Exception):
    """An error answer: its status, type and text, the parameter at fault, and the header Retry-After."""

    def __init__(
        self,
        status: int,
        kind: str,
        problem: str,
        parameter: str | None = None,
        *,
        retry_after: str | None = None,
    ) -> None:
        super().__init__(problem)
        self.status = status
        self.body = shapes.error(status, kind, problem, parameter)
        self.headers = {} if retry_after is None else {"Retry-After": retry_after}


@web.middleware
async def errors_answered(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer refused requests and unknown paths as vLLM does."""
    try:
        return await handler(request)
    except RefusedError as refused:
        return web.json_response(refused.body, status=refused.status, headers=refused.headers)
    except (web.HTTPNotFound, web.HTTPMethodNotAllowed) as missing:
        return web.json_response({"detail": missing.reason}, status=missing.status)


def asking_for(key: str) -> Middleware:
    """Refuse requests without this key, as vLLM does with the guard that our pods give it."""

    @web.middleware
    async def asked(request: web.Request, handler: Handler) -> web.StreamResponse:
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        right = scheme.lower() == "bearer" and secrets.compare_digest(given.encode(), key.encode())
        if not (right or request.path in OPEN or request.path.startswith(ADMINISTRATION)):
            return web.json_response({"error": "Unauthorized"}, status=401)
        return await handler(request)

    return asked


def parsed(raw: bytes, kind: type[Body]) -> Body:
    """A body read as `kind`; the refusal names the first field at fault."""
    try:
        return kind.model_validate_json(raw)
    except ValidationError as problem:
        first: Any = problem.errors(include_url=False)[0]
        where = ".".join(["body", *(str(part) for part in first["loc"])])
        raise RefusedError(400, "Bad Request", f"{where}: {first['msg']}", where) from problem
