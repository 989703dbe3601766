"""World of an operator in a scene outside its process.

That is the fake API server, asked without a socket, the pods that it scrapes, and the event loop's clock. A
request takes a few virtual milliseconds each way and a change reaches each watch after a time of its own. So
the parts of the operator see changes in different orders, as they do over a network. The times are drawn from
the scene's seed.
"""

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from datetime import datetime, timedelta

from aiohttp import web

from flotilla_operator.cluster import client
from flotilla_operator.cluster.client import Client, error_from
from flotilla_operator.cluster.reflector import FAILURES
from flotilla_operator.controllers.config import OperatorConfig
from flotilla_operator.controllers.outside import Clock, Place, Watch
from flotilla_operator.controllers.watching import OnEvent
from flotilla_operator.objects.resources import Manifest, Resource
from flotilla_operator.telemetry.scrape import Fetcher
from tests.support.fake_answers import Answers
from tests.support.fake_requests import Reply, Request
from tests.support.virtual_time import running_loop

ON_ITS_WAY_SECONDS = (0.001, 0.01)
REQUEST_TIMEOUT_SECONDS = 15.0
WATCH_AGAIN_SECONDS = 1.0
ERROR = 400


class Direct:
    """A connection that asks the fake API server without a socket; the end of the process cuts it."""

    def __init__(self, outside: "SceneOutside", before_write: Callable[[], None] | None) -> None:
        self._outside = outside
        self._before_write = before_write
        self._draw = outside.clock.draw

    async def close(self) -> None:
        """Nothing is open."""

    async def request(self, request: client.Request, timeout_seconds: float | None = None) -> Manifest:
        asked = self._as_sent(request)
        async with asyncio.timeout(timeout_seconds or REQUEST_TIMEOUT_SECONDS):
            await self._travel()
            reply = await self._outside.api.fault_of(asked) or self._outside.api.answer(asked)
            document = json.dumps(reply.document)
            await self._travel()
        return _document(reply, document)

    async def stream(self, request: client.Request, silence_seconds: float) -> AsyncIterator[Manifest]:
        asked = self._as_sent(request)
        await self._travel()
        if (reply := await self._outside.api.fault_of(asked)) is not None:
            _document(reply, json.dumps(reply.document))
        async with contextlib.aclosing(self._outside.api.watch(asked)) as events:
            while True:
                async with asyncio.timeout(silence_seconds):
                    text = await anext(events, None)
                if text is None:
                    return
                await self._travel()
                yield json.loads(text)

    def _as_sent(self, request: client.Request) -> Request:
        if self._before_write is not None and request.writes:
            self._before_write()
        return Request(
            method=request.method,
            path=request.path,
            query={name: str(value) for name, value in request.query.items()},
            body=json.loads(json.dumps(request.body)),
            content_type=request.content_type,
        )

    async def _travel(self) -> None:
        await asyncio.sleep(self._draw(*ON_ITS_WAY_SECONDS))
        if self._outside.killed:
            raise ConnectionError("the process was killed")


def _document(reply: Reply, text: str) -> Manifest:
    document: Manifest = json.loads(text)
    if reply.status >= ERROR:
        raise error_from(reply.status, document, reply.headers.get("Retry-After"))
    return document


class KindsWatch:
    """In the place of kopf: it passes on what happens to our own kinds."""

    def __init__(self, api: Client, resources: Sequence[Resource], on_event: OnEvent) -> None:
        self._api = api
        self._resources = resources
        self._on_event = on_event

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for resource in self._resources:
                group.create_task(self._follow(resource), name=f"kinds {resource.plural}")

    async def _follow(self, resource: Resource) -> None:
        while True:
            with contextlib.suppress(*FAILURES):
                async for event in self._api.watch(
                    resource, None, "0", server_timeout_seconds=300, silence_seconds=70
                ):
                    if event["type"] in ("ADDED", "MODIFIED", "DELETED"):
                        self._on_event(resource, event["type"], event["object"])
            await asyncio.sleep(WATCH_AGAIN_SECONDS)


class SceneOutside:
    """The outside of one process of the operator."""

    def __init__(self, api: Answers, scraped: Fetcher, *, seed: str) -> None:
        loop = running_loop()
        self.api = api
        self.killed = False
        self.jump_seconds = 0.0  # of this process' wall clock
        self.place = Place(kubeconfig=None, namespace="flotilla", identity=f"operator-{seed}")
        self.clock = Clock(monotonic=loop.time, now=self._now, draw=random.Random(seed).uniform)
        self._scraped = scraped

    def _now(self) -> datetime:
        return running_loop().now() + timedelta(seconds=self.jump_seconds)

    async def connect(self, before_write: Callable[[], None] | None = None) -> Direct:
        return Direct(self, before_write)

    async def connect_for_watches(self) -> Direct:
        return Direct(self, None)

    def watch(self, resources: Sequence[Resource], config: OperatorConfig, on_event: OnEvent) -> Watch:
        return KindsWatch(Client(Direct(self, None)), resources, on_event)

    def fetcher(self, config: OperatorConfig) -> Fetcher:
        return self._scraped

    async def serve(self, application: web.Application, port: int, stack: AsyncExitStack) -> None:
        """Nobody asks for probes or metrics in a scene."""
