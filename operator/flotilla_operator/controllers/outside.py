"""Boundary of the operator's process: the network, the time and random numbers.

`Network` is the real one. Scenes, which are tests of the whole operator without a network, hand in their own:
then no part opens a socket, starts a thread or reads a clock.
"""

import os
import random
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from aiohttp import web

from flotilla_operator.cluster.client import Connection
from flotilla_operator.cluster.connection import NO_LIMIT, HttpConnection, load_configuration
from flotilla_operator.controllers.config import OperatorConfig
from flotilla_operator.controllers.health import serve
from flotilla_operator.controllers.watching import KopfThread, OnEvent
from flotilla_operator.objects.resources import Resource
from flotilla_operator.telemetry.scrape import Fetcher, HttpFetcher


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The namespace and kubeconfig of this process, and its identity as a leader."""

    kubeconfig: Path | None
    namespace: str
    identity: str

    @classmethod
    def from_environment(cls, kubeconfig: Path | None) -> "Place":
        """Take the pod's name and namespace from the downward API; every process gets a new identity."""
        name = os.environ.get("POD_NAME") or os.uname().nodename
        named = os.environ.get("KUBECONFIG")
        return cls(
            kubeconfig=kubeconfig or (Path(named) if named else None),
            namespace=os.environ.get("POD_NAMESPACE") or "default",
            identity=f"{name}_{secrets.token_hex(4)}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """Seconds that only grow, the date, and a random number between two others."""

    monotonic: Callable[[], float] = time.monotonic
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    draw: Callable[[float, float], float] = random.uniform


class Watch(Protocol):
    """Watches our own kinds."""

    async def run(self) -> None:
        """Watch until cancelled."""


class Outside(Protocol):
    """Everything outside the process that the parts use."""

    @property
    def place(self) -> Place:
        """Where this process runs."""

    @property
    def clock(self) -> Clock:
        """Time and chance."""

    async def connect(self, before_write: Callable[[], None] | None = None) -> Connection:
        """A new connection to the API server; `before_write` may refuse a write that is about to be sent."""

    async def connect_for_watches(self) -> Connection:
        """A connection for any number of watches."""

    def watch(self, resources: Sequence[Resource], config: OperatorConfig, on_event: OnEvent) -> Watch:
        """A watch of our own kinds, which passes each event on."""

    def fetcher(self, config: OperatorConfig) -> Fetcher:
        """Return a client that asks the pods that are scraped."""

    async def serve(self, application: web.Application, port: int, stack: AsyncExitStack) -> None:
        """Serve probes or metrics until the stack is closed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """The real API server, kopf, HTTP and the system's clock."""

    place: Place
    clock: Clock = field(default_factory=Clock)

    async def connect(self, before_write: Callable[[], None] | None = None) -> Connection:
        """A new connection pool."""
        return HttpConnection(await load_configuration(self.place.kubeconfig), before_write=before_write)

    async def connect_for_watches(self) -> Connection:
        """A new connection pool without a limit."""
        return HttpConnection(await load_configuration(self.place.kubeconfig), connections=NO_LIMIT)

    def watch(self, resources: Sequence[Resource], config: OperatorConfig, on_event: OnEvent) -> Watch:
        """Let kopf watch, in a thread of its own."""
        return KopfThread(
            resources,
            namespaces=config.watch_namespaces,
            kubeconfig=self.place.kubeconfig,
            silence_seconds=config.loop.watch_silence_seconds,
            on_event=on_event,
        )

    def fetcher(self, config: OperatorConfig) -> Fetcher:
        """Ask over HTTP."""
        scraping = config.scraping
        return HttpFetcher(concurrency=scraping.concurrency, timeout_seconds=scraping.timeout_seconds)

    async def serve(self, application: web.Application, port: int, stack: AsyncExitStack) -> None:
        """Serve on the port of this process."""
        runner = await serve(application, port)
        stack.push_async_callback(runner.cleanup)
