"""The HTTP interface of the retriever.

POST /v1/retrieve   answers a query with passages, or with a problem (RFC 9457)
GET  /v1/status     the live generation and the latencies, for the operator
GET  /healthz       200 while the process runs
GET  /readyz        200 while a generation is live
GET  /metrics       metrics for Prometheus
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus

import structlog
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from flotilla_runtime.contract import RetrieverConfig, RetrieveRequest, RetrieverStatus
from flotilla_runtime.request_body import (
    BodyCutShortError,
    BodyTooLongError,
    BodyTooSlowError,
    NoRoomForBodyError,
    read_body,
)
from flotilla_runtime.retrieval.access import UNKNOWN, access_to
from flotilla_runtime.retrieval.generations import Generations
from flotilla_runtime.retrieval.problems import Problem, ProblemError
from flotilla_runtime.retrieval.retriever import Retriever

LOG = structlog.get_logger()
LONGEST_BODY_BYTES = 64 * 1024
BODY_WITHIN_SECONDS = 5.0
LATENCIES_KEPT = 1_000  # the status reports percentiles of this many latest answers
BUCKETS_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class Figures:
    """The retriever's metrics."""

    def __init__(self, generations: Generations) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "flotilla_retriever_requests",
            "Queries by outcome (ok, or the code of the problem) and caller.",
            ["outcome", "caller"],
            registry=self.registry,
        )
        self.duration = Histogram(
            "flotilla_retriever_duration_seconds",
            "Seconds from a query to its answer; without refused queries.",
            buckets=BUCKETS_SECONDS,
            registry=self.registry,
        )
        chunks = Gauge("flotilla_retriever_chunks", "Chunks in the live generation.", registry=self.registry)
        chunks.set_function(lambda: generations.live.chunks if generations.live else 0)
        self.latencies: deque[float] = deque(maxlen=LATENCIES_KEPT)
        self.answered = 0

    def answer(self, caller: str, seconds: float) -> None:
        """Count one answered query."""
        self.answered += 1
        self.requests.labels(outcome="ok", caller=caller).inc()
        self.duration.observe(seconds)
        self.latencies.append(seconds)

    def percentile_milliseconds(self, percent: int) -> float | None:
        """A percentile of the latencies of the last answers; None when there is none."""
        if not self.latencies:
            return None
        ordered = sorted(self.latencies)
        return round(1000 * ordered[min(len(ordered) - 1, len(ordered) * percent // 100)], 1)


class RetrieverApplication:
    """The routes of the retriever."""

    def __init__(self, config: RetrieverConfig, retriever: Retriever, generations: Generations) -> None:
        self._config = config
        self._retriever = retriever
        self._generations = generations
        self.access = access_to(config)
        self.figures = Figures(generations)

    def build(self) -> Starlette:
        """The ASGI application; while it runs, it follows the alias and the callers' keys."""
        return Starlette(
            routes=[
                Route("/v1/retrieve", self.retrieve, methods=["POST"]),
                Route("/v1/status", self.status),
                Route("/healthz", self.healthz),
                Route("/readyz", self.readyz),
                Route("/metrics", self.metrics),
            ],
            lifespan=self._lifespan,
        )

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        await self.access.refresh()
        following = [
            asyncio.create_task(self._generations.keep_fresh()),
            asyncio.create_task(self.access.follow()),
        ]
        try:
            yield
        finally:
            for task in following:
                task.cancel()
            await asyncio.gather(*following, return_exceptions=True)

    async def retrieve(self, request: Request) -> Response:
        """POST /v1/retrieve."""
        started = time.perf_counter()
        caller = UNKNOWN
        try:
            caller = self.access.caller_of(request.headers.get("Authorization"))
            answer = await self._retriever.retrieve(
                await _read(request),
                top_k=self._config.top_k,
                deadline_seconds=self._config.deadline_milliseconds / 1000,
            )
        except ProblemError as error:
            self.figures.requests.labels(outcome=error.problem.code, caller=caller).inc()
            LOG.warning(
                "question_refused", caller=caller, code=error.problem.code, detail=error.problem.detail
            )
            return error.problem.response()
        self.figures.answer(caller, time.perf_counter() - started)
        return JSONResponse(answer.model_dump(mode="json", by_alias=True))

    async def status(self, _: Request) -> Response:
        """GET /v1/status."""
        live = self._generations.live
        status = RetrieverStatus(
            index=self._config.index,
            generation=live.descriptor.generation if live else None,
            build=live.descriptor.build if live else None,
            chunks=live.chunks if live else None,
            embedder=live.descriptor.embedder.model_ref if live else None,
            problem=self._generations.problem,
            requests=self.figures.answered,
            p50_milliseconds=self.figures.percentile_milliseconds(50),
            p99_milliseconds=self.figures.percentile_milliseconds(99),
        )
        return JSONResponse(status.model_dump(mode="json", by_alias=True))

    async def healthz(self, _: Request) -> Response:
        """GET /healthz."""
        return PlainTextResponse("ok")

    async def readyz(self, _: Request) -> Response:
        """GET /readyz."""
        if self._generations.live is None:
            detail = self._generations.problem or "no generation of the index is live yet"
            return Problem(
                status=HTTPStatus.SERVICE_UNAVAILABLE, code="no-generation", detail=detail
            ).response()
        return PlainTextResponse("ok")

    async def metrics(self, _: Request) -> Response:
        """GET /metrics."""
        return Response(generate_latest(self.figures.registry), media_type=CONTENT_TYPE_LATEST)


async def _read(request: Request) -> RetrieveRequest:
    try:
        body = await read_body(request, limit_bytes=LONGEST_BODY_BYTES, within_seconds=BODY_WITHIN_SECONDS)
    except BodyTooLongError:
        raise ProblemError(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            "too-large",
            f"the body is longer than {LONGEST_BODY_BYTES} bytes; send a shorter query",
        ) from None
    except BodyTooSlowError:
        raise ProblemError(
            HTTPStatus.REQUEST_TIMEOUT,
            "too-slow",
            f"the whole body did not arrive within {BODY_WITHIN_SECONDS:g} s; send the query again",
        ) from None
    except NoRoomForBodyError:
        raise ProblemError(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "busy",
            "the bodies of all requests together take as much memory as they may; send the query again",
        ) from None
    except BodyCutShortError:
        raise ProblemError(
            HTTPStatus.BAD_REQUEST,
            "cut-short",
            "the connection was closed before the whole body arrived; send the query again",
        ) from None
    try:
        return RetrieveRequest.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "body"
        raise ProblemError(HTTPStatus.BAD_REQUEST, "invalid", f"{field}: {first['msg']}") from None
