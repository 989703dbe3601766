"""Calls tools, and asks whether an Unsafe call happened."""

import inspect
from collections.abc import Mapping
from typing import Any, Final

import structlog

from flotilla_runtime.agent.journal import CallOutcome
from flotilla_runtime.agent.models.values import shown
from flotilla_runtime.agent.protocols import Call, Certainty, Reconciled, Reply, Threads
from flotilla_runtime.agent.tool_requests import FunctionKind, RunsElsewhere
from flotilla_runtime.agent.tools.http_tool import HttpCall, HttpTools
from flotilla_runtime.agent.tools.openapi_tool import call_operation
from flotilla_runtime.agent.tools.python_tool import (
    Functions,
    FunctionTimeoutError,
    NotBegunError,
    PythonFunction,
)
from flotilla_runtime.agent.tools.results import PERHAPS, reply_of
from flotilla_runtime.agent.tools.values import Tool
from flotilla_runtime.contract import Effect, HttpEndpoint, ToolConfig

HAPPENED: Final = "happened"
RESULT: Final = "result"
NO_TOOLS: Final[Mapping[str, Tool]] = {}

log = structlog.get_logger(__name__)


class ToolRunner:
    """The tools of one worker, or of one executor. With `elsewhere`, functions are called there.

    With `before`, they are called here, but executors of an older revision may have some of the calls.
    """

    def __init__(
        self,
        tools: Mapping[str, Tool],
        http: HttpTools | None = None,
        functions: Functions | None = None,
        elsewhere: RunsElsewhere | None = None,
        validators: Mapping[str, Tool] = NO_TOOLS,
        before: RunsElsewhere | None = None,
    ) -> None:
        self._tools = tools
        self._elsewhere = elsewhere
        self._before = before
        self._validators = validators
        self._http = http or HttpTools()
        self._functions = functions or Functions()

    @property
    def threads(self) -> Threads:
        """The state of the threads of plain functions."""
        return self._functions

    async def close(self) -> None:
        """Close all connections."""
        await self._http.close()

    async def make(self, call: Call, task: str = "") -> Reply:
        """Call a tool for a task; failures are replies."""
        tool = self._tools.get(call.target) or self._validators.get(call.target)
        if tool is None:
            return Reply(outcome=CallOutcome.INVALID, problem=f"there is no tool {call.target}")
        if tool.config.http is not None:
            return await self._over_http(tool.config, tool.config.http, call, call.request)
        if tool.function is not None:
            return await self._in_python(tool.config, tool.function, call)
        problem = tool.problem_of(call.request)  # by what the server declares now, not when the run began
        if problem is not None:
            return Reply(outcome=CallOutcome.INVALID, problem=problem)
        if tool.operation is not None:
            return await call_operation(self._http, tool, tool.operation, call)
        if tool.make is not None:
            return await tool.make(call, task)
        return Reply(outcome=CallOutcome.INVALID, problem=f"this release cannot call the tool {call.target}")

    async def reconcile(self, call: Call) -> Reconciled | None:
        """Find out whether the call with this key happened; None if nobody knows.

        An executor that was given the call may have kept its reply. Else the tool's `reconcile` is asked.
        """
        tool = self._tools.get(call.target)
        executors = self._elsewhere or self._before
        if executors is not None and tool is not None and tool.function is not None:
            kept = await executors.kept(call, most_kib=tool.config.max_result_kib)
            if kept is not None:
                return kept
        asked = tool.config.reconcile if tool is not None else None
        if tool is None or asked is None:
            return None
        about: dict[str, Any] = {"key": call.key, "arguments": dict(call.request)}
        if tool.config.mcp is not None:  # one entry of the spec stands for several tools
            about["tool"] = call.target
        if asked.http is not None:
            pure = Call(id=call.id, kind=call.kind, target=call.target, request=about, key=call.key)
            reply = await self._over_http(tool.config, asked.http, pure, about)
        elif tool.reconcile is not None:
            reply = await self._told(tool, call, about)
        else:
            return None
        if reply.outcome is not CallOutcome.SUCCEEDED:
            log.warning("reconcile_failed", tool=call.target, call=call.id, problem=reply.problem)
            return None
        return _reconciled(reply.value)

    async def _over_http(
        self, config: ToolConfig, endpoint: HttpEndpoint, call: Call, arguments: Mapping[str, Any]
    ) -> Reply:
        return await self._http.make(
            HttpCall(
                endpoint=endpoint,
                arguments=arguments,
                key=call.key,
                effect=call.effect,
                timeout_seconds=config.timeout_seconds,
                max_result_kib=config.max_result_kib,
                traceparent=call.traceparent,
            )
        )

    async def _in_python(self, config: ToolConfig, function: PythonFunction, call: Call) -> Reply:
        problem = function.problem_of(call.request)
        if problem is not None:
            return Reply(outcome=CallOutcome.INVALID, problem=problem)
        if self._elsewhere is not None:
            return await self._elsewhere.make(call, call.target, most_kib=config.max_result_kib)
        if self._before is not None and call.was_begun:
            kept = await self._before.kept(call, most_kib=config.max_result_kib)
            if kept is not None and kept.reply is not None:
                return kept.reply
        keywords = function.keywords(call.request, call.key)
        return await self._returned(config, function.call, keywords, call.effect)

    async def say_whether_happened(self, call: Call) -> Reply:
        """Ask a tool's `reconcile` in Python about the call that the arguments describe."""
        tool = self._tools.get(call.target)
        if tool is None or tool.reconcile is None:
            return Reply(outcome=CallOutcome.INVALID, problem=f"{call.target} has no reconcile in Python")
        return await self._told(tool, call, call.request)

    async def _told(self, tool: Tool, call: Call, about: Mapping[str, Any]) -> Reply:
        assert tool.reconcile is not None
        if self._elsewhere is not None:
            asked = Call(id=call.id, kind=call.kind, target=call.target, request=about, key=call.key)
            name, most_kib = tool.config.name, tool.config.max_result_kib
            return await self._elsewhere.make(asked, name, FunctionKind.RECONCILE, most_kib=most_kib)
        takes = inspect.signature(tool.reconcile).parameters
        keywords = {name: value for name, value in about.items() if name in takes}
        return await self._returned(tool.config, tool.reconcile, keywords, Effect.PURE)

    async def _returned(
        self, config: ToolConfig, function: Any, keywords: Mapping[str, Any], effect: Effect
    ) -> Reply:
        try:
            value = await self._functions.result(
                lambda: function(**keywords),
                is_coroutine=inspect.iscoroutinefunction(function),
                seconds=config.timeout_seconds,
            )
        except NotBegunError:
            busy = "all threads for functions are held by calls that have not ended"
            return Reply(outcome=CallOutcome.FAILED, problem=busy, certainty=Certainty.NOT_BEGUN)
        except FunctionTimeoutError:
            limit = f"no result within timeoutSeconds ({config.timeout_seconds:g} s)"
            return Reply(outcome=CallOutcome.TIMED_OUT, problem=limit, certainty=Certainty.UNKNOWN)
        except Exception as problem:
            log.info("tool_raised", tool=config.name, exc_info=problem)
            raised = shown(f"{type(problem).__name__}: {problem}")
            perhaps = PERHAPS if effect is Effect.UNSAFE else ""
            return Reply(outcome=CallOutcome.FAILED, problem=f"{raised}{perhaps}")
        return reply_of(value, config.max_result_kib, effect)


def _reconciled(told: Any) -> Reconciled | None:
    """Read an answer: true, false, or an object with `happened` and perhaps `result`; None for any other."""
    result = None
    if isinstance(told, Mapping):
        result = told.get(RESULT)
        told = told.get(HAPPENED)
    return Reconciled(happened=told, result=result) if isinstance(told, bool) else None
