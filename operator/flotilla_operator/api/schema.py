"""From a model to the structural schema of its CRD.

pydantic's own JSON schema is refused by the API server: it refers to definitions, says "or null" and writes
exclusive bounds as numbers. Here references are inlined, an optional field is one that may be absent, and
what this release does not act on becomes a rule that refuses it. A nested model that may be left out has its
whole default spelled out, since the API server judges a default by the model's rules before it fills anything
in; empty lists and maps have none, since absent says the same.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from flotilla_operator.api.base import NOT_YET, NOT_YET_VALUES, VALIDATIONS
from flotilla_operator.api.kinds import CATEGORY, GROUP, VERSION, Column, Kind

JsonSchema = dict[str, Any]

EMPTY: Final[tuple[Any, ...]] = (None, [], {})
DROPPED: Final = frozenset({"title", "propertyNames", NOT_YET, NOT_YET_VALUES})


@dataclass(frozen=True, slots=True, kw_only=True)
class Unacted:
    """A field, or some values of a field, that this release refuses; `promise` is what they will do."""

    path: str
    values: tuple[str, ...]
    promise: str


def definition(kind: Kind) -> dict[str, Any]:
    """The CustomResourceDefinition of a kind."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "names": {
                "kind": kind.name,
                "listKind": f"{kind.name}List",
                "plural": kind.plural,
                "singular": kind.name.lower(),
                "shortNames": [kind.short_name],
                "categories": [CATEGORY],
            },
            "scope": "Namespaced",
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": structural(kind)},
                    "subresources": _subresources(kind),
                    "additionalPrinterColumns": [_column(column) for column in kind.columns],
                }
            ],
        },
    }


def structural(kind: Kind) -> JsonSchema:
    """The structural schema of a kind."""
    root = _inlined(kind)
    fields = root["properties"]
    schema: JsonSchema = {
        "description": root["description"],
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": _finished(fields["spec"], "spec", defaults=True),
            "status": _finished(fields["status"], "status", defaults=False),
        },
        VALIDATIONS: root[VALIDATIONS],
    }
    return schema


def not_yet(kind: Kind) -> list[Unacted]:
    """What of a kind's spec this release refuses, in the order of declaration."""
    return list(_unacted(_inlined(kind)["properties"]["spec"], "spec"))


def _inlined(kind: Kind) -> JsonSchema:
    raw = kind.model.model_json_schema(by_alias=True)
    inlined: JsonSchema = _without_references(raw, raw.get("$defs", {}))
    return inlined


def _without_references(schema: Any, definitions: Mapping[str, JsonSchema]) -> Any:
    """References replaced by what they refer to; what stands beside a reference wins."""
    if isinstance(schema, list):
        return [_without_references(item, definitions) for item in schema]
    if not isinstance(schema, dict):
        return schema
    here = {
        key: _without_references(value, definitions)
        for key, value in schema.items()
        if key not in ("$ref", "$defs")
    }
    if "$ref" not in schema:
        return here
    target = definitions[schema["$ref"].rsplit("/", 1)[1]]
    return _merged(_without_references(target, definitions), here)


def _merged(under: JsonSchema, over: JsonSchema) -> JsonSchema:
    """A field's own words win over those of the model it holds; the rules of both stand."""
    validations = [*under.get(VALIDATIONS, []), *over.get(VALIDATIONS, [])]
    return {**under, **over, **({VALIDATIONS: validations} if validations else {})}


def _without_null(schema: JsonSchema) -> JsonSchema:
    """`X or null` is X: null is absence, and a field that may be absent is one that is not required."""
    if "anyOf" not in schema or schema.get("x-kubernetes-int-or-string"):
        return schema
    (only,) = [choice for choice in schema["anyOf"] if choice.get("type") != "null"]
    return _without_null(_merged(only, {key: value for key, value in schema.items() if key != "anyOf"}))


def _finished(schema: JsonSchema, path: str, *, defaults: bool) -> JsonSchema:
    schema = _without_null(schema)
    out = {key: value for key, value in schema.items() if key not in DROPPED}
    if "const" in out:
        out["enum"] = [out.pop("const")]
    for exclusive, limit in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if exclusive in out:
            out[limit], out[exclusive] = out[exclusive], True
    default = _without_empty(out.pop("default", None))
    if defaults and default not in EMPTY:
        out["default"] = default
    if "description" in out:
        out["description"] = " ".join(out["description"].split())
    if "items" in out:
        out["items"] = _finished(out["items"], f"{path}[]", defaults=defaults)
    if isinstance(out.get("additionalProperties"), dict):
        out["additionalProperties"] = _finished(out["additionalProperties"], path, defaults=defaults)
    if "properties" in out:
        _finish_object(out, path, defaults=defaults)
    return out


def _finish_object(out: JsonSchema, path: str, *, defaults: bool) -> None:
    """In place: fields finished, refusals added to the rules."""
    fields: Mapping[str, JsonSchema] = out["properties"]
    refusals = [_refusal(name, f"{path}.{name}") for name, field in fields.items() if NOT_YET in field]
    validations = [*out.get(VALIDATIONS, []), *refusals]
    if validations:
        out[VALIDATIONS] = validations
    out["properties"] = {
        name: _finished(field, f"{path}.{name}", defaults=defaults) for name, field in fields.items()
    }


def _without_empty(default: Any) -> Any:
    """A default without the parts that say what absence says."""
    if not isinstance(default, dict):
        return default
    kept = {key: _without_empty(value) for key, value in default.items()}
    return {key: value for key, value in kept.items() if value not in EMPTY}


def _refusal(name: str, path: str) -> JsonSchema:
    return {
        "rule": f"!has(self.{name})",
        "message": f"{path} is not acted on by this release of Flotilla; remove it",
    }


def _unacted(schema: JsonSchema, path: str) -> Iterator[Unacted]:
    for name, marked in _without_null(schema).get("properties", {}).items():
        field = _without_null(marked)
        here = f"{path}.{name}"
        if NOT_YET in field:
            yield Unacted(path=here, values=(), promise=field[NOT_YET])
            continue
        for later in field.get(NOT_YET_VALUES, ()):
            yield Unacted(path=here, values=tuple(later["values"]), promise=later["promise"])
        yield from _unacted(field, here)
        if "items" in field:
            yield from _unacted(field["items"], f"{here}[]")


def _subresources(kind: Kind) -> dict[str, Any]:
    if kind.scale is None:
        return {"status": {}}
    return {
        "status": {},
        "scale": {
            "specReplicasPath": kind.scale.spec_replicas,
            "statusReplicasPath": kind.scale.status_replicas,
            "labelSelectorPath": kind.scale.selector,
        },
    }


def _column(column: Column) -> dict[str, Any]:
    shown: dict[str, Any] = {"name": column.name, "type": column.type, "jsonPath": column.path}
    return {**shown, "priority": 1} if column.wide else shown
