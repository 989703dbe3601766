"""Liveness, readiness and metrics of a worker or an executor."""

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from flotilla_runtime.agent.worker.vitals import Vitals


def health_application(vitals: Vitals, registry: CollectorRegistry) -> Starlette:
    """Return the application that answers probes and serves metrics."""

    async def healthz(_: Request) -> Response:
        if vitals.is_alive:
            return PlainTextResponse("ok")
        return PlainTextResponse("the process has stopped looking for work, or is stuck", 503)

    async def readyz(_: Request) -> Response:
        if vitals.is_stuck:
            return PlainTextResponse("stuck: every thread is held by a tool that does not end", 503)
        if vitals.is_ready:
            return PlainTextResponse("ok")
        return PlainTextResponse("Redis does not answer", 503)

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return Starlette(
        routes=[Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", metrics)]
    )
