"""The circuits of one worker: who may call, and what becomes known of it in logs and metrics."""

from collections.abc import Callable
from typing import Final

import structlog

from flotilla_runtime.agent.journal import CallKind, CallOutcome
from flotilla_runtime.agent.levers import circuits
from flotilla_runtime.agent.levers.circuits import CLOSED, Circuit, CircuitState, Ended, Pass
from flotilla_runtime.agent.levers.metrics import LeverMetrics
from flotilla_runtime.agent.protocols import Certainty, Reply

log = structlog.get_logger(__name__)


class Circuits:
    """A circuit for each model and tool that was called."""

    def __init__(self, metrics: LeverMetrics, monotonic_seconds: Callable[[], float]) -> None:
        self._metrics: Final = metrics
        self._now = monotonic_seconds
        self._known: dict[tuple[CallKind, str], Circuit] = {}

    def ask(self, kind: CallKind, target: str) -> Pass:
        """Whether a call may be made now. Who gets a pass must say how the call ended."""
        circuit, passed = circuits.asked(self._of(kind, target), self._now())
        self._known[kind, target] = circuit
        return passed

    def look(self, kind: CallKind, target: str) -> Pass:
        """Return the answer that `ask` would give now, without giving a pass."""
        return circuits.asked(self._of(kind, target), self._now())[1]

    def end(self, kind: CallKind, target: str, passed: Pass, how: Ended) -> None:
        """Note how a call ended."""
        before = self._of(kind, target)
        after = self._known[kind, target] = circuits.ended(before, passed, how, self._now())
        if after.state is CircuitState.OPEN and how is Ended.FAILED and before.state is not CircuitState.OPEN:
            self._metrics.openings.labels(kind, target).inc()
            self._metrics.open.labels(kind, target).set(1)
            seconds = after.until - self._now()
            log.warning("circuit_opened", kind=kind, target=target, seconds=seconds, openings=after.openings)
        elif after.state is CircuitState.CLOSED and before.state is not CircuitState.CLOSED:
            self._metrics.open.labels(kind, target).set(0)
            log.info("circuit_closed", kind=kind, target=target)

    def _of(self, kind: CallKind, target: str) -> Circuit:
        return self._known.get((kind, target), CLOSED)


def how_ended(reply: Reply) -> Ended:
    """The end of a call, as its circuit counts it."""
    if reply.certainty is Certainty.NOT_BEGUN:
        return Ended.NOT_MADE
    if reply.is_refused or reply.outcome is CallOutcome.TIMED_OUT:
        return Ended.FAILED
    return Ended.NOT_MADE if reply.outcome is CallOutcome.INVALID else Ended.ANSWERED


def not_called(kind: CallKind, target: str, retry_after_seconds: float) -> Reply:
    """The reply to a call that is not made, because the circuit is open."""
    problem = (
        f"the {str(kind).lower()} {target} was not called, because its last calls have failed; it is tried "
        f"again in {retry_after_seconds:.0f} s"
    )
    return Reply(
        outcome=CallOutcome.FAILED,
        problem=problem,
        is_refused=True,
        retry_after_ms=round(retry_after_seconds * 1000),
    )
