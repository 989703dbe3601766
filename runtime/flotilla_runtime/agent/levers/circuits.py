"""A circuit for each model and tool, as one worker sees it; pure.

A circuit is closed while calls go through. It opens after some failures in a row, or when too many of the
last calls have failed: then no call is made for a while, so what has failed is left in peace and nobody waits
for its time-outs. After that it is half open: one call tries. If that succeeds the circuit closes, else it
opens again, for twice as long. A failure is no answer at all: a connection refused, a time-out, 429, 502, 503
or 504. An answer that says what is wrong with the call is none.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

MOST_FAILURES_IN_A_ROW: Final = 5
LAST_CALLS: Final = 20
MOST_FAILED_SHARE: Final = 0.5  # of the last calls, once there are so many
FIRST_OPEN_SECONDS: Final = 5.0
LONGEST_OPEN_SECONDS: Final = 30.0
TRIAL_PAUSE_SECONDS: Final = 1.0  # until who comes during a trial asks again


class CircuitState(StrEnum):
    """Whether calls go through: all, none, or one that tries."""

    CLOSED = "Closed"
    OPEN = "Open"
    HALF_OPEN = "HalfOpen"


class Ended(StrEnum):
    """How a call ended, for a circuit."""

    ANSWERED = "Answered"
    FAILED = "Failed"
    NOT_MADE = "NotMade"  # or cancelled: it says nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Circuit:
    """The state of a circuit. `last`: its last calls, True for a failure; `openings`: those in a row."""

    state: CircuitState = CircuitState.CLOSED
    last: Sequence[bool] = ()
    openings: int = 0
    until: float = float("-inf")

    @property
    def failures_in_a_row(self) -> int:
        return next(
            (number for number, failed in enumerate(reversed(self.last)) if not failed), len(self.last)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """Whether a call may be made, and else after how many seconds to ask again."""

    may_call: bool
    is_trial: bool = False
    retry_after_seconds: float = 0.0


CLOSED: Final = Circuit()


def asked(circuit: Circuit, now: float) -> tuple[Circuit, Pass]:
    """Whether a call may be made now."""
    match circuit.state:
        case CircuitState.CLOSED:
            return circuit, Pass(may_call=True)
        case CircuitState.OPEN if now < circuit.until:
            return circuit, Pass(may_call=False, retry_after_seconds=circuit.until - now)
        case CircuitState.OPEN:
            return replace(circuit, state=CircuitState.HALF_OPEN), Pass(may_call=True, is_trial=True)
        case CircuitState.HALF_OPEN:
            return circuit, Pass(may_call=False, retry_after_seconds=TRIAL_PAUSE_SECONDS)


def ended(circuit: Circuit, passed: Pass, how: Ended, now: float) -> Circuit:
    """Return the circuit after the end of a call. While it is not closed, its trial alone counts."""
    if circuit.state is CircuitState.CLOSED:
        if how is Ended.NOT_MADE:
            return circuit
        noted = replace(circuit, last=(*circuit.last, how is Ended.FAILED)[-LAST_CALLS:])
        return _opened(noted, now) if _must_open(noted) else noted
    if not passed.is_trial or circuit.state is not CircuitState.HALF_OPEN:
        return circuit
    match how:
        case Ended.ANSWERED:
            return CLOSED
        case Ended.FAILED:
            return _opened(circuit, now)
        case Ended.NOT_MADE:  # the next call tries
            return replace(circuit, state=CircuitState.OPEN, until=now)


def _must_open(circuit: Circuit) -> bool:
    if circuit.failures_in_a_row >= MOST_FAILURES_IN_A_ROW:
        return True
    return len(circuit.last) >= LAST_CALLS and sum(circuit.last) >= MOST_FAILED_SHARE * LAST_CALLS


def _opened(circuit: Circuit, now: float) -> Circuit:
    seconds = min(FIRST_OPEN_SECONDS * 2**circuit.openings, LONGEST_OPEN_SECONDS)
    return Circuit(state=CircuitState.OPEN, openings=circuit.openings + 1, until=now + seconds)
