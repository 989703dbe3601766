"""JSON of models: read strictly, and its end found as soon as it is there."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flotilla_runtime.agent.models.json_text import ObjectEnd, read_json

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(alphabet=st.characters(exclude_categories=["Cs"]) | st.sampled_from('"\\{}[]')),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=15,
)
objects = st.dictionaries(st.text(alphabet='ab"\\{}[]é'), values, max_size=4)


@given(objects, st.booleans(), st.data())
def test_the_end_of_an_object_is_its_last_bracket_however_it_arrives(
    value: dict[str, Any], ascii_only: bool, data: st.DataObject
) -> None:
    text = " " + json.dumps(value, ensure_ascii=ascii_only, indent=data.draw(st.sampled_from([None, 1])))
    end = ObjectEnd()
    place = 0
    while place < len(text):
        size = data.draw(st.integers(1, 5))
        end.feed(text[place : place + size])
        place += size
        assert end.is_reached == (place >= len(text))
    assert not end.is_passed
    end.feed("\n ")
    assert not end.is_passed
    end.feed("{")
    assert end.is_passed


@given(values)
def test_what_python_writes_is_read(value: Any) -> None:
    assert read_json(json.dumps(value)) == value


@pytest.mark.parametrize(
    "text",
    [
        pytest.param('{"a": 1, "a": 2}', id="a key twice"),
        pytest.param('{"a": NaN}', id="no number"),
        pytest.param("[1e999]", id="a number that is infinite as a float"),
        pytest.param("[-Infinity]", id="infinity by name"),
        pytest.param("[" * 300 + "]" * 300, id="nested too deeply"),
        pytest.param("1" * 5000, id="an endless number"),
        pytest.param("{} {}", id="two values"),
        pytest.param('"\\ud800"', id="half a character"),
        pytest.param("", id="nothing"),
        pytest.param("\ud800", id="half a character, unescaped"),
        pytest.param("{'a': 1}", id="Python's quotes"),
    ],
)
def test_what_others_may_read_differently_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        read_json(text)


def test_the_end_of_long_arguments_is_found_in_linear_time() -> None:
    """A megabyte of closing brackets in a string, a few bytes at a time: a parse at each would take hours."""
    end = ObjectEnd()
    for piece in ['{"a": "', *["}}}}"] * 250_000, '"}']:
        assert not end.is_reached
        end.feed(piece)
    assert end.is_reached
