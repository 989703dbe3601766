"""Loads what a worker runs: the built-in agent, or the entrypoint or the graph of the fleet's image.

Python code is imported once, when the worker starts. Code that is missing is an error that names the field
and the fix; the worker then ends with these words and EXIT_PERMANENT.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from jsonschema.exceptions import SchemaError

from flotilla_runtime.agent.builtin.loop import built_in
from flotilla_runtime.agent.graphs.known import known_tools
from flotilla_runtime.agent.graphs.loading import graph_agent, prepare
from flotilla_runtime.agent.models import ToolDeclaration
from flotilla_runtime.agent.programs import AgentMain, ContextOf, Program, stated_context
from flotilla_runtime.agent.tools.addresses import AddressCheck
from flotilla_runtime.agent.tools.catalogue import Catalogue, Declaring
from flotilla_runtime.agent.tools.connections import Connections
from flotilla_runtime.agent.tools.declarations import NO_ARGUMENTS
from flotilla_runtime.agent.tools.http_tool import HttpTools
from flotilla_runtime.agent.tools.openapi_tool import OpenApiTool
from flotilla_runtime.agent.tools.python_tool import checking_function, python_function
from flotilla_runtime.agent.tools.references import ProgramError, referred
from flotilla_runtime.agent.tools.sql_text import read_statement
from flotilla_runtime.agent.tools.sql_tool import SqlTool
from flotilla_runtime.agent.tools.values import Tool, schema_check
from flotilla_runtime.agent.verdicts import MOST_VERDICT_KIB, target_of
from flotilla_runtime.contract import Effect, McpServer, SqlQuery, ToolConfig, ValidatorConfig, WorkerConfig

ENTRYPOINT: Final = "spec.agent.entrypoint"


def load_program(
    config: WorkerConfig,
    context_of: ContextOf = stated_context,
    tools: Mapping[str, Tool] | None = None,
) -> Program:
    """The program for this configuration; raises ProgramError."""
    prepare(config.graph)
    loaded = load_tools(config.tools, HttpTools()) if tools is None else tools
    main = load_main(config)
    return Program(main=main, config=config, tools=loaded, context_of=context_of, built_in=built_in)


def load_main(config: WorkerConfig) -> AgentMain:
    """The agent: of the image, or the built-in one; raises ProgramError."""
    if config.entrypoint is not None:
        return entrypoint(config.entrypoint)
    if config.graph is None:
        return built_in
    with known_tools(config.tools):
        return graph_agent(config.graph)


def load_validators(configs: Sequence[ValidatorConfig]) -> dict[str, Tool]:
    """The validators over HTTP and in Python, as tools that no model sees; raises ProgramError."""
    called = [(place, one) for place, one in enumerate(configs) if one.judge is None]
    return {target_of(one): _validator(place, one) for place, one in called}


def load_tools(configs: Sequence[ToolConfig], http: HttpTools) -> Catalogue:
    """The tools, of which servers may declare some; raises ProgramError."""
    with known_tools(configs):
        return _loaded_tools(configs, http)


def _loaded_tools(configs: Sequence[ToolConfig], http: HttpTools) -> Catalogue:
    fixed: dict[str, Tool] = {}
    declaring: list[Declaring] = []
    for place, config in enumerate(configs):
        if config.openapi is not None:
            asked = _reconcile(f"spec.tools[{place}]", config)
            declaring.append(OpenApiTool(config, config.openapi, http, asked))
        elif config.mcp is not None:
            declaring.append(_mcp_tools(place, config, config.mcp, http.connections))
        elif config.sql is not None:
            fixed[config.name] = load_sql(place, config, config.sql, http.connections.addresses)
        else:
            fixed[config.name] = load_tool(place, config)
    return Catalogue(fixed, declaring)


def load_tool(place: int | str, config: ToolConfig) -> Tool:
    """A tool that the configuration declares, with what its arguments must be; raises ProgramError."""
    field = f"spec.tools[{place}]"
    asked = _reconcile(field, config)
    if config.python is not None:
        function = python_function(f"{field}.python", config.python)
        declaration = ToolDeclaration(
            name=config.name,
            description=config.description or function.description,
            parameters=function.schema,
        )
        return Tool(
            config=config,
            declaration=declaration,
            problem_of=function.problem_of,
            function=function,
            reconcile=asked,
        )
    declaration = ToolDeclaration(
        name=config.name,
        description=config.description,
        parameters=config.parameters or NO_ARGUMENTS,
    )
    try:
        problem_of = schema_check(declaration.parameters)
    except SchemaError as problem:
        message = f"no JSON Schema: {problem.json_path}: {problem.message}"
        raise ProgramError(f"{field}.parameters", message) from problem
    return Tool(config=config, declaration=declaration, problem_of=problem_of, reconcile=asked)


def load_sql(place: int, config: ToolConfig, asked: SqlQuery, addresses: AddressCheck) -> Tool:
    """A tool in SQL, whose arguments `parameters` must declare; raises ProgramError."""
    tool = load_tool(place, config)
    field = f"spec.tools[{place}].sql.query"
    try:
        statement = read_statement(asked.query)
    except ValueError as problem:
        raise ProgramError(field, str(problem)) from problem
    declared = tool.declaration.parameters.get("properties", {})
    if undeclared := sorted(statement.names - set(declared)):
        message = f"the argument :{undeclared[0]} is not in parameters.properties; declare it there"
        raise ProgramError(field, message)
    return replace(tool, make=SqlTool(config, asked, statement, addresses).make)


def _validator(place: int, config: ValidatorConfig) -> Tool:
    name = target_of(config)
    asked = None
    if config.python is not None:
        asked = checking_function(f"spec.validators[{place}].python", config.python)
    return Tool(
        config=ToolConfig(
            name=name,
            http=config.http,
            python=config.python,
            effect=Effect.PURE,
            timeout_seconds=config.timeout_seconds,
            max_result_kib=MOST_VERDICT_KIB,
        ),
        declaration=ToolDeclaration(name=name, description="", parameters=NO_ARGUMENTS),
        problem_of=lambda _: None,
        function=asked,
    )


def _mcp_tools(place: int, config: ToolConfig, server: McpServer, connections: Connections) -> Declaring:
    # Imported here: the MCP library takes a second and 35 MiB, which workers without such tools need not.
    from flotilla_runtime.agent.tools.mcp_tool import McpTools

    return McpTools(config, server, connections, _reconcile(f"spec.tools[{place}]", config))


def _reconcile(field: str, config: ToolConfig) -> Callable[..., Any] | None:
    """The function that knows whether a call of the tool happened."""
    reconcile = config.reconcile.python if config.reconcile is not None else None
    return None if reconcile is None else referred(f"{field}.reconcile.python", reconcile)


def entrypoint(reference: str) -> AgentMain:
    """The agent that a fleet's image brings."""
    found = referred(ENTRYPOINT, reference)
    if not inspect.iscoroutinefunction(found):
        raise ProgramError(ENTRYPOINT, f"{reference} is no coroutine: write `async def agent(ctx, task)`")
    try:
        inspect.signature(found).bind(None, None)
    except TypeError as problem:
        raise ProgramError(ENTRYPOINT, f"{reference} does not take (ctx, task): {problem}") from problem
    return found  # type: ignore[no-any-return]
