"""A tool as an agent and its model know it."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from jsonschema.exceptions import best_match
from jsonschema.protocols import Validator
from jsonschema.validators import Draft202012Validator, validator_for
from referencing import Registry

from flotilla_runtime.agent.models import ToolDeclaration
from flotilla_runtime.agent.models.values import shown
from flotilla_runtime.agent.protocols import Call, Reply
from flotilla_runtime.agent.tools.operations import Operation
from flotilla_runtime.agent.tools.python_tool import PythonFunction
from flotilla_runtime.contract import ToolConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A tool: its configuration, what the model is told, and what is wrong with arguments.

    `function` is that of a tool in Python, `operation` that of an OpenAPI document. `make` makes the calls of
    a tool for a task, where neither is set. `reconcile` is a function that knows whether a call happened.
    `entry` is the entry of the spec that a tool of a server stands for; empty where the names are the same.
    """

    config: ToolConfig
    declaration: ToolDeclaration
    problem_of: Callable[[Mapping[str, Any]], str | None]
    function: PythonFunction | None = None
    operation: Operation | None = None
    make: Callable[[Call, str], Awaitable[Reply]] | None = None
    reconcile: Callable[..., Any] | None = None
    entry: str = ""

    @property
    def entry_name(self) -> str:
        """The name of the entry of the spec that it stands for."""
        return self.entry or self.config.name


def schema_check(
    parameters: Mapping[str, Any], kind: type[Validator] | None = None
) -> Callable[[Mapping[str, Any]], str | None]:
    """Checks arguments against a JSON Schema, whose references lead only into itself.

    Absent `kind`: that of the dialect that it names. Raises jsonschema's SchemaError for what is no schema.
    """
    kind = kind or validator_for(parameters, default=Draft202012Validator)
    kind.check_schema(dict(parameters))
    validator = kind(parameters, registry=Registry())

    def problem_of(arguments: Mapping[str, Any]) -> str | None:
        wrong = best_match(validator.iter_errors(dict(arguments)))
        return None if wrong is None else f"{wrong.json_path}: {shown(wrong.message)}"

    return problem_of
