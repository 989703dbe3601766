"""The part of the Kubernetes API that the agent uses: pods by label, listed and watched.

Its faults: `break_watches` cuts, `say_error` says 410 or 500, `say` says anything, `silent` says nothing,
`failing` answers 500, `forgetful` answers 410 to watches, `odd_lists` are given out before any other.
"""

import asyncio
import json
from typing import Any, Self

from aiohttp import web

Pod = dict[str, Any]


class FakePods:
    def __init__(self) -> None:
        self.pods: dict[str, Pod] = {}
        self.version = 100
        self.lists = 0
        self.history: list[tuple[int, dict[str, Any]]] = []
        self.watches: list[asyncio.Queue[dict[str, Any] | str | None]] = []
        self.watched_from: list[str] = []
        self.selectors: list[str] = []
        self.silent = False
        self.failing = False
        self.failed = 0  # requests that were answered 500
        self.forgetful = False
        self.odd_lists: list[Any] = []
        self.page_size = 500
        self.url = ""
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_get("/api/v1/namespaces/{namespace}/pods", self._pods)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        self.break_watches()
        await self._runner.cleanup()

    def put(self, *pods: Pod) -> None:
        for pod in pods:
            self.version += 1
            name = pod["metadata"]["name"]
            pod["metadata"]["resourceVersion"] = str(self.version)
            kind = "MODIFIED" if name in self.pods else "ADDED"
            self.pods[name] = pod
            self._tell({"type": kind, "object": pod})

    def remove(self, name: str, *, unseen: bool = False) -> None:
        self.version += 1
        pod = self.pods.pop(name)
        pod["metadata"]["resourceVersion"] = str(self.version)
        if not unseen:
            self._tell({"type": "DELETED", "object": pod})

    def say_error(self, code: int) -> None:
        self._tell({"type": "ERROR", "object": {"kind": "Status", "code": code, "message": "told to"}})

    def say(self, line: str) -> None:
        """This line and nothing else, whatever it means."""
        for queue in self.watches:
            queue.put_nowait(line)

    def say_bookmark(self) -> None:
        self.version += 10
        metadata = {"resourceVersion": str(self.version)}
        self._tell({"type": "BOOKMARK", "object": {"kind": "Pod", "metadata": metadata}})

    def break_watches(self) -> None:
        self._tell(None)

    def _tell(self, event: dict[str, Any] | None) -> None:
        if event is not None and event["type"] not in ("ERROR", "BOOKMARK") and not self.silent:
            self.history.append((self.version, event))
        for queue in self.watches:
            queue.put_nowait(event)

    async def _pods(self, request: web.Request) -> web.StreamResponse:
        if self.failing:
            self.failed += 1
            return web.json_response({"code": 500}, status=500)
        if request.query.get("watch") != "true":
            return self._list(request)
        self.watched_from.append(request.query["resourceVersion"])
        if self.forgetful:
            return web.json_response({"kind": "Status", "code": 410, "reason": "Expired"}, status=410)
        return await self._watch(request)

    def _list(self, request: web.Request) -> web.Response:
        self.lists += 1
        if self.odd_lists:
            return web.json_response(self.odd_lists.pop(0))
        self.selectors.append(request.query["labelSelector"])
        chosen = [pod for pod in self.pods.values() if selects(request.query["labelSelector"], pod)]
        if field := request.query.get("fieldSelector"):
            name = field.removeprefix("metadata.name=")
            chosen = [pod for pod in chosen if pod["metadata"]["name"] == name]
        start = int(request.query.get("continue", "0"))
        metadata = {"resourceVersion": str(self.version)}
        if start + self.page_size < len(chosen):
            metadata["continue"] = str(start + self.page_size)
        return web.json_response({"metadata": metadata, "items": chosen[start : start + self.page_size]})

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        queue: asyncio.Queue[dict[str, Any] | str | None] = asyncio.Queue()
        for version, earlier in self.history:
            if version > int(request.query["resourceVersion"]):
                queue.put_nowait(earlier)
        self.watches.append(queue)
        try:
            while (event := await queue.get()) is not None:
                if self.silent:
                    continue
                if isinstance(event, str):
                    await response.write(event.encode() + b"\n")
                    continue
                selector = request.query["labelSelector"]
                if event["type"] in ("ERROR", "BOOKMARK") or selects(selector, event["object"]):
                    await response.write(json.dumps(event).encode() + b"\n")
        finally:
            self.watches.remove(queue)
        return response


def selects(selector: str, pod: Pod) -> bool:
    wanted = dict(part.split("=", 1) for part in selector.split(","))
    labels: dict[str, str] = pod["metadata"]["labels"]
    return wanted.items() <= labels.items()
