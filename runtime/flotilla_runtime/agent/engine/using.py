"""Calls of tools: what is asked, the approval that a call needs first, and its value."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final

from flotilla_runtime.agent.engine.approvals import must_ask_anew
from flotilla_runtime.agent.engine.engine import APPROVAL_SECONDS, Engine
from flotilla_runtime.agent.engine.entries import Wanted
from flotilla_runtime.agent.engine.history import PastCall
from flotilla_runtime.agent.failures import ToolFailedError
from flotilla_runtime.agent.journal import CallKind, CallOutcome, Done
from flotilla_runtime.agent.programs import Program
from flotilla_runtime.agent.tools.destinations import destination_of
from flotilla_runtime.agent.tools.results import KIB, document_of
from flotilla_runtime.contract import Approval, Effect
from flotilla_runtime.contract.approvals import approval_of

MOST_ARGUMENTS_BYTES: Final = 256 * 1024
LONGEST_DESTINATION: Final = 2048


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
            done = await self._engine.call(replace(wanted, asked_anew=partial(self._asked_anew, wanted)))
        else:
            done = await self._engine.note(wanted, None, CallOutcome.INVALID, problem)
        if done.outcome is not CallOutcome.SUCCEEDED:
            raise ToolFailedError(*failed_call(wanted, done))
        return done.value

    async def _approved(self, wanted: Wanted) -> None:
        """Return when the call may be made; raise ToolFailedError when somebody says no, or nobody yes.

        What the journal knows counts, whatever the tool's `approval` was at that time.
        """
        approval = self._approval(wanted, 1)
        is_asked = self._asks(wanted) and not self._engine.recall.has_begun(wanted.id)
        if not is_asked and not self._engine.recall.has_begun(approval.id):
            return
        done = await self._engine.outside(approval, APPROVAL_SECONDS)
        if done.outcome is not CallOutcome.SUCCEEDED:
            raise NotApprovedError(wanted.id, wanted.target, done.outcome, f"not called: {done.problem}")

    def _asks(self, wanted: Wanted) -> bool:
        tool = self._program.tools.get(wanted.target)
        return tool is not None and tool.config.approval is Approval.ALWAYS

    def _asked_anew(self, wanted: Wanted, past: PastCall, who: str | None) -> Wanted | None:
        """The approval that a call needs before it is made again; None if what was decided stands."""
        asks = self._asks(wanted) or self._engine.recall.has_begun(approval_of(wanted.id))
        if not must_ask_anew(who, asks=asks, follows_approval=past.follows_approval):
            return None
        return self._approval(wanted, past.times_begun + 1)

    def _approval(self, wanted: Wanted, number: int) -> Wanted:
        tool = self._program.tools.get(wanted.target)
        return replace(
            wanted,
            id=approval_of(wanted.id, number),
            kind=CallKind.APPROVE if number == 1 else CallKind.APPROVE_AGAIN,
            request=None,
            destination=None if tool is None else destination_of(tool)[:LONGEST_DESTINATION],
        )


def failed_call(wanted: Wanted, done: Done) -> tuple[str, str, CallOutcome, str, float | None]:
    """The arguments of the error of a failed call."""
    later = None if done.retry_after_ms is None else done.retry_after_ms / 1000
    return wanted.id, wanted.target, done.outcome, done.problem or str(done.outcome), later
