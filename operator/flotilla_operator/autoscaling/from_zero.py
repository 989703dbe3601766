"""Decides whether a set that may scale to zero has a replica. Pure; so far the only rule of autoscaling.

A request that the routers hold starts the first replica. The replica is removed after the routers have been
idle for long enough. The routers measure this themselves, because looking every few seconds would miss short
requests. A replica that has just become ready gets the same time; otherwise one that loads for longer than
its callers wait would be removed before it ever served. A replica that is not ready is given the progress
deadline of an update, because nobody knows whether it still loads; then it is removed, so that it does not
hold its accelerators for ever. Unknown is not idle: while a router does not report, no replica is removed.
"""

from dataclasses import dataclass
from enum import StrEnum


class ZeroReason(StrEnum):
    """Reason for the number of replicas."""

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
    """Signals that the set's routers report together, and how long all of its replicas have been ready.

    `idle_seconds` is None while a router does not answer; `ready_seconds` is None while a replica is not
    ready.
    """

    requests: int
    idle_seconds: float | None
    ready_seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ZeroPolicy:
    """The set's `spec.autoscaling`.

    Without `scale_to_zero_after_seconds` a replica that was started stays. After `start_deadline_seconds` a
    replica that is not ready is no longer expected to become so.
    """

    min_replicas: int
    max_replicas: int
    scale_to_zero_after_seconds: float | None
    start_deadline_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ZeroDecision:
    """How many replicas are wanted, why, and what it was decided from."""

    current: int
    wanted: int
    reason: ZeroReason
    signals: ZeroSignals | None
    policy: ZeroPolicy

    @property
    def shares(self) -> tuple[()]:
        return ()

    @property
    def message(self) -> str:
        if self.signals is None:
            return "no router reports its requests"
        idle, count = self.signals.idle_seconds, self.signals.requests
        if count:
            return f"the routers have {count} request{'' if count == 1 else 's'}"
        if idle is None:
            return "the routers that answer have no request"
        return f"the routers have had no request for {idle:.0f} s"


def decide(signals: ZeroSignals | None, policy: ZeroPolicy, *, current: int) -> ZeroDecision:
    """Zero or one replica, within the bounds of the policy."""
    awake, reason = _awake(signals, policy, current > 0)
    wanted = min(max(1 if awake else 0, policy.min_replicas), policy.max_replicas)
    return ZeroDecision(current=current, wanted=wanted, reason=reason, signals=signals, policy=policy)


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
