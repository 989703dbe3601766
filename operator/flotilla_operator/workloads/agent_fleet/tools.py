"""The tools of a fleet as its workers read them: their configuration, and the secrets with their headers.

Headers are mounted as files and never stand in a variable. A new value is read without a restart.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from flotilla_operator.api.agent_fleet import AgentFleetSpec
from flotilla_operator.api.fleet_agent import HttpCall, Reconcile, Tool
from flotilla_operator.objects.resources import Manifest
from flotilla_runtime import contract


@dataclass(frozen=True, slots=True, kw_only=True)
class CalledUrl:
    """A URL that a tool calls. `field` names it in messages; `volume` and `directory` are of its headers."""

    field: str
    call: HttpCall
    volume: str
    directory: str


def called_urls(spec: AgentFleetSpec) -> Iterator[CalledUrl]:
    """Every URL that the tools of a fleet call: their own, and those that know whether a call happened."""
    for position, tool in enumerate(spec.tools):
        field, volume = f"spec.tools[{tool.name}]", f"flotilla-tool-{position}"
        if tool.http is not None:
            yield CalledUrl(
                field=f"{field}.http", call=tool.http, volume=volume, directory=_headers(tool.name)
            )
        if tool.reconcile is not None and tool.reconcile.http is not None:
            yield CalledUrl(
                field=f"{field}.reconcile.http",
                call=tool.reconcile.http,
                volume=f"{volume}-reconcile",
                directory=_headers(tool.name, of_reconcile=True),
            )


def tool_configs(spec: AgentFleetSpec) -> tuple[contract.ToolConfig, ...]:
    """The tools, in the order of the spec."""
    return tuple(_tool(tool) for tool in spec.tools)


def header_volumes(spec: AgentFleetSpec) -> tuple[list[Manifest], list[Manifest]]:
    """The volumes and mounts of the secrets with the tools' headers."""
    volumes: list[Manifest] = []
    mounts: list[Manifest] = []
    for called in called_urls(spec):
        if (ref := called.call.headers_secret_ref) is not None:
            volumes.append({"name": called.volume, "secret": {"secretName": ref.name}})
            mounts.append({"name": called.volume, "mountPath": called.directory, "readOnly": True})
    return volumes, mounts


def _tool(tool: Tool) -> contract.ToolConfig:
    return contract.ToolConfig(
        name=tool.name,
        description=tool.description or "",
        parameters=tool.parameters,
        http=None if tool.http is None else _endpoint(tool.http, _headers(tool.name)),
        python=tool.python,
        effect=contract.Effect(tool.effect),
        approval=contract.Approval(tool.approval),
        reconcile=None if tool.reconcile is None else _reconcile(tool.name, tool.reconcile),
        timeout_seconds=tool.timeout_seconds,
        max_result_kib=tool.max_result_kib,
    )


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
