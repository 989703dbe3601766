"""The errors of the retriever, as problem details (RFC 9457)."""

from dataclasses import dataclass
from http import HTTPStatus

from starlette.responses import JSONResponse

RETRY_AFTER_SECONDS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One error; `code` comes from a closed list, `detail` is for people."""

    status: HTTPStatus
    code: str
    detail: str

    def response(self) -> JSONResponse:
        """The HTTP response; with Retry-After for 503 and 504."""
        passing = self.status in (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT)
        return JSONResponse(
            {
                "type": f"https://flotilla.dev/problems/{self.code}",
                "title": self.status.phrase,
                "status": int(self.status),
                "code": self.code,
                "detail": self.detail,
            },
            status_code=int(self.status),
            headers={"Retry-After": str(RETRY_AFTER_SECONDS)} if passing else None,
            media_type="application/problem+json",
        )


class ProblemError(Exception):
    """Raised to answer a request with a problem."""

    def __init__(self, status: HTTPStatus, code: str, detail: str) -> None:
        super().__init__(detail)
        self.problem = Problem(status=status, code=code, detail=detail)
