"""Model and schema say the same: each takes what the other does.

The objects are made at random from the generated schema, CEL rules aside: those are judged by a real API
server in test_refused.py.
"""

import functools
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from flotilla_operator.api.kinds import KINDS, Kind
from flotilla_operator.api.model_replica_set import ModelReplicaSet
from flotilla_operator.api.schema import JsonSchema, structural
from flotilla_operator.controllers.ignored_fields import ignored_fields
from tests.builders.api_objects import changed, smallest

SAMPLES = 25
LONGEST_TEXT = 24
by_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)


def values(schema: JsonSchema) -> st.SearchStrategy[Any]:
    """Values that a structural schema takes."""
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if schema.get("x-kubernetes-int-or-string"):
        return st.sampled_from([0, 4, "500m", "1.5", "10Gi", "1e3"])
    kind = schema["type"]
    if kind == "object":
        return objects(schema)
    if kind == "array":
        return lists(schema)
    if kind == "string":
        return texts(schema)
    return numbers(schema)


def texts(schema: JsonSchema) -> st.SearchStrategy[str]:
    if schema.get("format") == "date-time":
        return st.just("2026-01-02T03:04:05Z")
    if "pattern" in schema:
        found = st.from_regex(schema["pattern"].replace("$", r"\Z"), alphabet=st.characters(codec="ascii"))
        return found.filter(lambda text: len(text) <= schema["maxLength"])
    alphabet = st.characters(codec="utf-8", exclude_categories=("Cs", "Cc"))
    return st.text(
        alphabet, min_size=schema.get("minLength", 0), max_size=min(LONGEST_TEXT, schema["maxLength"])
    )


def numbers(schema: JsonSchema) -> st.SearchStrategy[Any]:
    low, high = schema.get("minimum"), schema.get("maximum")
    if schema["type"] == "integer":
        return st.integers(min_value=low, max_value=high)
    if schema["type"] == "boolean":
        return st.booleans()
    return st.floats(
        min_value=low,
        max_value=high,
        exclude_min=schema.get("exclusiveMinimum", False),
        exclude_max=schema.get("exclusiveMaximum", False),
        allow_nan=False,
        allow_infinity=False,
    )


def lists(schema: JsonSchema) -> st.SearchStrategy[list[Any]]:
    keys = schema.get("x-kubernetes-list-map-keys")
    unique = (lambda item: tuple(item[key] for key in keys)) if keys else None
    return st.lists(values(schema["items"]), min_size=schema.get("minItems", 0), max_size=2, unique_by=unique)


def objects(schema: JsonSchema) -> st.SearchStrategy[dict[str, Any]]:
    if isinstance(schema.get("additionalProperties"), dict):
        keys = st.text("abcdefgh./", min_size=1, max_size=12)
        return st.dictionaries(keys, values(schema["additionalProperties"]), max_size=2)
    fields = {name: values(field) for name, field in schema.get("properties", {}).items()}
    required = {name: fields[name] for name in schema.get("required", ())}
    return st.fixed_dictionaries(
        required, optional={name: value for name, value in fields.items() if name not in required}
    )


@functools.cache
def specs_and_statuses(kind: Kind) -> st.SearchStrategy[tuple[Any, Any]]:
    """Built once a kind, since compiling the patterns costs more than drawing from them."""
    parts = structural(kind)["properties"]
    return st.tuples(values(parts["spec"]), values(parts["status"]))


def in_json_schema(schema: Any) -> Any:
    """The schema in the dialect that `jsonschema` checks, where exclusive bounds are numbers."""
    if isinstance(schema, list):
        return [in_json_schema(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    out = {key: in_json_schema(value) for key, value in schema.items()}
    for exclusive, limit in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if out.get(exclusive) is True:
            out[exclusive] = out.pop(limit)
    return out


@functools.cache
def validator(kind: Kind) -> jsonschema.Draft7Validator:
    return jsonschema.Draft7Validator(in_json_schema(structural(kind)))


@by_kind
@given(data=st.data())
@settings(
    max_examples=SAMPLES,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),  # shrinking such large objects takes minutes
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
def test_what_the_schema_takes_is_read_and_written_back_whole(kind: Kind, data: st.DataObject) -> None:
    spec, status = data.draw(specs_and_statuses(kind))
    manifest = {
        "apiVersion": "flotilla.dev/v1alpha1",
        "kind": kind.name,
        "metadata": {"name": "any"},
        "spec": spec,
        "status": status,
    }
    read = kind.model.model_validate(manifest)
    written = read.manifest()
    validator(kind).validate(written)
    assert kind.model.model_validate(written) == read
    assert ignored_fields(kind.model, manifest, "") == []


def test_a_field_of_a_newer_release_is_read_past() -> None:
    newer = changed(
        smallest("ModelReplicaSet"),
        spec__engine={"maxModelLen": 64, "warmUp": {"prompts": 3}},
        spec__pod={"imagePullSecrets": [{"name": "a", "provider": "b"}]},
        spec__budget=1,
    )
    assert ModelReplicaSet.model_validate(newer).spec.engine.max_model_len == 64


@pytest.mark.holds("api/README.md", "Every bound and rule of the API has an object that is refused by it")
@pytest.mark.parametrize(
    ("kind", "path", "value"),
    [
        pytest.param("ModelReplicaSet", "spec__parallelism__tensor", 17, id="more than 16 accelerators"),
        pytest.param("ModelReplicaSet", "spec__router__loadFactor", 1, id="an exclusive bound itself"),
        pytest.param("ModelReplicaSet", "spec__model__task", "Translate", id="a value the enum lacks"),
        pytest.param("VectorIndex", "spec__embedding__dimension", 1, id="a vector of one number"),
        pytest.param("AgentFleet", "spec__models", [], id="no model"),
    ],
)
def test_a_bound_holds_in_the_model_as_in_the_schema(kind: str, path: str, value: Any) -> None:
    (described,) = [k for k in KINDS if k.name == kind]
    manifest = changed(smallest(kind), **{path: value})
    with pytest.raises(ValueError, match=path.split("__")[-1]):
        described.model.model_validate(manifest)
    with pytest.raises(jsonschema.ValidationError):
        validator(described).validate(manifest)
