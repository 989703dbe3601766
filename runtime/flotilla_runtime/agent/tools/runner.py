"""Calls tools, and asks whether an Unsafe call happened."""

from collections.abc import Mapping

from flotilla_runtime.agent.journal import CallOutcome
from flotilla_runtime.agent.protocols import Call, Reply
from flotilla_runtime.agent.tools.values import Tool


class ToolRunner:
    """The tools of one worker."""

    def __init__(self, tools: Mapping[str, Tool]) -> None:
        self._tools = tools

    async def make(self, call: Call) -> Reply:
        """Call a tool."""
        return Reply(outcome=CallOutcome.INVALID, problem=f"there is no tool {call.target}")

    async def reconcile(self, call: Call) -> bool | None:
        """Whether the call happened; None if nobody knows."""
        return None
