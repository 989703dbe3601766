"""The texts that `kubectl explain` and a refusal show: whole sentences with units, values and defaults.

Here: what a rule can check. Whether a status field is written is in test_status_that_is_written.py, whether a
spec field is read in test_fields_that_act.py.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from flotilla_operator.api.base import VALIDATIONS
from flotilla_operator.api.kinds import KINDS, Kind
from flotilla_operator.api.schema import NOT_REPORTED, NOT_SUPPORTED, not_reported, not_yet, structural
from tests.support.schemas import fields

by_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
# The last words of a numeric field's name, and the word for its unit in the description.
UNITS = {
    "Seconds": "seconds",
    "Milliseconds": "milliseconds",
    "GiB": "GiB",
    "MiB": "MiB",
    "Percent": "percent",
    "Tokens": "tokens",
    "Bytes": "bytes",
    "USD": "USD",
}
LISTS = {"items", "additionalProperties"}  # absent and empty are the same
OPTIONS = re.compile(r"spec\.(.+\.)?pod|spec\.traffic")  # absent and empty are the same
ONE_OF = ".env[].valueFrom"  # a choice of core/v1, where absence means nothing


def described(kind: Kind) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, field in fields(kind):
        if not path.endswith("[]"):
            yield path, field


@pytest.mark.holds("api/README.md", "The pages explain every field: what it does, its unit and its default")
@by_kind
def test_every_field_is_described_in_sentences(kind: Kind) -> None:
    texts = {path: field.get("description", "") for path, field in described(kind)}
    assert [path for path, text in texts.items() if not re.fullmatch(r"[A-Z`].*\.", text)] == []
    assert [path for path, text in texts.items() if "  " in text or "\n" in text] == []


@by_kind
def test_the_kind_is_described_in_one_line_of_sentences(kind: Kind) -> None:
    text = structural(kind)["description"]
    assert re.fullmatch(r"An? .*\.", text)
    assert "status.url" in text


@by_kind
def test_what_is_refused_begins_so_with_all_below_it_and_nothing_else_does(kind: Kind) -> None:
    refused = {field.path for field in not_yet(kind) if not field.values}
    below = tuple(f"{path}{end}" for path in refused for end in (".", "[]"))
    begins = {path for path, field in described(kind) if field["description"].startswith(NOT_SUPPORTED)}
    assert begins == {path for path, _ in described(kind) if path in refused or path.startswith(below)}


@by_kind
def test_what_is_not_reported_begins_so_and_nothing_else_does(kind: Kind) -> None:
    begins = [path for path, field in described(kind) if field["description"].startswith(NOT_REPORTED)]
    assert begins == [field.path for field in not_reported(kind)]


@by_kind
def test_values_that_are_refused_are_named_in_the_description(kind: Kind) -> None:
    texts = {path: field["description"] for path, field in described(kind)}
    for refused in not_yet(kind):
        later = texts[refused.path].partition("Not yet supported: ")[2]
        assert [value for value in refused.values if value not in later] == [], refused.path


@pytest.mark.holds("api/README.md", "The pages explain every field: what it does, its unit and its default")
@by_kind
def test_a_number_with_a_unit_in_its_name_has_it_in_its_description(kind: Kind) -> None:
    for path, field in described(kind):
        if field.get("type") not in ("integer", "number"):
            continue
        for end, unit in UNITS.items():
            if path.endswith(end) and not path.endswith("maxTokens"):
                assert unit in field["description"], path


@pytest.mark.holds("api/README.md", "The pages explain every field: what it does, its unit and its default")
@by_kind
def test_every_value_of_an_enum_is_named(kind: Kind) -> None:
    for path, field in described(kind):
        words = re.findall(r"\w+", field["description"])
        assert [value for value in field.get("enum", ()) if value not in words] == [], path


@pytest.mark.holds("api/README.md", "The pages explain every field: what it does, its unit and its default")
@by_kind
def test_a_default_ends_the_description_and_else_it_says_what_absence_means(kind: Kind) -> None:
    required = {f"{path}.{name}" for path, field in fields(kind) for name in field.get("required", ())}
    unsaid = []
    for path, field in described(kind):
        text, default = field["description"], field.get("default")
        if not path.startswith("spec.") or path in required or ONE_OF in path:
            continue
        if default is not None and not isinstance(default, dict):
            shown = default if isinstance(default, str) else json.dumps(default)
            assert text.endswith(f" Default: {shown}."), path
        elif default is None and not text.startswith(NOT_SUPPORTED) and not LISTS & field.keys():
            unsaid += [] if re.search(r"Absent[:,]|[Rr]equired", text) else [path]
    assert [path for path in unsaid if not OPTIONS.fullmatch(path)] == []


def messages(schema: dict[str, Any]) -> Iterator[str]:
    yield from (rule["message"] for rule in schema.get(VALIDATIONS, ()))


@pytest.mark.holds(
    "api/not-yet.md",
    "An object that sets a listed field of the spec is refused, and the message says what to do",
)
@by_kind
def test_a_refusal_names_a_field_that_there_is_and_says_what_to_do(kind: Kind) -> None:
    root = structural(kind)
    paths = {path for path, _ in fields(kind)} | {"metadata.name"}
    found = [(root, message) for message in messages(root)]
    found += [(field, message) for _, field in fields(kind) for message in messages(field)]
    assert len(found) > 5
    for field, message in found:
        assert re.search(r"; | must be (hf|pvc)://", message), message
        assert not message.endswith("."), message
        if field.get("type") == "string":
            continue  # the API server names it
        named = re.findall(r"(?:spec|metadata)\.[A-Za-z0-9.\[\]]*[A-Za-z0-9\]]", message)
        assert named, message
        assert set(named) <= paths, message
