"""The errors that an agent sees, and may handle.

AgentError
├── LimitReachedError       a limit of the task leaves no room for the call
├── TaskFailedError         raised by the agent: the task ends with this reason
├── IncompleteError         a pattern gave fewer results than the agent needs
├── NoWinnerError           no branch of a pattern gave a valid result
├── RejectedError           a validator refused the task's result
├── NotCheckedError         a validator took no calls, so the task's result was not checked
└── CallFailedError         a call came to nothing; `outcome` and `problem` say how
    ├── ModelFailedError
    │   └── PromptTooLongError
    ├── ToolFailedError
    │   └── SearchFailedError
    ├── NoSignalError       no signal came in time
    ├── StateFullError      the state has no room for the value
    ├── MessageRefusedError an actor takes no message: it has ended, is full, or waits for who asks
    └── ChildFailedError    a spawned task ended without a result

ScopeError                  the agent's code is at fault: a call cannot have a lasting id

An agent that lets one through ends its task with the reason that fits. What stops a run from outside, such as
a cancellation, a lost lease or the end of its time, is asyncio's CancelledError and no error of these.
"""

from collections.abc import Mapping
from typing import Final

from flotilla_runtime.agent.budgets import LimitName, MessageRefusal, Refusal
from flotilla_runtime.agent.journal import CallOutcome, EndReason
from flotilla_runtime.agent.protocols import ChildEnd

REASON_OF_LIMIT: Final[Mapping[LimitName, EndReason]] = {
    LimitName.STEPS: EndReason.MAX_STEPS,
    LimitName.TOKENS: EndReason.MAX_TOKENS,
    LimitName.COST: EndReason.MAX_COST,
    LimitName.WALL: EndReason.TIMEOUT,
    LimitName.DEPTH: EndReason.INVALID,
    LimitName.FAN_OUT: EndReason.INVALID,
}


class AgentError(Exception):
    """An error that an agent may handle; `reason` is that of the task if it does not."""

    reason: EndReason = EndReason.INVALID


class LimitReachedError(AgentError):
    """A limit of the tree of tasks leaves no room for this call, and nothing under way can change that."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(
            f"limits.{refusal.limit} ({refusal.most:g}) leaves no room for the call {refusal.call}: "
            f"{refusal.committed:g} are used or reserved, and it needs {refusal.wanted:g}"
        )
        self.refusal = refusal
        self.reason = REASON_OF_LIMIT[self.limit]

    @property
    def limit(self) -> LimitName:
        return LimitName(self.refusal.limit)


class TaskFailedError(AgentError):
    """Ends the task with this reason."""

    def __init__(self, reason: EndReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class IncompleteError(AgentError):
    """Fewer results are there than the agent needs; `missing` has a problem for each other one."""

    reason = EndReason.TOOL_FAILED

    def __init__(self, received: int, needed: int, missing: Mapping[str, str]) -> None:
        problems = "; ".join(f"{key}: {problem}" for key, problem in missing.items())
        super().__init__(f"{received} results are there, and {needed} are needed: {problems}")
        self.received = received
        self.needed = needed
        self.missing = missing


class NoWinnerError(AgentError):
    """No branch of a pattern gave a valid result; `missing` has the problem of each."""

    reason = EndReason.TOOL_FAILED

    def __init__(self, missing: Mapping[str, str]) -> None:
        problems = "; ".join(f"{key}: {problem}" for key, problem in missing.items())
        super().__init__(f"no branch gave a valid result: {problems}")
        self.missing = missing


class RejectedError(AgentError):
    """Validators refused the task's result; `refusals` has the reason of each, by its name."""

    reason = EndReason.REJECTED

    def __init__(self, refusals: Mapping[str, str]) -> None:
        reasons = "; ".join(f"{validator}: {reason}" for validator, reason in refusals.items())
        super().__init__(f"the result was refused: {reasons}")
        self.refusals = refusals


class NotCheckedError(AgentError):
    """A validator took no calls for too long, so nobody knows whether it refuses the task's result."""

    reason = EndReason.INFRASTRUCTURE

    def __init__(self, validator: str, problem: str) -> None:
        super().__init__(f"the result was not checked: {validator}: {problem}")
        self.validator = validator


class CallFailedError(AgentError):
    """A call came to nothing.

    With `retry_after_seconds` it was not made, because its target takes no calls; it may do so after that.
    """

    reason = EndReason.TOOL_FAILED

    def __init__(
        self,
        call: str,
        target: str,
        outcome: CallOutcome,
        problem: str,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(f"{target}: {problem}")
        self.call = call
        self.target = target
        self.outcome = outcome
        self.problem = problem
        self.retry_after_seconds = retry_after_seconds


class ModelFailedError(CallFailedError):
    """A model gave no answer."""

    reason = EndReason.MODEL_FAILED


class PromptTooLongError(ModelFailedError):
    """The model has no room for the prompt."""


class ToolFailedError(CallFailedError):
    """A tool failed, took too long, or was called with wrong arguments."""


class SearchFailedError(ToolFailedError):
    """An index gave no passages."""


class NoSignalError(CallFailedError):
    """No signal of this name came in time."""

    reason = EndReason.TIMEOUT


class StateFullError(CallFailedError):
    """The state of the tenant and agent has no room for this value."""

    reason = EndReason.INVALID


class MessageRefusedError(CallFailedError):
    """An actor took no message; `refusal` says why."""

    reason = EndReason.INVALID

    def __init__(self, call: str, target: str, refusal: MessageRefusal, problem: str) -> None:
        super().__init__(call, target, CallOutcome.REFUSED, problem)
        self.refusal = refusal


class ChildFailedError(CallFailedError):
    """A spawned task ended without a result; `end.partial` has what it had found."""

    def __init__(self, call: str, target: str, end: ChildEnd) -> None:
        problem = f"the task ended as {end.reason}: {end.message}".rstrip(": ")
        super().__init__(call, target, CallOutcome.FAILED, problem)
        self.end = end


class EffectUnknownError(Exception):
    """Nobody said in time whether an Unsafe call happened, in a run that goes on without it."""


class ScopeError(Exception):
    """A call cannot have an id that would be the same in every replay."""
