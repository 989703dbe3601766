"""How a task ends after its agent has: a result that can be stored, or a reason and a message. Pure."""

from dataclasses import dataclass
from typing import Any, Final

from flotilla_runtime.agent.failures import AgentError, ChildFailedError, LimitReachedError
from flotilla_runtime.agent.journal import EndReason, TaskStatus
from flotilla_runtime.agent.tools.results import document_of

MOST_RESULT_BYTES: Final = 4 * 2**20
MOST_PARTIAL_BYTES: Final = 2**20
LONGEST_MESSAGE: Final = 2000  # characters


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """The status, the reason, and the result if there is one."""

    status: TaskStatus
    reason: EndReason
    message: str = ""
    result: Any = None
    partial: Any = None

    @classmethod
    def without_result(cls, reason: EndReason, message: str, partial: Any = None) -> "Ending":
        """The end of a task that has no result."""
        status = TaskStatus.CANCELLED if reason is EndReason.CANCELLED else TaskStatus.FAILED
        short = message if len(message) <= LONGEST_MESSAGE else f"{message[:LONGEST_MESSAGE]}…"
        short = short.encode(errors="replace").decode()  # no store takes half a character
        return cls(status=status, reason=reason, message=short, partial=partial)

    def partial_of(self, kept: Any) -> Any:
        """The partial result of a task: what the agent kept, or the reason why that cannot be stored."""
        partial = kept if self.partial is None else self.partial
        document = document_of(partial, MOST_PARTIAL_BYTES)
        return {"problem": f"ctx.partial {document.problem}"} if document.problem else document.value


def of_result(value: Any) -> Ending:
    """The end of a task whose agent returned this value."""
    document = document_of(value, MOST_RESULT_BYTES)
    if document.problem is not None:
        return Ending.without_result(EndReason.INVALID, f"the agent's result {document.problem}")
    return Ending(status=TaskStatus.SUCCEEDED, reason=EndReason.COMPLETED, result=document.value)


def of_error(error: BaseException) -> Ending:
    """The end of a task whose agent raised this."""
    leaf = _leaf(error)
    if isinstance(leaf, ChildFailedError):
        known = {str(reason): reason for reason in EndReason}
        reason = known.get(leaf.end.reason, EndReason.TOOL_FAILED)
        return Ending.without_result(reason, str(leaf))
    if isinstance(leaf, AgentError):
        return Ending.without_result(leaf.reason, str(leaf))
    return Ending.without_result(EndReason.INVALID, f"the agent raised {type(leaf).__name__}: {leaf}")


def _leaf(error: BaseException) -> BaseException:
    """Of the errors of parallel branches that which says most: a limit, else a call, else the first."""
    leaves = list(_leaves(error))
    for kind in (LimitReachedError, AgentError):
        if found := [leaf for leaf in leaves if isinstance(leaf, kind)]:
            return found[0]
    return leaves[0]


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]
