"""The errors of the retriever, as problem details (RFC 9457)."""

from dataclasses import dataclass
from http import HTTPStatus

from starlette.responses import JSONResponse

from flotilla_runtime.contract import DOMAIN

RETRY_AFTER_SECONDS = 2
MAY_PASS = {"Retry-After": str(RETRY_AFTER_SECONDS)}
HEADERS = {
    HTTPStatus.UNAUTHORIZED: {"WWW-Authenticate": f'Bearer realm="{DOMAIN}"'},
    HTTPStatus.SERVICE_UNAVAILABLE: MAY_PASS,
    HTTPStatus.GATEWAY_TIMEOUT: MAY_PASS,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One error; `code` comes from a closed list, `detail` is for people."""

    status: HTTPStatus
    code: str
    detail: str

    def response(self) -> JSONResponse:
        """The HTTP response; with Retry-After for 503 and 504, and WWW-Authenticate for 401."""
        return JSONResponse(
            {
                "type": f"https://flotilla.dev/problems/{self.code}",
                "title": self.status.phrase,
                "status": int(self.status),
                "code": self.code,
                "detail": self.detail,
            },
            status_code=int(self.status),
            headers=HEADERS.get(self.status),
            media_type="application/problem+json",
        )


class ProblemError(Exception):
    """Raised to answer a request with a problem."""

    def __init__(self, status: HTTPStatus, code: str, detail: str) -> None:
        super().__init__(detail)
        self.problem = Problem(status=status, code=code, detail=detail)
