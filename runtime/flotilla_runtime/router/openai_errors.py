"""The errors that the router itself answers with, in the format OpenAI's clients parse.

Each is a value with the HTTP status, the code a program can switch on, and a message that says what to do.
The reason is the word in metrics and in the request log; what HAProxy refuses by itself (time-outs, bytes
that are not HTTP) has its message here too.
"""

import json
from dataclasses import dataclass
from enum import StrEnum


class RefusalReason(StrEnum):
    """Why the router answered a request itself."""

    NO_REPLICAS = "NoReplicas"
    QUEUE_FULL = "QueueFull"
    QUEUE_TIMEOUT = "QueueTimeout"
    UNAUTHORIZED = "Unauthorized"
    TOO_LARGE = "TooLarge"
    LENGTH_REQUIRED = "LengthRequired"
    TOO_SLOW = "TooSlow"
    UNKNOWN_PATH = "UnknownPath"
    UNKNOWN_MODEL = "UnknownModel"
    REPLICA_UNAUTHORIZED = "ReplicaUnauthorized"


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenAIError:
    """One error body."""

    status: int
    type: str
    code: str
    message: str

    @property
    def body(self) -> str:
        """The JSON text."""
        error = {"message": self.message, "type": self.type, "param": None, "code": self.code}
        return json.dumps({"error": error})


def refusals(*, max_request_mib: int, queue_timeout_seconds: int) -> dict[RefusalReason, OpenAIError]:
    """The errors that the router's own rules answer with."""
    return {
        RefusalReason.NO_REPLICAS: OpenAIError(
            status=503,
            type="server_error",
            code="no_replicas",
            message="The model has no replica that is ready. Try again after the seconds in Retry-After.",
        ),
        RefusalReason.QUEUE_FULL: OpenAIError(
            status=429,
            type="rate_limit_error",
            code="queue_full",
            message="The model's queue is full. Try again after the seconds in Retry-After.",
        ),
        RefusalReason.QUEUE_TIMEOUT: OpenAIError(
            status=503,
            type="server_error",
            code="queue_timeout",
            message=(
                f"No replica answered: the request waited {queue_timeout_seconds} s for one, or none took "
                "the connection. Try again after the seconds in Retry-After."
            ),
        ),
        RefusalReason.UNAUTHORIZED: OpenAIError(
            status=401,
            type="invalid_request_error",
            code="invalid_api_key",
            message="No valid key was given. Send it as 'Authorization: Bearer KEY'.",
        ),
        RefusalReason.TOO_LARGE: OpenAIError(
            status=413,
            type="invalid_request_error",
            code="request_too_large",
            message=f"The request's body is larger than {max_request_mib} MiB, the limit of this model.",
        ),
        RefusalReason.LENGTH_REQUIRED: OpenAIError(
            status=411,
            type="invalid_request_error",
            code="length_required",
            message="A body of this size needs a Content-Length header; chunked bodies must be short.",
        ),
        RefusalReason.TOO_SLOW: OpenAIError(
            status=400,
            type="invalid_request_error",
            code="bad_request",
            message=(
                "The request is not valid HTTP, its headers are too long, or its body came more slowly than "
                "32 KiB a second."
            ),
        ),
        RefusalReason.UNKNOWN_PATH: OpenAIError(
            status=404,
            type="invalid_request_error",
            code="unknown_url",
            message="This path is not served here. The paths are those of OpenAI's API, under /v1.",
        ),
        RefusalReason.UNKNOWN_MODEL: OpenAIError(
            status=404,
            type="invalid_request_error",
            code="model_not_found",
            message="There is no model of that name here. GET /v1/models lists them.",
        ),
        RefusalReason.REPLICA_UNAUTHORIZED: OpenAIError(
            status=503,
            type="server_error",
            code="replica_unauthorized",
            message=(
                "The replica does not know the router's key, which is being exchanged. Try again after the "
                "seconds in Retry-After."
            ),
        ),
    }


def haproxy_errors(*, queue_timeout_seconds: int, request_timeout_seconds: int) -> dict[int, OpenAIError]:
    """The errors that HAProxy makes by itself, by status."""
    refused = refusals(max_request_mib=0, queue_timeout_seconds=queue_timeout_seconds)
    errors = (
        refused[RefusalReason.TOO_SLOW],
        OpenAIError(
            status=408,
            type="invalid_request_error",
            code="request_timeout",
            message="The request did not arrive in time.",
        ),
        OpenAIError(
            status=414,
            type="invalid_request_error",
            code="url_too_long",
            message="The request's URL is longer than 64 KiB.",
        ),
        OpenAIError(
            status=431,
            type="invalid_request_error",
            code="headers_too_large",
            message="The request's headers are longer than 64 KiB together.",
        ),
        OpenAIError(
            status=500,
            type="server_error",
            code="router_error",
            message="The router failed. Try again; if it stays, look at the router's log.",
        ),
        OpenAIError(
            status=502,
            type="server_error",
            code="replica_failed",
            message="The replica closed the connection before it answered. Try again.",
        ),
        refused[RefusalReason.QUEUE_TIMEOUT],
        OpenAIError(
            status=504,
            type="server_error",
            code="replica_timeout",
            message=f"The replica sent nothing for {request_timeout_seconds} s.",
        ),
    )
    return {error.status: error for error in errors}
