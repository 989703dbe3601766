"""An OpenAPI document and its server, which keeps what it was asked and can go wrong."""

import asyncio
import contextlib
import copy
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web

DOCUMENT: dict[str, Any] = {
    "openapi": "3.0.3",
    "info": {"title": "Trips", "version": "1"},
    "servers": [{"url": "/{version}", "variables": {"version": {"default": "api"}}}],
    "paths": {
        "/cities/{city}/rooms": {
            "parameters": [
                {"name": "city", "in": "path", "required": True, "schema": {"type": "string"}},
                {"$ref": "#/components/parameters/Language"},
            ],
            "post": {
                "operationId": "bookRoom",
                "summary": "Books a room.",
                "description": "Only where one is free.",
                "parameters": [
                    {
                        "name": "notify",
                        "in": "query",
                        "schema": {"type": "array", "items": {"type": "string"}},
                    },
                    {"name": "tags", "in": "query", "explode": False, "schema": {"type": "array"}},
                    {"name": "box", "in": "query", "style": "deepObject", "schema": {"type": "object"}},
                    {"name": "raw", "in": "query", "content": {"application/json": {"schema": {}}}},
                    {"name": "X-Trip", "in": "header", "schema": {"type": "string"}},
                    {"name": "Authorization", "in": "header", "required": True, "schema": {}},
                    {"name": "mood", "in": "cookie", "schema": {}},
                ],
                "requestBody": {
                    "required": True,
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Booking"}}},
                },
            },
            "get": {
                "operationId": "listRooms",
                "parameters": [{"name": "body", "in": "query", "schema": {"type": "string"}}],
            },
        },
    },
    "components": {
        "parameters": {"Language": {"name": "lang", "in": "query", "schema": {"type": "string"}}},
        "schemas": {
            "Booking": {
                "type": "object",
                "properties": {
                    "nights": {"type": "integer", "minimum": 0, "exclusiveMinimum": True},
                    "note": {"type": "string", "nullable": True, "pattern": "^(a+)+$"},
                    "guests": {"type": "array", "items": {"$ref": "#/components/schemas/Guest"}},
                    "example": {"type": "string"},
                },
                "required": ["nights"],
            },
            "Guest": {
                "type": "object",
                "properties": {"friend": {"$ref": "#/components/schemas/Guest"}},
                "example": {"friend": None},
            },
        },
    },
}


def document(**fields: Any) -> dict[str, Any]:
    """The document, with other values of some of its fields."""
    return copy.deepcopy(DOCUMENT) | fields


class OpenApiServer:
    """Serves a document and its operations."""

    def __init__(self) -> None:
        self.document: Any = document()
        self.fault: str | None = None
        self.asked: list[dict[str, Any]] = []
        self.document_headers: list[dict[str, str]] = []
        self.url = ""

    @property
    def document_url(self) -> str:
        """Where the document is."""
        return f"{self.url}/openapi.json"

    async def _document(self, request: web.Request) -> web.StreamResponse:
        self.document_headers.append(dict(request.headers))
        match self.fault:
            case "hangs":
                await asyncio.sleep(60)
            case "refuses":
                raise web.HTTPServiceUnavailable
            case "redirects":
                raise web.HTTPFound("http://169.254.169.254/openapi.json")
            case "is endless":
                response = web.StreamResponse(headers={"Content-Type": "application/json"})
                await response.prepare(request)
                with contextlib.suppress(ConnectionError):
                    for _ in range(1600):
                        await response.write(b"[" * 2**16)
                return response
            case "is YAML":
                return web.Response(text="openapi: 3.0.3\n")
        return web.json_response(self.document)

    async def _operation(self, request: web.Request) -> web.StreamResponse:
        text = await request.text()
        self.asked.append(
            {
                "method": request.method,
                "path": request.raw_path.partition("?")[0],
                "query": sorted(request.query.items()),
                "json": await request.json() if text else None,
                "headers": dict(request.headers),
            }
        )
        return web.json_response({"booked": True})


@contextlib.asynccontextmanager
async def openapi_server() -> AsyncIterator[OpenApiServer]:
    """A running server."""
    served = OpenApiServer()
    application = web.Application()
    application.router.add_get("/openapi.json", served._document)
    application.router.add_route("*", "/{rest:.*}", served._operation)
    runner = web.AppRunner(application, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    served.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield served
    finally:
        await runner.cleanup()
