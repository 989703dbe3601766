"""Checks an answer against the JSON Schema that was asked for. Pure.

A schema's references may lead only into the schema itself: nothing is fetched.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jsonschema.exceptions import SchemaError, best_match
from jsonschema.protocols import Validator
from jsonschema.validators import Draft202012Validator, validator_for
from referencing import Registry
from referencing.exceptions import Unresolvable

from flotilla_runtime.agent.models.json_text import read_json
from flotilla_runtime.agent.models.values import ModelProblem, ModelProblemReason, shown


@dataclass(frozen=True, slots=True, kw_only=True)
class StructuredValue:
    """The value of an answer, or what is wrong with it."""

    value: Any = None
    problem: ModelProblem | None = None


def schema_problem(schema: Mapping[str, Any]) -> ModelProblem | None:
    """The problem with the schema itself, None for none."""
    kind = validator_for(schema, default=Draft202012Validator)
    try:
        kind.check_schema(dict(schema))
    except SchemaError as problem:
        return _bad_schema(f"{problem.json_path}: {problem.message}")
    except RecursionError:
        return _bad_schema("it is nested too deeply")
    return None


def structured_value(schema: Mapping[str, Any], text: str) -> StructuredValue:
    """The value of an answer that is to fit a schema."""
    try:
        value = read_json(text)
    except ValueError as problem:
        message = f"the answer is no JSON: {shown(str(problem))}"
        return StructuredValue(problem=ModelProblem(reason=ModelProblemReason.NOT_JSON, message=message))
    try:
        wrong = best_match(_validator(schema).iter_errors(value))
    except (Unresolvable, RecursionError) as problem:
        return StructuredValue(problem=_bad_schema(repr(problem)))
    if wrong is None:
        return StructuredValue(value=value)
    message = f"{wrong.json_path}: {shown(wrong.message)}"
    return StructuredValue(problem=ModelProblem(reason=ModelProblemReason.SCHEMA_VIOLATED, message=message))


def _validator(schema: Mapping[str, Any]) -> Validator:
    kind = validator_for(schema, default=Draft202012Validator)
    return kind(dict(schema), registry=Registry())


def _bad_schema(problem: str) -> ModelProblem:
    message = f"the schema for the answer is no valid JSON Schema: {shown(problem)}"
    return ModelProblem(reason=ModelProblemReason.BAD_SCHEMA, message=message)
