"""Checks of what servers declare of their tools. Pure."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from jsonschema.exceptions import SchemaError

from flotilla_runtime.agent.models import ToolDeclaration
from flotilla_runtime.agent.tools.schemas import Steps, dialect_of, without_patterns
from flotilla_runtime.agent.tools.values import Tool, schema_check
from flotilla_runtime.contract import ToolConfig, ToolTrouble

NO_ARGUMENTS: Final[Mapping[str, Any]] = {"type": "object", "properties": {}}


class DeclarationError(Exception):
    """A declaration of a server cannot be a tool. The message says why, and what to do."""

    def __init__(self, trouble: ToolTrouble, problem: str) -> None:
        super().__init__(problem)
        self.trouble = trouble
        self.problem = problem


def declared_check(schema: Mapping[str, Any]) -> Callable[[Mapping[str, Any]], str | None]:
    """Checks arguments against a schema that a server declared. Raises DeclarationError."""
    steps = Steps()
    try:
        check = schema_check(without_patterns(schema), steps.counted(dialect_of(schema)))
    except SchemaError as problem:
        message = f"declares arguments that are no JSON Schema: {problem.json_path}: {problem.message[:200]}"
        raise DeclarationError(ToolTrouble.UNUSABLE, message) from None
    except RecursionError:
        raise DeclarationError(ToolTrouble.UNUSABLE, "declares arguments without end") from None

    def problem_of(arguments: Mapping[str, Any]) -> str | None:
        steps.begin()
        try:
            return check(arguments)
        except Exception:  # it takes too long, or a reference leads to what is no schema
            return None  # the server says what is wrong with the arguments

    return problem_of


def unavailable(config: ToolConfig, problem: str) -> Tool:
    """A tool that cannot be called now. The model is told why, in its description and for each call."""
    said = f"not available now: {problem}"
    declaration = ToolDeclaration(
        name=config.name, description=f"({said}) {config.description}".strip(), parameters=NO_ARGUMENTS
    )
    return Tool(config=config, declaration=declaration, problem_of=lambda _: said)
