"""The errors with which the router itself answers, in the format that OpenAI's clients parse.

Each has an HTTP status, a code for programs, and a message that says what to do. The reason appears in
metrics and in the request log. The errors of HAProxy itself (time-outs, bytes that are not HTTP) are here
too.

Agent workers and retrievers look for "too long" and similar words in the errors of models, to send less
(engine_errors.py). A message must not contain these words unless less can help; the one for TOO_SLOW is kept
as it is, because workers of earlier releases read it too.
"""

import json
from dataclasses import dataclass
from enum import StrEnum


class RefusalReason(StrEnum):
    """Why the router refused a request."""

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
    """The errors for refusals by the router's own rules."""
    return {
        RefusalReason.NO_REPLICAS: OpenAIError(
            status=503,
            type="server_error",
            code="no_replicas",
            message=(
                "No replica of the model is ready. Try again after the number of seconds in the header "
                "Retry-After."
            ),
        ),
        RefusalReason.QUEUE_FULL: OpenAIError(
            status=429,
            type="rate_limit_error",
            code="queue_full",
            message=(
                "The queue of the model is full. Try again after the number of seconds in the header "
                "Retry-After."
            ),
        ),
        RefusalReason.QUEUE_TIMEOUT: OpenAIError(
            status=503,
            type="server_error",
            code="queue_timeout",
            message=(
                f"The request waited {queue_timeout_seconds} s for a replica, or no replica accepted the "
                "connection. Try again after the number of seconds in the header Retry-After."
            ),
        ),
        RefusalReason.UNAUTHORIZED: OpenAIError(
            status=401,
            type="invalid_request_error",
            code="invalid_api_key",
            message="The request has no valid key. Send a key in the header 'Authorization: Bearer KEY'.",
        ),
        RefusalReason.TOO_LARGE: OpenAIError(
            status=413,
            type="invalid_request_error",
            code="request_too_large",
            message=f"The body of the request is larger than {max_request_mib} MiB, the limit of this model.",
        ),
        RefusalReason.LENGTH_REQUIRED: OpenAIError(
            status=411,
            type="invalid_request_error",
            code="length_required",
            message="A chunked body of this size is refused. Send the request with a Content-Length header.",
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
            message="The router does not serve this path. The paths of OpenAI's API begin with /v1/.",
        ),
        RefusalReason.UNKNOWN_MODEL: OpenAIError(
            status=404,
            type="invalid_request_error",
            code="model_not_found",
            message="There is no model of that name. GET /v1/models lists the models.",
        ),
        RefusalReason.REPLICA_UNAUTHORIZED: OpenAIError(
            status=503,
            type="server_error",
            code="replica_unauthorized",
            message=(
                "The replica did not accept the router's key, because the key is being replaced. Try again "
                "after the number of seconds in the header Retry-After."
            ),
        ),
    }


def haproxy_errors(*, queue_timeout_seconds: int, request_timeout_seconds: int) -> dict[int, OpenAIError]:
    """The errors of HAProxy itself, by status."""
    refused = refusals(max_request_mib=0, queue_timeout_seconds=queue_timeout_seconds)
    errors = (
        refused[RefusalReason.TOO_SLOW],
        OpenAIError(
            status=408,
            type="invalid_request_error",
            code="request_timeout",
            message="The whole request did not arrive in time. Send it again.",
        ),
        OpenAIError(
            status=414,
            type="invalid_request_error",
            code="url_too_long",
            message="The URL of the request is longer than 64 KiB.",
        ),
        OpenAIError(
            status=431,
            type="invalid_request_error",
            code="headers_too_large",
            message="The headers of the request are longer than 64 KiB in total.",
        ),
        OpenAIError(
            status=500,
            type="server_error",
            code="router_error",
            message="The router failed. Try again. If the error persists, see the logs of the router pods.",
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
            message=f"The replica sent nothing for {request_timeout_seconds} s. Try again.",
        ),
    )
    return {error.status: error for error in errors}
