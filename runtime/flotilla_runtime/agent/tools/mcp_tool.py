"""The tools of an MCP server: what it declares is asked for, and its tools are called.

A call that may be repeated is tried again after what may pass. An Unsafe one is sent once: it is tried again
only if no connection came about.
"""

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

import mcp_types as types
from mcp import MCPError
from pydantic import ValidationError

from flotilla_runtime.agent.journal import CallOutcome
from flotilla_runtime.agent.models.values import shown
from flotilla_runtime.agent.protocols import Call, Certainty, Reply
from flotilla_runtime.agent.retries import TOOL_RETRIES, RetryPolicy
from flotilla_runtime.agent.tools.catalogue import Looked
from flotilla_runtime.agent.tools.connections import Connections
from flotilla_runtime.agent.tools.declarations import DeclarationError, unavailable
from flotilla_runtime.agent.tools.mcp_server import (
    MOST_TOOLS,
    McpConnections,
    NotOpenedError,
    SessionLostError,
)
from flotilla_runtime.agent.tools.mcp_transport import Exchange
from flotilla_runtime.agent.tools.mcp_values import config_of, declared_tool, problem_of, value_of
from flotilla_runtime.agent.tools.results import IT_HAPPENED, KIB, PERHAPS, reply_of
from flotilla_runtime.agent.tools.tries import MAY_PASS, OF_A_PROXY, Answer, failed, tried
from flotilla_runtime.agent.tools.values import Tool
from flotilla_runtime.backoff import Draw
from flotilla_runtime.contract import HEADER_TRACE, Effect, McpServer, ToolConfig, ToolTrouble
from flotilla_runtime.contract.failure_texts import what_failed

IDEMPOTENCY_META: Final = "flotilla.dev/idempotency-key"
WIRE_FACTOR: Final = 4  # a result comes as text and as structured content, and escaped
FRAME_BYTES: Final = 64 * KIB
NO_ANSWER_CODES: Final = frozenset({types.CONNECTION_CLOSED, types.PARSE_ERROR})
LOST: Final = "the server no longer knew the session, and refused the call"


