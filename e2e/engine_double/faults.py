"""The faults that a double can be given."""

import os
from enum import StrEnum
from typing import Annotated, NoReturn

from pydantic import BaseModel, ConfigDict, Field

Seconds = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
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
    cut_streams_after_tokens: Annotated[int, Field(ge=0)] | None = None
    """Streams break after this many tokens, without [DONE] and without an error."""
    crash_after_requests: Count | None = None
    """The process dies at its Nth request, without an answer to it."""
    metrics: MetricsFault = MetricsFault.LIVE


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
