"""Whether a set that may go to zero has a replica: the first rule of autoscaling, and so far the only one.

Pure. A request that the routers hold wakes the first replica. It goes when the routers have had nothing to do
for long enough, counted by themselves, since looks every few seconds would miss short requests. A replica
that has just become ready is given the same time, or one that loads for longer than its callers wait would go
before it ever served. One that is not ready is waited for as long as an update would be, for nobody knows
whether it still loads; then it goes, since one that never becomes ready would hold its accelerators for ever.
Unknown is not idle: without figures from every router nothing is changed.
"""

from dataclasses import dataclass
from enum import StrEnum


class ZeroReason(StrEnum):
    """What decided."""

    NO_FIGURES = "NoFigures"
    HELD = "Held"
    NO_REQUEST = "NoRequest"
    BUSY = "Busy"
    QUIET = "Quiet"
    STARTING = "Starting"
    NEVER_READY = "NeverReady"
    NEVER_TO_ZERO = "NeverToZero"
    IDLE = "Idle"


@dataclass(frozen=True, slots=True, kw_only=True)
class ZeroSignals:
    """What the set's routers report together, and for how long all its replicas have been ready.

    `idle_seconds` is None when not every router answers, `ready_seconds` when not every replica is ready.
    """

    requests: int
    idle_seconds: float | None
    ready_seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ZeroPolicy:
    """The set's `autoscaling`; without a time a replica that was woken stays. After `start_deadline_seconds`
    nobody believes any more that a replica will become ready.
    """

    min_replicas: int
    max_replicas: int
    scale_to_zero_after_seconds: float | None
    start_deadline_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ZeroDecision:
    """How many replicas there are to be, and why."""

    current: int
    wanted: int
    reason: ZeroReason
    signals: ZeroSignals | None

    @property
    def message(self) -> str:
        """The decision as a sentence."""
        if self.signals is None:
            return "the routers do not say what they hold"
        idle = self.signals.idle_seconds
        since = "" if idle is None else f", idle for {idle:.0f} s"
        return f"{self.signals.requests} requests in the routers{since}"


def decide(signals: ZeroSignals | None, policy: ZeroPolicy, *, current: int) -> ZeroDecision:
    """None or one, within the bounds."""
    awake, reason = _awake(signals, policy, current > 0)
    wanted = min(max(1 if awake else 0, policy.min_replicas), policy.max_replicas)
    return ZeroDecision(current=current, wanted=wanted, reason=reason, signals=signals)


def _awake(signals: ZeroSignals | None, policy: ZeroPolicy, awake: bool) -> tuple[bool, ZeroReason]:
    if signals is None:
        return awake, ZeroReason.NO_FIGURES
    if signals.requests:
        return True, ZeroReason.BUSY if awake else ZeroReason.HELD
    if not awake:
        return False, ZeroReason.NO_REQUEST
    if signals.idle_seconds is None:
        return True, ZeroReason.NO_FIGURES
    after = policy.scale_to_zero_after_seconds
    if after is None:
        return True, ZeroReason.NEVER_TO_ZERO
    if signals.ready_seconds is None and signals.idle_seconds >= max(after, policy.start_deadline_seconds):
        return False, ZeroReason.NEVER_READY
    if signals.ready_seconds is None or signals.ready_seconds < after:
        return True, ZeroReason.STARTING
    if signals.idle_seconds < after:
        return True, ZeroReason.QUIET
    return False, ZeroReason.IDLE