class McpTools:
    """The tools of one MCP server. `reconcile` knows whether a call happened."""

    def __init__(
        self,
        config: ToolConfig,
        server: McpServer,
        connections: Connections,
        reconcile: Callable[..., Any] | None = None,
        *,
        retries: RetryPolicy = TOOL_RETRIES,
        draw: Draw = random.uniform,
    ) -> None:
        self.config: Final = config
        self.connections: Final = McpConnections(server, connections)
        self._server: Final = server
        self._reconcile: Final = reconcile
        self._retries = retries
        self._draw = draw

    # What the server declares

    async def look(self) -> Looked:
        """The tools that the server declares now. Raises DeclarationError."""
        try:
            told = await self.connections.tools()
        except (NotOpenedError, MCPError, ValidationError) as problem:
            said = problem.problem if isinstance(problem, NotOpenedError) else what_failed(problem)
            message = f"the MCP server {self._server.url} does not answer: {said}"
            raise DeclarationError(ToolTrouble.NO_ANSWER, message) from None
        wanted = [choice.name for choice in self._server.tools]
        if len(told) > MOST_TOOLS and not wanted:
            message = (
                f"the MCP server has more than {MOST_TOOLS} tools; name those that are needed in mcp.tools"
            )
            raise DeclarationError(ToolTrouble.UNUSABLE, message)
        # In a thread, because schemas of some MiB take seconds to read.
        return await asyncio.to_thread(self._looked, {tool.name: tool for tool in told}, wanted)

    def placeholders(self, problem: str) -> Sequence[Tool]:
        """The tools that the spec names, or one with the entry's name, each with words that say why not."""
        names = [choice.name for choice in self._server.tools]
        configs = [config_of(self.config, name) for name in names] or [self.config]
        return [unavailable(config, problem) for config in configs]

    def _looked(self, told: dict[str, types.Tool], wanted: list[str]) -> Looked:
        tools: list[Tool] = []
        trouble: DeclarationError | None = None
        for name in wanted or told:
            try:
                if name not in told:
                    there = ", ".join(sorted(told)[:20])
                    said = f"the MCP server has no tool {name}; there are {there}"[:500]
                    raise DeclarationError(ToolTrouble.MISSING, said)
                tool = declared_tool(self.config, told[name], self._reconcile)
                tools.append(replace(tool, make=partial(self.make, tool.config, name)))
            except DeclarationError as problem:
                trouble = trouble or problem
                tools.append(unavailable(config_of(self.config, name), problem.problem))
        return Looked(tools=tools, trouble=trouble)

    # Calls

    async def close(self) -> None:
        """End all sessions."""
        await self.connections.close()

    async def make(self, config: ToolConfig, name: str, call: Call, task: str) -> Reply:
        """Call a tool of the server; failures are replies."""
        limit = config.timeout_seconds
        exchanges: list[Exchange] = []

        async def one() -> Answer:
            most = WIRE_FACTOR * config.max_result_kib * KIB + FRAME_BYTES
            exchanges.append(Exchange(most_bytes=most, is_kept=call.effect is not Effect.UNSAFE))
            return await self._one(config, name, call, task, exchanges[-1])

        try:
            async with asyncio.timeout(limit):
                return await tried(one, self._retries, self._draw)
        except TimeoutError:
            problem = f"no answer within timeoutSeconds ({limit:g} s)"
            certainty = exchanges[-1].sent.certainty if exchanges else Certainty.KNOWN
            return Reply(outcome=CallOutcome.TIMED_OUT, problem=problem, certainty=certainty)

    async def _one(self, config: ToolConfig, name: str, call: Call, task: str, exchange: Exchange) -> Answer:
        meta = {IDEMPOTENCY_META: call.key}
        if call.traceparent is not None:
            meta[HEADER_TRACE] = call.traceparent
        try:
            result = await self.connections.call(task, name, dict(call.request), meta, exchange)
        except NotOpenedError as problem:
            repeatable = problem.may_pass or call.effect is not Effect.UNSAFE
            return Answer(reply=failed(problem.problem), may_pass=repeatable)
        except SessionLostError:
            return Answer(reply=failed(LOST), may_pass=call.effect is not Effect.UNSAFE)
        except MCPError as problem:
            return _failure(call, exchange, problem.message, problem.code)
        except ValidationError:
            return _failure(call, exchange, "the answer is none of MCP", types.PARSE_ERROR)
        if isinstance(result, types.InputRequiredResult):
            return Answer(reply=failed("the server asks for more input, which no task can give it"))
        if result.is_error:
            perhaps = PERHAPS if call.effect is Effect.UNSAFE else ""
            return Answer(reply=failed(f"{problem_of(result)}{perhaps}"))
        return Answer(reply=reply_of(value_of(result), config.max_result_kib, call.effect))


def _failure(call: Call, exchange: Exchange, message: str, code: int) -> Answer:
    """The answer of a call that ended with an error of MCP, or of the connection below it."""
    is_unsafe = call.effect is Effect.UNSAFE
    if exchange.problem is not None or code in NO_ANSWER_CODES or exchange.status in OF_A_PROXY:
        is_known = exchange.has_happened or exchange.is_refused
        certainty = Certainty.KNOWN if is_known else exchange.sent.certainty
        happened = IT_HAPPENED if is_unsafe and exchange.has_happened else ""
        reply = failed(f"{exchange.problem or shown(message)}{happened}", certainty)
        return Answer(
            reply=reply, may_pass=exchange.may_pass or (not is_unsafe and not exchange.has_happened)
        )
    perhaps = PERHAPS if is_unsafe and (exchange.status or 0) >= 500 else ""
    status = f"answered {exchange.status}: " if exchange.status not in (None, 200) else ""
    reply = failed(f"{status}{shown(message)}{perhaps}")
    return Answer(reply=reply, may_pass=not is_unsafe and exchange.status in MAY_PASS)
