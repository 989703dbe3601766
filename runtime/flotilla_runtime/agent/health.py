"""Liveness, readiness and metrics of a worker or an executor."""

from typing import Protocol

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route


class Looked(Protocol):
    """A process that looks for work."""

    @property
    def is_alive(self) -> bool:
        """Whether it has looked for work lately, and can call functions or could so lately."""

    @property
    def is_stuck(self) -> bool:
        """Whether functions that do not end hold all its threads."""

    @property
    def is_ready(self) -> bool:
        """Whether Redis has answered lately, and it is not stuck."""


def health_application(process: Looked, registry: CollectorRegistry) -> Starlette:
    """What probes and collectors of metrics ask."""

    async def healthz(_: Request) -> Response:
        if process.is_alive:
            return PlainTextResponse("ok")
        return PlainTextResponse("the process has stopped looking for work, or is stuck", 503)

    async def readyz(_: Request) -> Response:
        if process.is_stuck:
            return PlainTextResponse("stuck: every thread is held by a tool that does not end", 503)
        if process.is_ready:
            return PlainTextResponse("ok")
        return PlainTextResponse("Redis does not answer", 503)

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return Starlette(
        routes=[Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", metrics)]
    )
