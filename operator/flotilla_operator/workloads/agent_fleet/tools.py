"""The tools of a fleet as its workers read them: their configuration, and their secrets.

Headers and URLs of databases are mounted as files and never stand in a variable. A new value is read without
a restart.
"""

from collections.abc import Iterator

from flotilla_operator.api.agent_fleet import AgentFleetSpec
from flotilla_operator.api.fleet_agent import HttpCall, HttpTool, Reconcile, Tool
from flotilla_operator.objects.resources import Manifest
from flotilla_operator.workloads.agent_fleet.delegates import CalledUrl, checking_urls
from flotilla_runtime import contract

DATABASE_FILE = "url"


def called_urls(spec: AgentFleetSpec) -> Iterator[CalledUrl]:
    """Every URL that the tools of a fleet call: their own, those that know whether a call happened, and those
    of its validators.
    """
    for position, tool in enumerate(spec.tools):
        field, volume = f"spec.tools[{tool.name}]", f"flotilla-tool-{position}"
        if tool.http is not None:
            yield CalledUrl(
                field=f"{field}.http",
                url=_server(tool.http),
                headers=tool.http.headers_secret_ref,
                volume=volume,
                directory=_headers(tool.name),
            )
        if tool.mcp is not None:
            yield CalledUrl(
                field=f"{field}.mcp",
                url=tool.mcp.url,
                headers=tool.mcp.headers_secret_ref,
                volume=volume,
                directory=_headers(tool.name),
            )
        if tool.reconcile is not None and tool.reconcile.http is not None:
            yield CalledUrl(
                field=f"{field}.reconcile.http",
                url=tool.reconcile.http.url,
                headers=tool.reconcile.http.headers_secret_ref,
                volume=f"{volume}-reconcile",
                directory=_headers(tool.name, of_reconcile=True),
            )
    yield from checking_urls(spec)


def tool_configs(spec: AgentFleetSpec) -> tuple[contract.ToolConfig, ...]:
    """The tools, in the order of the spec."""
    return tuple(_tool(tool) for tool in spec.tools)


def function_configs(spec: AgentFleetSpec) -> tuple[contract.ToolConfig, ...]:
    """The tools with a function of the fleet's image: their own, or that of their `reconcile`."""
    return tuple(
        config
        for config in tool_configs(spec)
        if config.python is not None or (config.reconcile is not None and config.reconcile.python is not None)
    )


def has_executors(spec: AgentFleetSpec) -> bool:
    """Whether tool executors run functions of this fleet."""
    checks = any(one.python is not None for one in spec.validators)
    return spec.tool_executors is not None and (checks or bool(function_configs(spec)))


def secret_volumes(spec: AgentFleetSpec) -> tuple[list[Manifest], list[Manifest]]:
    """The volumes and mounts of the secrets with the tools' headers, and with the URLs of their databases."""
    volumes: list[Manifest] = []
    mounts: list[Manifest] = []
    for called in called_urls(spec):
        if called.headers is not None:
            volumes.append({"name": called.volume, "secret": {"secretName": called.headers.name}})
            mounts.append({"name": called.volume, "mountPath": called.directory, "readOnly": True})
    for position, tool in enumerate(spec.tools):
        if tool.sql is not None:
            ref, name = tool.sql.url_secret_ref, f"flotilla-tool-{position}"
            items = [{"key": ref.key, "path": DATABASE_FILE}]
            volumes.append({"name": name, "secret": {"secretName": ref.name, "items": items}})
            mounts.append({"name": name, "mountPath": _database(tool.name), "readOnly": True})
    return volumes, mounts


def _tool(tool: Tool) -> contract.ToolConfig:
    return contract.ToolConfig(
        name=tool.name,
        description=tool.description or "",
        parameters=tool.parameters,
        http=_http(tool),
        openapi=_openapi(tool),
        mcp=_mcp(tool),
        sql=_sql(tool),
        python=tool.python,
        effect=contract.Effect(tool.effect),
        approval=contract.Approval(tool.approval),
        reconcile=None if tool.reconcile is None else _reconcile(tool.name, tool.reconcile),
        timeout_seconds=tool.timeout_seconds,
        max_result_kib=tool.max_result_kib,
        rate_limit=tool.rate_limit,
    )


def _server(http: HttpTool) -> str:
    """The URL that decides where headers may be sent: a document may name no host but its own."""
    if http.url is not None:
        return http.url
    assert http.openapi is not None
    return http.openapi.url


def _http(tool: Tool) -> contract.HttpEndpoint | None:
    http = tool.http
    if http is None or http.url is None or http.openapi is not None:
        return None
    return contract.HttpEndpoint(
        url=http.url,
        method=contract.HttpMethod(http.method),
        headers_directory=None if http.headers_secret_ref is None else _headers(tool.name),
    )


def _openapi(tool: Tool) -> contract.OpenApiOperation | None:
    http = tool.http
    if http is None or http.openapi is None:
        return None
    return contract.OpenApiOperation(
        document_url=http.openapi.url,
        operation_id=http.openapi.operation_id,
        url=http.url,
        headers_directory=None if http.headers_secret_ref is None else _headers(tool.name),
    )


def _mcp(tool: Tool) -> contract.McpServer | None:
    mcp = tool.mcp
    if mcp is None:
        return None
    return contract.McpServer(
        url=mcp.url,
        headers_directory=None if mcp.headers_secret_ref is None else _headers(tool.name),
        tools=tuple(
            contract.McpToolChoice(
                name=one.name, effect=None if one.effect is None else contract.Effect(one.effect)
            )
            for one in mcp.tools
        ),
    )


def _sql(tool: Tool) -> contract.SqlQuery | None:
    sql = tool.sql
    if sql is None:
        return None
    path = f"{_database(tool.name)}/{DATABASE_FILE}"
    return contract.SqlQuery(url_path=path, query=sql.query, max_rows=sql.max_rows)


def _database(tool: str) -> str:
    return f"{contract.TOOLS_DIRECTORY}/{tool}/database"


def _reconcile(tool: str, reconcile: Reconcile) -> contract.Reconcile:
    directory = _headers(tool, of_reconcile=True)
    http = None if reconcile.http is None else _endpoint(reconcile.http, directory)
    return contract.Reconcile(http=http, python=reconcile.python)


def _endpoint(call: HttpCall, directory: str) -> contract.HttpEndpoint:
    return contract.HttpEndpoint(
        url=call.url,
        method=contract.HttpMethod(call.method),
        headers_directory=None if call.headers_secret_ref is None else directory,
    )


def _headers(tool: str, *, of_reconcile: bool = False) -> str:
    return f"{contract.TOOLS_DIRECTORY}/{tool}/{'reconcile-headers' if of_reconcile else 'headers'}"
