"""Tools of the fleet as LangChain's tools.

Each call is one of the task: by the tool's effect it is repeated after a kill, answered from the journal, or
left to somebody who knows what happened; it asks for approval where the tool does.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

from langchain_core.tools import BaseTool, ToolException
from langchain_core.tools.base import ArgsSchema

from flotilla_runtime.agent.failures import ToolFailedError
from flotilla_runtime.agent.graphs.current import NO_NAME, GraphRun, current_run
from flotilla_runtime.agent.graphs.known import tools_being_loaded
from flotilla_runtime.agent.models import ToolDeclaration
from flotilla_runtime.agent.tools.declarations import NO_ARGUMENTS
from flotilla_runtime.agent.tools.python_tool import python_function
from flotilla_runtime.agent.tools.references import ProgramError
from flotilla_runtime.contract import ToolConfig

# The id of the model's call that is being made, which names it in the journal.
_CALL: ContextVar[str | None] = ContextVar("flotilla_graph_tool_call", default=None)
LONGEST_CALL: Final = 64  # letters of a model's id of a call


class FlotillaTool(BaseTool):
    """A tool of the fleet. A failure or a refusal is an observation for the model, not an exception."""

    args_schema: ArgsSchema | None = None
    handle_tool_error: Any = True

    def run(self, tool_input: str | dict[str, Any], *args: Any, **options: Any) -> Any:
        """Call the tool from a thread."""
        with _called(options.get("tool_call_id")):
            return super().run(tool_input, *args, **options)

    async def arun(self, tool_input: str | dict[str, Any], *args: Any, **options: Any) -> Any:
        """Call the tool."""
        with _called(options.get("tool_call_id")):
            return await super().arun(tool_input, *args, **options)

    def _run(self, **arguments: Any) -> Any:
        run = current_run()
        return run.from_thread(lambda: self._call(run, arguments))

    async def _arun(self, **arguments: Any) -> Any:
        return await self._call(current_run(), arguments)

    async def _call(self, run: GraphRun, arguments: Mapping[str, Any]) -> Any:
        called = _CALL.get()
        name = None if called is None else f"tool/{self.name}@{called}"
        try:
            return await run.call(lambda ctx: ctx.tool(self.name, arguments, name=name))
        except ToolFailedError as failed:
            raise ToolException(failed.problem) from failed


def flotilla_tools(*names: str) -> list[BaseTool]:
    """The fleet's tools with these names; without names, all that its configuration has.

    What an MCP server or an OpenAPI document declares is known when workers run, not when the graph is made:
    name such a tool. Its model is then told what the server declares.
    """
    loading = tools_being_loaded()
    if loading is None:
        known = {name: tool.declaration for name, tool in current_run().context.program.tools.items()}
    else:
        known = {one.name: _declaration(one) for one in loading if one.mcp is None and one.openapi is None}
    return [_tool(known.get(name) or ToolDeclaration(name=name)) for name in names or known]


def _declaration(config: ToolConfig) -> ToolDeclaration:
    """The early declaration of a tool. A function below the graph in its module is not there yet."""
    description, parameters = config.description, config.parameters
    if config.python is not None:
        try:
            function = python_function("", config.python)
        except ProgramError:
            pass
        else:
            description, parameters = description or function.description, function.schema
    return ToolDeclaration(name=config.name, description=description, parameters=parameters or NO_ARGUMENTS)


def _tool(declaration: ToolDeclaration) -> BaseTool:
    return FlotillaTool(
        name=declaration.name,
        description=declaration.description or declaration.name,
        args_schema=dict(declaration.parameters),
    )


@contextmanager
def _called(call: str | None) -> Iterator[None]:
    token = _CALL.set(None if not call else NO_NAME.sub("-", call)[:LONGEST_CALL])
    try:
        yield
    finally:
        _CALL.reset(token)
