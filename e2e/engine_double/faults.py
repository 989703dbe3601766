"""The faults that a double can be given."""

import os
from enum import StrEnum
from typing import Annotated, NoReturn

from pydantic import BaseModel, ConfigDict, Field

Seconds = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Place = Annotated[int, Field(ge=0)]
CRASH_STATUS = 139


class Hang(StrEnum):
    """The paths that no longer answer."""

    NONE = "None"
    REQUESTS = "Requests"
    EVERYTHING = "Everything"


class MetricsFault(StrEnum):
    """How /metrics behaves."""

    LIVE = "Live"
    FROZEN = "Frozen"
    HANG = "Hang"
    ERROR = "Error"


class Faults(BaseModel):
    """The faults in force; a POST to /admin/faults replaces all of them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    start_delay_seconds: Seconds = 0.0
    """How long no port is open after the start, as while vLLM loads weights."""
    hang: Hang = Hang.NONE
    fail_next: Annotated[int, Field(ge=0)] = 0
    """How many requests, from the next one on, are answered with `fail_status`."""
    fail_every: Count | None = None
    """With N, every Nth request is answered with `fail_status`."""
    fail_status: Annotated[int, Field(ge=400, le=599)] = 500
    retry_after: str | None = None
    """The header Retry-After of these answers."""
    faulty_streams: Count | None = None
    """How many streams, from the next one on, the faults of streams below are for; all without it."""
    cut_streams_after_tokens: Place | None = None
    """Streams break after this many tokens, without [DONE] and without an error."""
    end_streams_after_tokens: Place | None = None
    """Streams end after this many tokens in good order, but with neither a finish reason nor [DONE]."""
    error_in_streams_after_tokens: Place | None = None
    """Streams have an error after this many tokens, and end with [DONE], as when vLLM's engine has died."""
    stall_streams_after_tokens: Place | None = None
    """Streams stay open after this many tokens, and nothing comes but comments, ten a second."""
    endless_streams: bool = False
    """Streams go on after their reply with filler text, whatever limit the caller set."""
    stream_bytes: Count | None = None
    """Streams are sent in parts of this many bytes, so that events and characters are cut anywhere."""
    argument_characters: Count | None = None
    """Arguments of tool calls come in pieces of this many characters."""
    interleave_calls: bool = False
    """The pieces of several tool calls come in turn."""
    crash_after_requests: Count | None = None
    """The process dies at its Nth request, without an answer to it."""
    metrics: MetricsFault = MetricsFault.LIVE


NO_STREAM_FAULTS = {
    "cut_streams_after_tokens": None,
    "end_streams_after_tokens": None,
    "error_in_streams_after_tokens": None,
    "stall_streams_after_tokens": None,
    "endless_streams": False,
}


def crash() -> NoReturn:
    """End the process at once, as a segmentation fault does."""
    os._exit(CRASH_STATUS)


class FaultSwitch:
    """The faults in force, and the number of requests since they were set."""

    def __init__(self, faults: Faults) -> None:
        self.set(faults)

    def set(self, faults: Faults) -> None:
        """Replace the faults, and count requests from zero again."""
        self.faults = faults
        self._requests = 0
        self._failures_left = faults.fail_next
        self._faulty_streams_left = faults.faulty_streams

    def next_stream(self) -> Faults:
        """Count a stream; the faults in force for it."""
        if self._faulty_streams_left == 0:
            return self.faults.model_copy(update=NO_STREAM_FAULTS)
        if self._faulty_streams_left is not None:
            self._faulty_streams_left -= 1
        return self.faults

    def next_request(self) -> int | None:
        """Count a request; the status with which it fails, or None."""
        faults = self.faults
        self._requests += 1
        if faults.crash_after_requests is not None and self._requests >= faults.crash_after_requests:
            crash()
        periodic = faults.fail_every is not None and self._requests % faults.fail_every == 0
        if self._failures_left > 0:
            self._failures_left -= 1
            return faults.fail_status
        return faults.fail_status if periodic else None
