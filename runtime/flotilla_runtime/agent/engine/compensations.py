"""Compensations: tools that are called when a task ends without a result, to undo what it has done. Pure.

An agent registers one as a call in the journal, before the effect that it undoes. When the agent has come to
nothing, the run notes how the task is to end, and gives it up. The next run finds that note: it calls the
tools in reverse order, and then ends the task.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from flotilla_runtime.agent.engine.endings import Ending
from flotilla_runtime.agent.engine.entries import Wanted, done_of, intent_of
from flotilla_runtime.agent.engine.history import History
from flotilla_runtime.agent.journal import (
    ENDING,
    OF_COMPENSATION,
    CallKind,
    CallOutcome,
    Done,
    EndReason,
    Intended,
    TaskStatus,
)
from flotilla_runtime.agent.protocols import Reply
from flotilla_runtime.contract import Effect

SECONDS: Final = 600.0  # for all compensations of a task, beside its maxWallSeconds
MOST_TRIES: Final = 5  # of one compensation
MOST_REGISTERED: Final = 100  # in one task
MOST_ARGUMENTS_BYTES: Final = 16 * 1024  # of one, written also where the caller's share has no room


@dataclass(frozen=True, slots=True, kw_only=True)
class Compensation:
    """A registered call; `id` is that of its registration."""

    id: str
    tool: str
    arguments: Mapping[str, Any]

    def call_id(self, number: int) -> str:
        """The id of a try, counted from 1."""
        return f"{self.id}{OF_COMPENSATION}" if number == 1 else f"{self.id}{OF_COMPENSATION}-{number}"


def to_make(history: History) -> list[Compensation]:
    """The registered compensations, the last one first."""
    made = [
        Compensation(id=name, tool=call.intent.target, arguments=call.intent.arguments or {})
        for name, call in history.calls.items()
        if call.intent.kind is CallKind.COMPENSATE and name != ENDING
        if call.result is not None and call.result.outcome is CallOutcome.SUCCEEDED
    ]
    return made[::-1]


def may_be_tried_again(effect: Effect, number: int, *, was_made: bool = True) -> bool:
    """Whether a compensation that failed is called again: never where it could happen twice."""
    return number < MOST_TRIES and not (was_made and effect is Effect.UNSAFE)


def noted(ending: Ending, at: int, step: int, elapsed_ms: int) -> tuple[Intended, Done]:
    """The entries that say how the task is to end. From then on the agent does not run again."""
    told = {"elapsedMs": elapsed_ms}
    wanted = Wanted(id=ENDING, kind=CallKind.COMPENSATE, target="", hashed=told, arguments=told)
    value = {
        "status": str(ending.status),
        "reason": str(ending.reason),
        "message": ending.message,
        "partial": ending.partial,
    }
    reply = Reply(outcome=CallOutcome.SUCCEEDED, value=value)
    return intent_of(wanted, at, step), done_of(ENDING, at, reply)


def ending_of(value: Mapping[str, Any]) -> Ending:
    """The ending that was noted."""
    return Ending(
        status=TaskStatus(value["status"]),
        reason=EndReason(value["reason"]),
        message=value["message"],
        partial=value["partial"],
    )


def with_failures(ending: Ending, failed: Iterable[str]) -> Ending:
    """The ending after compensations: a task for which some were not made is one that people must see."""
    problems = "; ".join(failed)
    if not problems:
        return ending
    before = f"{ending.reason}: {ending.message}".rstrip(": ")
    message = f"not compensated: {problems}; the task had come to {before}"
    return Ending.without_result(EndReason.COMPENSATION_FAILED, message, ending.partial)
