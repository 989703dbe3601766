"""Why a run stops before its agent has ended, and what only waits meanwhile. Pure values."""

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from flotilla_runtime.agent.journal import EndReason, WaitKind
from flotilla_runtime.agent.protocols import Waits

SHORTEST_SUSPENSION_MS: Final = 1000  # a timer that rings sooner is waited for in place
# A person can do something for the first, and for an effect once the spawned tasks have ended.
_FIRST: Final = (
    WaitKind.APPROVAL,
    WaitKind.CHILDREN,
    WaitKind.EFFECT,
    WaitKind.SIGNAL,
    WaitKind.TIMER,
)


class StopKind(StrEnum):
    """The consequence of a stop for the task."""

    END = "End"
    HAND_OVER = "HandOver"
    SUSPEND = "Suspend"
    LOST = "Lost"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """Why a run stops before its agent has ended."""

    kind: StopKind
    reason: EndReason | None = None
    message: str = ""
    waits: Waits | None = None

    @property
    def gives_way(self) -> bool:
        """Whether an agent that came to its end at the same moment ends the task."""
        return self.kind is not StopKind.LOST and self.reason in (
            None,
            EndReason.CANCELLED,
            EndReason.TIMEOUT,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Parked:
    """A call that only waits; `until` is when it goes on in any case, in milliseconds since the epoch.

    A call that waits for a place among the spawned tasks names no `child`.
    """

    kind: WaitKind
    call: str
    until: int | None = None
    child: str | None = None


def waits_of(parked: Collection[Parked]) -> Waits:
    """Return the waits of a task all of whose calls are parked.

    An approval is named first, so that people find it. Somebody is asked for one effect at a time, when the
    spawned tasks have ended. Whatever is named, the task is woken by all that its calls wait for.
    """
    ordered = sorted(parked, key=lambda one: (_FIRST.index(one.kind), one.call))
    times = [one.until for one in parked if one.until is not None]
    return Waits(
        kind=ordered[0].kind,
        call=ordered[0].call,
        until=min(times, default=None),
        children=tuple(one.child for one in ordered if one.child is not None),
    )


def rings_soon(parked: Collection[Parked], now_ms: int) -> bool:
    """Whether the next of these goes on so soon that suspending the task is not worth it."""
    return any(one.until is not None and one.until - now_ms < SHORTEST_SUSPENSION_MS for one in parked)
