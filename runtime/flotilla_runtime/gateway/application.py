"""The task API over HTTP and, on a second port, health, metrics and status for the cluster.

Handlers only authenticate, parse, call the service and render. The caller is authenticated before the body is
read. Every error is answered with problem details.
"""

from collections.abc import Callable, Sequence
from http import HTTPStatus

import structlog
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flotilla_runtime.agent.journal import TaskStatus
from flotilla_runtime.agent.tasks import Submission, SubmitOutcome
from flotilla_runtime.contract import HEADER_TRACE
from flotilla_runtime.gateway.auth import Identity, Verb
from flotilla_runtime.gateway.bodies import read_posted
from flotilla_runtime.gateway.desk import Desk
from flotilla_runtime.gateway.events import LAST_EVENT_ID, place_after, task_events
from flotilla_runtime.gateway.metrics import GatewayMetrics
from flotilla_runtime.gateway.openapi import openapi_document
from flotilla_runtime.gateway.pages import page_wanted
from flotilla_runtime.gateway.problems import NOT_AGAIN, ProblemError
from flotilla_runtime.gateway.requests import (
    parse_approval,
    parse_replay,
    parse_resolution,
    parse_signal,
    parse_submission,
)
from flotilla_runtime.gateway.service import TaskService
from flotilla_runtime.gateway.views import TaskList, TaskReceipt, task_summary

log = structlog.get_logger(__name__)


class TaskAPI:
    """The handlers of /v1/tasks."""

    def __init__(self, desk: Desk) -> None:
        self._service = desk.service
        self._sight = desk.sight
        self._callers = desk.callers
        self._max_body_bytes = desk.max_body_bytes
        self._streams = desk.streams
        self._outside = desk.outside
        self._replays = desk.replays

    async def submit(self, request: Request) -> Response:
        """POST /v1/tasks."""
        caller = await self._caller(request, Verb.CREATE)
        asked = parse_submission(await read_posted(request, self._max_body_bytes))
        tenant = await self._callers.tenant(request, caller, asked.tenant)
        trace = request.headers.get(HEADER_TRACE)
        return await self._stored(
            await self._service.submit(asked, caller, tenant, traceparent=trace), caller
        )

    async def get(self, request: Request) -> Response:
        """GET /v1/tasks/{id}."""
        caller = await self._caller(request, Verb.GET)
        return _rendered(await self._service.view(request.path_params["id"], caller))

    async def list(self, request: Request) -> Response:
        """GET /v1/tasks."""
        caller = await self._caller(request, Verb.GET)
        wanted = page_wanted(request.query_params)
        page = await self._service.page(caller, wanted)
        tasks = tuple(map(task_summary, page.records))
        return _rendered(TaskList(tasks=tasks, next_cursor=page.next_before))

    async def events(self, request: Request) -> Response:
        """GET /v1/tasks/{id}/events."""
        caller = await self._caller(request, Verb.GET)
        task = await self._service.summary(request.path_params["id"], caller)
        place = place_after(request.headers.get(LAST_EVENT_ID))
        if task.status.is_final and not await self._service.has_entry(task.id, place):
            return Response(status_code=HTTPStatus.NO_CONTENT)
        return self._streams.answer(caller.name, task_events(self._sight, task.id, place))

    async def cancel(self, request: Request) -> Response:
        """POST /v1/tasks/{id}/cancel."""
        caller = await self._caller(request, Verb.CREATE)
        task = request.path_params["id"]
        status = await self._service.cancel(task, caller)
        code = HTTPStatus.OK if status.is_final else HTTPStatus.ACCEPTED
        return _rendered(TaskReceipt(id=task, status=status), code)

    async def resolve(self, request: Request) -> Response:
        """POST /v1/tasks/{id}/resolve."""
        caller = await self._caller(request, Verb.CREATE)
        said = parse_resolution(await read_posted(request, self._max_body_bytes))
        task = request.path_params["id"]
        return _rendered(TaskReceipt(id=task, status=await self._service.resolve(task, said, caller)))

    async def approve(self, request: Request) -> Response:
        """POST /v1/tasks/{id}/approve."""
        caller = await self._caller(request, Verb.APPROVE)
        said = parse_approval(await read_posted(request, self._max_body_bytes))
        return _rendered(await self._outside.approve(request.path_params["id"], said, caller))

    async def signal(self, request: Request) -> Response:
        """POST /v1/tasks/{id}/signal."""
        caller = await self._caller(request, Verb.CREATE)
        said = parse_signal(await read_posted(request, self._max_body_bytes))
        return _rendered(await self._outside.signal(request.path_params["id"], said, caller))

    async def replay(self, request: Request) -> Response:
        """POST /v1/tasks/{id}/replay."""
        caller = await self._caller(request, Verb.CREATE)
        said = parse_replay(await read_posted(request, self._max_body_bytes))
        may_approve = await self._callers.may_approve(request)
        task = request.path_params["id"]
        return await self._stored(
            await self._replays.replay(task, said, caller, may_approve=may_approve), caller
        )

    async def _stored(self, submission: Submission, caller: Identity) -> Response:
        location = {"Location": f"/v1/tasks/{submission.id}"}
        if submission.outcome is SubmitOutcome.CREATED:
            receipt = TaskReceipt(id=submission.id, status=TaskStatus.WAITING)
            return _rendered(receipt, HTTPStatus.CREATED, location)
        known = await self._service.summary(submission.id, caller)
        return _rendered(TaskReceipt(id=submission.id, status=known.status), HTTPStatus.OK, location)

    async def _caller(self, request: Request, verb: Verb) -> Identity:
        return await self._callers.identify(request, verb)


