"""What goes wrong with a double, and when."""

import os
from enum import StrEnum
from typing import Annotated, NoReturn

from pydantic import BaseModel, ConfigDict, Field

Seconds = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
CRASH_STATUS = 139


class Hang(StrEnum):
    """What no longer answers."""

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
    """What goes wrong, and when. Posted to /admin/faults, it replaces what was set before."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    start_delay_seconds: Seconds = 0.0
    """Nothing listens for so long after the start, as while weights are loaded."""
    hang: Hang = Hang.NONE
    fail_next: Annotated[int, Field(ge=0)] = 0
    """So many requests are answered with `fail_status`."""
    fail_every: Count | None = None
    """Every so many-th request is answered with `fail_status`."""
    fail_status: Annotated[int, Field(ge=400, le=599)] = 500
    cut_streams_after_tokens: Annotated[int, Field(ge=0)] | None = None
    """Streams end without a goodbye after so many tokens."""
    crash_after_requests: Count | None = None
    """The process dies when that many requests have come, without answering the last one."""
    metrics: MetricsFault = MetricsFault.LIVE


def crash() -> NoReturn:
    """Die at once, as from a segmentation fault: no answer, no goodbye."""
    os._exit(CRASH_STATUS)


class FaultSwitch:
    """The faults in force, and how many requests have met them since they were set."""

    def __init__(self, faults: Faults) -> None:
        self.set(faults)

    def set(self, faults: Faults) -> None:
        """Replace the faults and count anew."""
        self.faults = faults
        self._requests = 0
        self._failures_left = faults.fail_next

    def next_request(self) -> int | None:
        """The status with which the next request fails; None where it does not."""
        faults = self.faults
        self._requests += 1
        if faults.crash_after_requests is not None and self._requests >= faults.crash_after_requests:
            crash()
        periodic = faults.fail_every is not None and self._requests % faults.fail_every == 0
        if self._failures_left > 0:
            self._failures_left -= 1
            return faults.fail_status
        return faults.fail_status if periodic else None
