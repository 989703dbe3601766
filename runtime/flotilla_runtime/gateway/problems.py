"""The errors of the task API: problem details (RFC 9457) that say what is wrong and what to do.

ProblemError              status, title and detail; sometimes Retry-After and the wrong fields
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from starlette.responses import Response

from flotilla_runtime.contract import DOMAIN

MEDIA_TYPE: Final = "application/problem+json"
NOT_AGAIN: Final = {"x-should-retry": "false"}  # OpenAI's clients heed it


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldProblem:
    """A wrong field of a request."""

    field: str
    problem: str


class ProblemError(Exception):
    """A refused request; `kind` is the end of the problem's type URI."""

    def __init__(
        self,
        status: HTTPStatus,
        kind: str,
        detail: str,
        *,
        fields: Sequence[FieldProblem] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.detail = detail
        self.fields = tuple(fields)
        self.headers = dict(headers or {})

    def document(self) -> dict[str, Any]:
        """The problem as JSON."""
        shown: dict[str, Any] = {
            "type": f"https://{DOMAIN}/problems/{self.kind}",
            "title": self.status.phrase,
            "status": int(self.status),
            "detail": self.detail,
        }
        if self.fields:
            shown["errors"] = [{"field": each.field, "problem": each.problem} for each in self.fields]
        return shown

    def response(self) -> Response:
        """The problem as an HTTP response."""
        return Response(
            json.dumps(self.document(), ensure_ascii=False),
            status_code=self.status,
            headers=self.headers,
            media_type=MEDIA_TYPE,
        )


def unavailable(detail: str, retry_after_seconds: int) -> ProblemError:
    """A problem for a dependency that does not answer; the caller can try again."""
    return ProblemError(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "unavailable",
        detail,
        headers={"Retry-After": str(retry_after_seconds)},
    )


def uncertain(detail: str) -> ProblemError:
    """A problem for a request that may have made a task, and would make a second one if it is sent again."""
    return ProblemError(HTTPStatus.SERVICE_UNAVAILABLE, "uncertain", detail, headers=NOT_AGAIN)


def not_found(task_id: str) -> ProblemError:
    """The problem for a task that does not exist or that the caller may not see: both get this answer."""
    return ProblemError(
        HTTPStatus.NOT_FOUND, "no-such-task", f"there is no task {task_id!r}, or you may not see it"
    )
