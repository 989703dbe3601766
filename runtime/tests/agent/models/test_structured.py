"""Answers against their JSON Schema."""

from typing import Any

import pytest

from flotilla_runtime.agent.models import ModelProblemReason, structured_value
from flotilla_runtime.agent.models.structured import schema_problem

Why = ModelProblemReason
CITY: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "inhabitants": {"$ref": "#/$defs/count"}},
    "required": ["city"],
    "additionalProperties": False,
    "$defs": {"count": {"type": "integer", "minimum": 0}},
}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        pytest.param('{"city": "Oslo"}', {"city": "Oslo"}, id="what must be there"),
        pytest.param(' {"city":"Oslo","inhabitants":7}\n', {"city": "Oslo", "inhabitants": 7}, id="all"),
    ],
)
def test_an_answer_that_fits_has_a_value(text: str, value: Any) -> None:
    found = structured_value(CITY, text)
    assert (found.value, found.problem) == (value, None)


@pytest.mark.parametrize(
    ("text", "reason", "words"),
    [
        pytest.param("Oslo", Why.NOT_JSON, "no JSON", id="prose"),
        pytest.param('```json\n{"city": "Oslo"}\n```', Why.NOT_JSON, "no JSON", id="JSON in a fence"),
        pytest.param("{}", Why.SCHEMA_VIOLATED, "'city' is a required property", id="a part is missing"),
        pytest.param('{"city": 1}', Why.SCHEMA_VIOLATED, "$.city: 1 is not of type", id="a wrong type"),
        pytest.param(
            '{"city": "a", "inhabitants": -1}', Why.SCHEMA_VIOLATED, "$.inhabitants", id="by a reference"
        ),
        pytest.param('{"city": "a", "x": 1}', Why.SCHEMA_VIOLATED, "'x' was unexpected", id="too much"),
        pytest.param('{"city": "' + "x" * 9000 + '", "x": 1}', Why.SCHEMA_VIOLATED, "x", id="a long one"),
    ],
)
def test_an_answer_that_does_not_fit_is_told_with_place_and_reason(
    text: str, reason: Why, words: str
) -> None:
    problem = structured_value(CITY, text).problem
    assert problem is not None
    assert problem.reason is reason
    assert words in problem.message
    assert len(problem.message) < 500


@pytest.mark.parametrize(
    "schema",
    [
        pytest.param({"type": "text"}, id="a type that is none"),
        pytest.param({"properties": []}, id="properties that are a list"),
        pytest.param({"pattern": "("}, id="a pattern that is none"),
    ],
)
def test_a_schema_that_is_none_is_told_before_a_call(schema: dict[str, Any]) -> None:
    problem = schema_problem(schema)
    assert problem is not None
    assert problem.reason is Why.BAD_SCHEMA


@pytest.mark.parametrize(
    "reference",
    [
        pytest.param("http://127.0.0.1:9/schema", id="an address"),
        pytest.param("file:///etc/passwd", id="a file"),
        pytest.param("#/$defs/nobody", id="nothing"),
        pytest.param("#", id="itself without end"),
    ],
)
def test_a_reference_out_of_the_schema_is_never_followed(reference: str) -> None:
    schema = {"$ref": reference} if reference != "#" else {"allOf": [{"$ref": "#"}]}
    problem = structured_value(schema, "{}").problem
    assert problem is not None
    assert problem.reason is Why.BAD_SCHEMA
