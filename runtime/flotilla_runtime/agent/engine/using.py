"""Calls of tools: what is asked, the approval that a call needs first, and its value."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from flotilla_runtime.agent.engine.engine import Engine
from flotilla_runtime.agent.engine.entries import Wanted
from flotilla_runtime.agent.failures import ToolFailedError
from flotilla_runtime.agent.journal import OF_APPROVAL, CallKind, CallOutcome, Done
from flotilla_runtime.agent.programs import Program
from flotilla_runtime.agent.tools.results import KIB, document_of
from flotilla_runtime.contract import Approval, Effect

MOST_ARGUMENTS_BYTES: Final = 256 * 1024
APPROVAL_SECONDS: Final = 86_400.0


class NotApprovedError(ToolFailedError):
    """Somebody refused the call, or nobody decided in time: nothing was called."""


class Using:
    """The tools of one run."""

    def __init__(self, engine: Engine, program: Program) -> None:
        self._engine = engine
        self._program = program

    def wanted(
        self,
        call: str,
        tool: str,
        arguments: Mapping[str, Any] | None,
        most_bytes: int = MOST_ARGUMENTS_BYTES,
    ) -> tuple[Wanted, str | None]:
        """The call of a tool, and why it cannot be made, if it cannot."""
        document = document_of(dict(arguments or {}), most_bytes)
        told = document.value if document.problem is None else {}
        known = self._program.tools.get(tool)
        wanted = Wanted(
            id=call,
            kind=CallKind.TOOL,
            target=tool,
            hashed={"tool": tool, "arguments": told},
            request=told,
            arguments=told,
            effect=known.config.effect if known is not None else Effect.PURE,
            most_bytes=known.config.max_result_kib * KIB if known is not None else 0,
        )
        if document.problem is not None:
            return wanted, f"what is given to {tool} {document.problem}"
        return wanted, f"there is no tool {tool}" if known is None else known.problem_of(told)

    async def used(self, wanted: Wanted, problem: str | None) -> Any:
        """The value that a tool gave. Raises ToolFailedError."""
        if problem is None or self._engine.recall.has_begun(wanted.id):  # by what the tool was when it began
            await self._approved(wanted)
            done = await self._engine.call(wanted)
        else:
            done = await self._engine.note(wanted, None, CallOutcome.INVALID, problem)
        if done.outcome is not CallOutcome.SUCCEEDED:
            raise ToolFailedError(*failed_call(wanted, done))
        return done.value

    async def _approved(self, wanted: Wanted) -> None:
        """Return when the call may be made; raise ToolFailedError when somebody says no, or nobody yes.

        What the journal knows counts, whatever the tool's `approval` was at that time.
        """
        approval = replace(wanted, id=f"{wanted.id}{OF_APPROVAL}", kind=CallKind.APPROVE, request=None)
        tool = self._program.tools.get(wanted.target)
        must_ask = tool is not None and tool.config.approval is Approval.ALWAYS
        is_asked = must_ask and not self._engine.recall.has_begun(wanted.id)
        if not is_asked and not self._engine.recall.has_begun(approval.id):
            return
        done = await self._engine.outside(approval, APPROVAL_SECONDS)
        if done.outcome is not CallOutcome.SUCCEEDED:
            raise NotApprovedError(wanted.id, wanted.target, done.outcome, f"not called: {done.problem}")


def failed_call(wanted: Wanted, done: Done) -> tuple[str, str, CallOutcome, str, float | None]:
    """What the error of a failed call says."""
    later = None if done.retry_after_ms is None else done.retry_after_ms / 1000
    return wanted.id, wanted.target, done.outcome, done.problem or str(done.outcome), later
