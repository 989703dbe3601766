"""Loads the functions of the fleet's image that an executor runs."""

from collections.abc import Mapping, Sequence
from typing import Any

from flotilla_runtime.agent.models import ToolDeclaration
from flotilla_runtime.agent.tools.declarations import NO_ARGUMENTS
from flotilla_runtime.agent.tools.references import referred
from flotilla_runtime.agent.tools.values import Tool
from flotilla_runtime.agent.worker.loading import load_tool, load_validators
from flotilla_runtime.contract import ToolConfig, ValidatorConfig


def load_functions(configs: Sequence[ToolConfig]) -> dict[str, Tool]:
    """The tools in Python, and those of which a function knows whether a call happened, by their names.

    Raises ProgramError.
    """
    return {config.name: _loaded(config) for config in configs}


def load_checks(configs: Sequence[ValidatorConfig]) -> dict[str, Tool]:
    """The validators in Python, by the names under which workers call them; raises ProgramError."""
    return {name: tool for name, tool in load_validators(configs).items() if tool.function is not None}


def _loaded(config: ToolConfig) -> Tool:
    if config.python is not None:
        return load_tool(config.name, config)
    reconcile = config.reconcile.python if config.reconcile is not None else None
    field = f"spec.tools[{config.name}].reconcile.python"
    called = dict.fromkeys(("http", "openapi", "mcp", "sql"))  # what the workers call themselves
    return Tool(
        config=config.model_copy(update=called),
        declaration=ToolDeclaration(name=config.name, description="", parameters=NO_ARGUMENTS),
        problem_of=_no_tool_of_ours,
        reconcile=None if reconcile is None else referred(field, reconcile),
    )


def _no_tool_of_ours(_: Mapping[str, Any]) -> str:
    return "an executor calls functions alone"
