"""The OpenAPI 3.1 description of the task API, made from the models that parse and render its JSON."""

from typing import Any, Final

from pydantic.json_schema import models_json_schema

from flotilla_runtime.contract import HEADER_TENANT, HEADER_TRACE
from flotilla_runtime.gateway.history import Event
from flotilla_runtime.gateway.pages import DEFAULT_PAGE, MOST_PER_PAGE
from flotilla_runtime.gateway.problems import MEDIA_TYPE
from flotilla_runtime.gateway.requests import (
    ApproveRequest,
    ReplayRequest,
    ResolveRequest,
    SignalRequest,
    SubmitRequest,
)
from flotilla_runtime.gateway.views import TaskList, TaskReceipt, TaskView

REFERENCE: Final = "#/components/schemas/{model}"
PROBLEM: Final = {
    "type": "object",
    "description": "Problem details (RFC 9457).",
    "properties": {
        "type": {"type": "string", "format": "uri"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"field": {"type": "string"}, "problem": {"type": "string"}},
            },
        },
    },
    "required": ["type", "title", "status", "detail"],
}


BODIES: Final = (SubmitRequest, ResolveRequest, ApproveRequest, SignalRequest, ReplayRequest)


def openapi_document() -> dict[str, Any]:
    """The whole description."""
    _, schemas = models_json_schema(
        [
            *((body, "validation") for body in BODIES),
            *((view, "serialization") for view in (TaskView, TaskList, TaskReceipt, Event)),
        ],
        by_alias=True,
        ref_template=REFERENCE,
    )
    return {
        "openapi": "3.1.0",
        "info": {"title": "Flotilla task API", "version": "v1"},
        "security": [{}, {"bearer": []}],
        "paths": _paths(),
        "components": {
            "schemas": {**schemas["$defs"], "Problem": PROBLEM},
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
    }


def _paths() -> dict[str, Any]:
    task = [{"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}]
    return {
        "/v1/tasks": {
            "post": {
                "operationId": "submitTask",
                "summary": "Submit a task; a repeated idempotencyKey returns the task that it made first",
                "parameters": [_tenant_header(), _trace_header()],
                "requestBody": {"required": True, "content": _json("SubmitRequest")},
                "responses": {
                    "201": _answer("The task is stored", "TaskReceipt"),
                    "200": _answer("The task was stored by an earlier submission", "TaskReceipt"),
                    **_problems(400, 401, 403, 413, 422, 429, 503),
                },
            },
            "get": {
                "operationId": "listTasks",
                "summary": "List tasks, newest first",
                "parameters": [
                    _query("status", {"$ref": REFERENCE.format(model="TaskStatus")}),
                    _query("tenant", {"type": "string"}),
                    _query("conversationId", {"type": "string"}),
                    _query("waitsFor", {"$ref": REFERENCE.format(model="WaitKind")}),
                    _query("cursor", {"type": "string"}),
                    _query(
                        "limit",
                        {"type": "integer", "minimum": 1, "maximum": MOST_PER_PAGE, "default": DEFAULT_PAGE},
                    ),
                ],
                "responses": {
                    "200": _answer("A page of tasks", "TaskList"),
                    **_problems(400, 401, 403, 429, 503),
                },
            },
        },
        "/v1/tasks/{id}": {
            "parameters": task,
            "get": {
                "operationId": "getTask",
                "summary": "Get a task with its result, usage, timeline, and where its time went",
                "responses": {"200": _answer("The task", "TaskView"), **_problems(401, 403, 404, 429, 503)},
            },
        },
        "/v1/tasks/{id}/events": {
            "parameters": task,
            "get": {
                "operationId": "taskEvents",
                "summary": "Follow a task as server-sent events; Last-Event-ID resumes after that event",
                "responses": {
                    "200": {
                        "description": "Server-sent events; the data of each one is an Event as JSON",
                        "content": {
                            "text/event-stream": {"schema": {"$ref": REFERENCE.format(model="Event")}}
                        },
                    },
                    "204": {"description": "The task has ended and there are no further events"},
                    **_problems(400, 401, 403, 404, 429, 503),
                },
            },
        },
        "/v1/tasks/{id}/cancel": {
            "parameters": task,
            "post": {
                "operationId": "cancelTask",
                "summary": "Cancel a task",
                "responses": {
                    "200": _answer("The task is cancelled", "TaskReceipt"),
                    "202": _answer("The task is running and will be cancelled", "TaskReceipt"),
                    **_problems(401, 403, 404, 409, 429, 503),
                },
            },
        },
        "/v1/tasks/{id}/resolve": {
            "parameters": task,
            "post": {
                "operationId": "resolveTask",
                "summary": "Say whether an Unsafe call happened, for which a suspended task waits",
                "requestBody": {"required": True, "content": _json("ResolveRequest")},
                "responses": {
                    "200": _answer("The task goes on", "TaskReceipt"),
                    **_problems(400, 401, 403, 404, 409, 413, 429, 503),
                },
            },
        },
        **_outside(task),
    }


def _outside(task: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "/v1/tasks/{id}/approve": {
            "parameters": task,
            "post": {
                "operationId": "approveCall",
                "summary": "Decide on a call that waits for approval; the first decision stands",
                "requestBody": {"required": True, "content": _json("ApproveRequest")},
                "responses": {
                    "200": _answer("The decision stands, and the task goes on", "TaskReceipt"),
                    **_problems(400, 401, 403, 404, 409, 413, 503),
                },
            },
        },
        "/v1/tasks/{id}/replay": {
            "parameters": task,
            "post": {
                "operationId": "replayTask",
                "summary": "Make a new task with the results of an ended one up to a call; a repeated "
                "idempotencyKey returns the task that it made first",
                "requestBody": {"required": False, "content": _json("ReplayRequest")},
                "responses": {
                    "201": _answer("The new task is stored", "TaskReceipt"),
                    "200": _answer("The new task was stored by an earlier replay", "TaskReceipt"),
                    **_problems(400, 401, 403, 404, 409, 413, 422, 429, 503),
                },
            },
        },
        "/v1/tasks/{id}/signal": {
            "parameters": task,
            "post": {
                "operationId": "signalTask",
                "summary": "Give a task a signal, which is kept until its agent takes it",
                "requestBody": {"required": True, "content": _json("SignalRequest")},
                "responses": {
                    "200": _answer("The signal is kept", "TaskReceipt"),
                    **_problems(400, 401, 403, 404, 409, 413, 429, 503),
                },
            },
        },
    }


def _json(model: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": REFERENCE.format(model=model)}}}


def _answer(description: str, model: str) -> dict[str, Any]:
    return {"description": description, "content": _json(model)}


def _problems(*statuses: int) -> dict[str, Any]:
    schema = {"$ref": REFERENCE.format(model="Problem")}
    return {
        str(status): {"description": "Refused", "content": {MEDIA_TYPE: {"schema": schema}}}
        for status in statuses
    }


def _tenant_header() -> dict[str, Any]:
    told = "Another tenant than the caller's own, as the field tenant; only who may act names one"
    return {"name": HEADER_TENANT, "in": "header", "description": told, "schema": {"type": "string"}}


def _trace_header() -> dict[str, Any]:
    told = "The span of which the task is a part (W3C Trace Context), where the fleet sends traces"
    return {"name": HEADER_TRACE, "in": "header", "description": told, "schema": {"type": "string"}}


def _query(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "schema": schema}