class Measured:
    """Counts requests and their durations by route. Routes are a closed set, unlike paths."""

    def __init__(
        self, application: ASGIApp, metrics: GatewayMetrics, monotonic_seconds: Callable[[], float]
    ) -> None:
        self._application = application
        self._metrics = metrics
        self._clock = monotonic_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and count it when the answer starts."""
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        started = self._clock()

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = _route_of(scope)
                self._metrics.requests.labels(route, str(message["status"])).inc()
                self._metrics.duration.labels(route).observe(self._clock() - started)
            await send(message)

        await self._application(scope, receive, counted)


def task_application(api: TaskAPI, front_ends: Sequence[Route] = ()) -> Starlette:
    """The application for callers."""
    description = openapi_document()

    async def openapi(_: Request) -> Response:
        return JSONResponse(description)

    return Starlette(
        routes=[
            Route("/v1/tasks", api.submit, methods=["POST"]),
            Route("/v1/tasks", api.list, methods=["GET"]),
            Route("/v1/tasks/{id}", api.get, methods=["GET"]),
            Route("/v1/tasks/{id}/events", api.events, methods=["GET"]),
            Route("/v1/tasks/{id}/cancel", api.cancel, methods=["POST"]),
            Route("/v1/tasks/{id}/resolve", api.resolve, methods=["POST"]),
            Route("/v1/tasks/{id}/approve", api.approve, methods=["POST"]),
            Route("/v1/tasks/{id}/signal", api.signal, methods=["POST"]),
            Route("/v1/tasks/{id}/replay", api.replay, methods=["POST"]),
            Route("/openapi.json", openapi),
            Route("/healthz", _healthy),
            *front_ends,
        ],
        exception_handlers={
            ProblemError: _problem_response,
            HTTPException: _http_problem_response,
            Exception: _crash_response,
        },
    )


def status_application(
    service: TaskService,
    metrics: GatewayMetrics,
    *,
    ready: Callable[[], bool],
    certificate_problem: Callable[[], str | None],
) -> Starlette:
    """The application for the kubelet, Prometheus and the operator."""

    async def readyz(_: Request) -> Response:
        return PlainTextResponse("ok") if ready() else PlainTextResponse("starting or stopping", 503)

    async def status(_: Request) -> Response:
        figures = await service.status()
        return _rendered(figures.model_copy(update={"certificate_problem": certificate_problem()}))

    async def exposition(_: Request) -> Response:
        try:
            metrics.show(await service.status())
        except ProblemError as problem:
            log.warning("figures_unknown", problem=problem.detail)
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return Starlette(
        routes=[
            Route("/healthz", _healthy),
            Route("/readyz", readyz),
            Route("/metrics", exposition),
            Route("/v1/status", status),
        ],
        exception_handlers={ProblemError: _problem_response},
    )


async def _healthy(_: Request) -> Response:
    return PlainTextResponse("ok")


async def _problem_response(_: Request, error: Exception) -> Response:
    assert isinstance(error, ProblemError)
    return error.response()


async def _http_problem_response(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    detail = f"{request.method} {request.url.path}: {error.detail}; the API is described at /openapi.json"
    return ProblemError(status, "http", detail, headers=error.headers).response()


async def _crash_response(request: Request, error: Exception) -> Response:
    log.error("request_crashed", path=request.url.path, exc_info=error)
    return ProblemError(
        HTTPStatus.INTERNAL_SERVER_ERROR,
        "crash",
        "the gateway failed with an internal error; see the logs of the gateway pods",
        headers=NOT_AGAIN,  # the request may have made a task
    ).response()


def _rendered(
    model: BaseModel, status: HTTPStatus = HTTPStatus.OK, headers: dict[str, str] | None = None
) -> Response:
    return Response(
        model.model_dump_json(by_alias=True),
        status_code=status,
        headers=headers,
        media_type="application/json",
    )


def _route_of(scope: Scope) -> str:
    route = scope.get("route")
    return str(getattr(route, "path", "unknown"))
