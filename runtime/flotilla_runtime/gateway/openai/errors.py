"""Refusals in OpenAI's form.

The official client repeats what may pass, so it is told what may not, and what would make a second task.
"""

from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from http import HTTPStatus
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from flotilla_runtime.gateway.problems import FieldProblem, ProblemError, uncertain

MAY_PASS: Final = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})
TYPES: Final = {
    HTTPStatus.UNAUTHORIZED: "authentication_error",
    HTTPStatus.FORBIDDEN: "permission_error",
    HTTPStatus.TOO_MANY_REQUESTS: "rate_limit_error",
}

Handler = Callable[[Request], Awaitable[Response]]


def refusal(problem: str, parameter: str | None, code: str = "invalid_value") -> ProblemError:
    """The problem of a wrong parameter."""
    fields = [] if parameter is None else [FieldProblem(field=parameter, problem=problem)]
    return ProblemError(HTTPStatus.BAD_REQUEST, code.replace("_", "-"), problem, fields=fields)


def no_model(named: str, models: Iterable[str]) -> ProblemError:
    """The problem of a model that is neither the fleet nor one of its agents."""
    first, *others = map(repr, models)
    known = f"the models are {', '.join([first, *others])}" if others else f"the model is {first}"
    problem = f"there is no model {named[:100]!r}; {known}"
    fields = [FieldProblem(field="model", problem=problem)]
    return ProblemError(HTTPStatus.NOT_FOUND, "model-not-found", problem, fields=fields)


def error_document(problem: ProblemError) -> dict[str, Any]:
    """The problem in OpenAI's form."""
    kind = "invalid_request_error" if problem.status < HTTPStatus.INTERNAL_SERVER_ERROR else "server_error"
    error = {
        "message": problem.detail,
        "type": TYPES.get(problem.status, kind),
        "param": problem.fields[0].field if problem.fields else None,
        "code": problem.kind.replace("-", "_"),
    }
    return {"error": error}


@contextmanager
def with_task(task: str, key: str | None) -> Iterator[None]:
    """Let what may pass be told as what it is without a key, once the request has made this task."""
    try:
        yield
    except ProblemError as problem:
        if key is not None or problem.status not in MAY_PASS:
            raise
        raise uncertain(
            f"the request has made the task {task}, which goes on but cannot be read at the moment; read it "
            f"later by GET /v1/tasks/{task}, because without an Idempotency-Key the same request makes a "
            "second task"
        ) from None


def in_openais_form(handler: Handler) -> Handler:
    """The handler, whose problems are answered in OpenAI's form."""

    @wraps(handler)
    async def handled(request: Request) -> Response:
        try:
            return await handler(request)
        except ProblemError as problem:
            headers = dict(problem.headers)
            if problem.status not in MAY_PASS:
                headers["x-should-retry"] = "false"
            return JSONResponse(error_document(problem), status_code=problem.status, headers=headers)

    return handled
