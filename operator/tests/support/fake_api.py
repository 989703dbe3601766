"""The fake API server over HTTP, for the faults that a real one does not make on demand.

`fake_answers` says what it answers. Scenes ask it directly, without HTTP; see `tests/scenes`.
"""

import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from kubernetes.aio.client.configuration import Configuration

from flotilla_operator.cluster.client import Client
from flotilla_operator.cluster.connection import HttpConnection
from tests.support.fake_answers import Answers
from tests.support.fake_changes import Manifest
from tests.support.fake_objects import SERVED
from tests.support.fake_requests import Reply, Request, located

VERSION = {"major": "1", "minor": "34", "gitVersion": "v1.34.0"}


class FakeApi(Answers):
    """The server; `running()` serves it on a free port."""

    def __init__(self) -> None:
        super().__init__()
        self.port = 0

    @asynccontextmanager
    async def running(self, port: int = 0) -> AsyncIterator["FakeApi"]:
        application = web.Application(client_max_size=2**24)
        application.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(application, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", port)
        await site.start()
        self.port = runner.addresses[0][1]
        try:
            yield self
        finally:
            await runner.cleanup()

    def configuration(self) -> Configuration:
        return Configuration(host=f"http://127.0.0.1:{self.port}")

    @asynccontextmanager
    async def client(self, **options: Any) -> AsyncIterator[Client]:
        client = Client(HttpConnection(self.configuration(), **options))
        try:
            yield client
        finally:
            await client.close()

    def kubeconfig(self) -> str:
        return json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "fake",
                "clusters": [{"name": "fake", "cluster": {"server": f"http://127.0.0.1:{self.port}"}}],
                "users": [{"name": "fake", "user": {"token": "fake"}}],
                "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake"}}],
            }
        )

    async def _handle(self, http: web.Request) -> web.StreamResponse:
        text = await http.text()
        request = Request(
            method=http.method,
            path=http.path,
            query=dict(http.query),
            content_type=http.headers.get("Content-Type", ""),
            body=json.loads(text) if text else None,
        )
        if (reply := await self.fault_of(request)) is not None:
            return _response(reply)
        if located(request.path) is None:
            return web.json_response(_discovery(request.path))
        if request.method == "GET" and request.is_watch:
            return await self._stream(http, request)
        return _response(self.answer(request))

    async def _stream(self, http: web.Request, request: Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(http)
        with contextlib.suppress(ConnectionError):
            async with contextlib.aclosing(self.watch(request)) as events:
                async for text in events:
                    await response.write(text.encode() + b"\n")
        return response


def _response(reply: Reply) -> web.Response:
    return web.json_response(reply.document, status=reply.status, headers=dict(reply.headers))


def _discovery(path: str) -> Manifest:
    if path in ("/api", "/version"):
        return {"kind": "APIVersions", "versions": ["v1"], **VERSION}
    if path == "/apis":
        groups = sorted({(r.group, r.version) for r in SERVED if r.group})
        return {"kind": "APIGroupList", "groups": [_group(group, version) for group, version in groups]}
    api_version = path.removeprefix("/apis/").removeprefix("/api/")
    return {
        "kind": "APIResourceList",
        "groupVersion": api_version,
        "resources": [
            {
                "name": r.plural,
                "singularName": r.kind.lower(),
                "namespaced": r.namespaced,
                "kind": r.kind,
                "verbs": ["list", "watch", "get", "patch", "create", "delete"],
            }
            for r in SERVED
            if r.api_version == api_version
        ],
    }


def _group(group: str, version: str) -> Manifest:
    served = {"groupVersion": f"{group}/{version}", "version": version}
    return {"name": group, "versions": [served], "preferredVersion": served}
