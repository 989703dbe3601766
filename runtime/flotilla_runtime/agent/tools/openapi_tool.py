"""A tool that an OpenAPI document declares: the document is read, and its operation called, over HTTP."""

from collections.abc import Callable, Sequence
from typing import Any, Final

from yarl import URL

from flotilla_runtime.agent.journal import CallOutcome
from flotilla_runtime.agent.models import ToolDeclaration
from flotilla_runtime.agent.models.json_text import read_json
from flotilla_runtime.agent.protocols import Call, Reply
from flotilla_runtime.agent.tools.catalogue import Looked
from flotilla_runtime.agent.tools.declarations import DeclarationError, declared_check, unavailable
from flotilla_runtime.agent.tools.http_tool import HttpCall, HttpTools
from flotilla_runtime.agent.tools.openapi import origin_of, read_operation
from flotilla_runtime.agent.tools.operations import ArgumentError, Operation, request_of
from flotilla_runtime.agent.tools.values import Tool
from flotilla_runtime.contract import (
    Effect,
    HttpEndpoint,
    HttpMethod,
    OpenApiOperation,
    ToolConfig,
    ToolTrouble,
)

DOCUMENT_KIB: Final = 8192
DOCUMENT_SECONDS: Final = 10.0


class OpenApiTool:
    """A tool whose operation an OpenAPI document describes. `reconcile` knows whether a call happened."""

    def __init__(
        self,
        config: ToolConfig,
        asked: OpenApiOperation,
        http: HttpTools,
        reconcile: Callable[..., Any] | None = None,
    ) -> None:
        self.config: Final = config
        self._asked: Final = asked
        self._http: Final = http
        self._reconcile: Final = reconcile

    async def look(self) -> Looked:
        """The tool as the document has it now. Raises DeclarationError."""
        asked = self._asked
        operation = read_operation(
            await self._document(),
            asked.operation_id,
            document_url=asked.document_url,
            base_url=asked.url,
        )
        declaration = ToolDeclaration(
            name=self.config.name,
            description=self.config.description or operation.description,
            parameters=operation.schema,
        )
        tool = Tool(
            config=self.config,
            declaration=declaration,
            problem_of=declared_check(operation.schema),
            operation=operation,
            reconcile=self._reconcile,
        )
        return Looked(tools=[tool])

    def placeholders(self, problem: str) -> Sequence[Tool]:
        """The tool, with words that say why it cannot be called."""
        return [unavailable(self.config, problem)]

    async def close(self) -> None:
        """Its connections are those of all tools over HTTP."""

    async def _document(self) -> Any:
        """The document. The headers of the tool are sent only to the host at which it is called."""
        asked = self._asked
        to_own_host = asked.url is None or origin_of(URL(asked.url)) == origin_of(URL(asked.document_url))
        reply = await self._http.make(
            HttpCall(
                endpoint=HttpEndpoint(
                    url=asked.document_url,
                    method=HttpMethod.GET,
                    headers_directory=asked.headers_directory if to_own_host else None,
                ),
                arguments={},
                key=self.config.name,
                effect=Effect.PURE,
                timeout_seconds=DOCUMENT_SECONDS,
                max_result_kib=DOCUMENT_KIB,
            )
        )
        if reply.outcome is not CallOutcome.SUCCEEDED:
            message = f"the OpenAPI document {asked.document_url} cannot be read: {reply.problem}"
            raise DeclarationError(ToolTrouble.NO_ANSWER, message)
        if not isinstance(reply.value, str):
            return reply.value
        try:
            return read_json(reply.value)
        except ValueError:
            message = f"the OpenAPI document {asked.document_url} is no JSON; give the URL of its JSON form"
            raise DeclarationError(ToolTrouble.UNUSABLE, message) from None


async def call_operation(http: HttpTools, tool: Tool, operation: Operation, call: Call) -> Reply:
    """Call an operation; failures are replies."""
    try:
        request = request_of(operation, call.request)
    except ArgumentError as problem:
        return Reply(outcome=CallOutcome.INVALID, problem=f"not called: {problem}")
    asked, config = tool.config.openapi, tool.config
    return await http.make(
        HttpCall(
            endpoint=HttpEndpoint(
                url=request.url,
                method=request.method,
                headers_directory=asked.headers_directory if asked is not None else None,
            ),
            arguments=call.request,
            key=call.key,
            effect=call.effect,
            timeout_seconds=config.timeout_seconds,
            max_result_kib=config.max_result_kib,
            operation=request,
            traceparent=call.traceparent,
        )
    )
