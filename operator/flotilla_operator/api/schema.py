"""Turns a pydantic model into the structural schema of its CRD.

The API server refuses pydantic's own JSON schema: it has references, "or null" types, and exclusive bounds
that are numbers. Here references are inlined, "X or null" becomes an optional X, and a field that is not
supported yet becomes a rule that refuses it.

A nested model that may be left out gets its whole default, because the API server applies the model's rules
to that default before it fills in the defaults of the fields inside. Empty lists and maps get no default,
because leaving them out means the same.

A description is the field's docstring. A field that is marked so gets "Not yet supported: " or "Not yet
reported: " in front of it. A default is added behind it, because `kubectl explain` does not show defaults.
"""

import functools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from flotilla_operator.api.base import NOT_YET, NOT_YET_REPORTED, NOT_YET_VALUES, VALIDATIONS
from flotilla_operator.api.kinds import CATEGORY, GROUP, VERSION, Column, Kind

JsonSchema = dict[str, Any]

EMPTY: Final[tuple[Any, ...]] = (None, [], {})
DROPPED: Final = frozenset({"title", "propertyNames", NOT_YET, NOT_YET_VALUES, NOT_YET_REPORTED})
NOT_SUPPORTED: Final = "Not yet supported: "
NOT_REPORTED: Final = "Not yet reported: "


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsupported:
    """A spec field, or some values of one, that the API server refuses.

    `promise` says what the field or the values will do, `message` is the refusal that a user reads.
    """

    path: str
    values: tuple[str, ...]
    promise: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreported:
    """A status field that the operator does not write; `promise` says what it will show."""

    path: str
    promise: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """Settings of a whole subtree of the schema: whether it has defaults, and how its descriptions begin."""

    defaults: bool
    prefix: str = ""


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
        "description": _one_line(root["description"]),
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": _finished(fields["spec"], "spec", _Part(defaults=True)),
            "status": _finished(fields["status"], "status", _Part(defaults=False)),
        },
        VALIDATIONS: root[VALIDATIONS],
    }
    return schema


def not_yet(kind: Kind) -> list[Unsupported]:
    """The fields and values of a kind's spec that this release refuses, in the order of declaration."""
    return list(_unsupported(_inlined(kind)["properties"]["spec"], "spec"))


def not_reported(kind: Kind) -> list[Unreported]:
    """The fields of a kind's status that this release does not write, in the order of declaration."""
    return [
        Unreported(path=path, promise=_one_line(field["description"]))
        for path, field in _fields(_inlined(kind)["properties"]["status"], "status")
        if NOT_YET_REPORTED in field
    ]


@functools.cache
def _inlined(kind: Kind) -> JsonSchema:
    """The JSON schema without references. Do not change it: the same value is returned every time."""
    raw = kind.model.model_json_schema(by_alias=True)
    inlined: JsonSchema = _without_references(raw, raw.get("$defs", {}))
    return inlined


def _without_references(schema: Any, definitions: Mapping[str, JsonSchema]) -> Any:
    """The schema with its references inlined. Keys beside a reference override those of its target."""
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
    """Two schemas as one: the keys of `over` win, except that the rules of both are kept."""
    validations = [*under.get(VALIDATIONS, []), *over.get(VALIDATIONS, [])]
    return {**under, **over, **({VALIDATIONS: validations} if validations else {})}


def _without_null(schema: JsonSchema) -> JsonSchema:
    """`X or null` as X: in a CRD a field that may be null is one that is not required."""
    if "anyOf" not in schema or schema.get("x-kubernetes-int-or-string"):
        return schema
    (only,) = [choice for choice in schema["anyOf"] if choice.get("type") != "null"]
    return _without_null(_merged(only, {key: value for key, value in schema.items() if key != "anyOf"}))


def _finished(schema: JsonSchema, path: str, part: _Part) -> JsonSchema:
    schema = _without_null(schema)
    part = _part_of(schema, part)
    out = {key: value for key, value in schema.items() if key not in DROPPED}
    if "const" in out:
        out["enum"] = [out.pop("const")]
    for exclusive, limit in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if exclusive in out:
            out[limit], out[exclusive] = out[exclusive], True
    default = _without_empty(out.pop("default", None))
    if part.defaults and default not in EMPTY:
        out["default"] = default
    if "description" in out:
        out["description"] = _description(out, part)
    if "items" in out:
        out["items"] = _finished(out["items"], f"{path}[]", part)
    if isinstance(out.get("additionalProperties"), dict):
        out["additionalProperties"] = _finished(out["additionalProperties"], path, part)
    if "properties" in out:
        _finish_object(out, path, part)
    # The API server drops empty parts, so a tool that compares would see a difference for ever.
    return {key: value for key, value in out.items() if value not in EMPTY}


def _part_of(schema: JsonSchema, around: _Part) -> _Part:
    if NOT_YET in schema:
        return replace(around, prefix=NOT_SUPPORTED)
    return replace(around, prefix=NOT_REPORTED) if NOT_YET_REPORTED in schema else around


def _finish_object(out: JsonSchema, path: str, part: _Part) -> None:
    """Finish the fields in place, and add the rules that refuse those that are not supported yet."""
    fields: Mapping[str, JsonSchema] = out["properties"]
    refusals = [
        {"rule": f"!has(self.{name})", "message": _refusal(field, f"{path}.{name}")}
        for name, field in fields.items()
        if NOT_YET in field
    ]
    validations = [*out.get(VALIDATIONS, []), *refusals]
    if validations:
        out[VALIDATIONS] = validations
    out["properties"] = {name: _finished(field, f"{path}.{name}", part) for name, field in fields.items()}


def _description(out: JsonSchema, part: _Part) -> str:
    default = out.get("default")
    known = "" if default is None or isinstance(default, dict) else f" Default: {_shown(default)}."
    return f"{part.prefix}{_one_line(out['description'])}{known}"


def _shown(default: Any) -> str:
    return default if isinstance(default, str) else json.dumps(default)


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _without_empty(default: Any) -> Any:
    """A default without its empty parts, which mean the same as being absent."""
    if not isinstance(default, dict):
        return default
    kept = {key: _without_empty(value) for key, value in default.items()}
    return {key: value for key, value in kept.items() if value not in EMPTY}


def _refusal(field: JsonSchema, path: str) -> str:
    return f"{path} is not yet supported; {field[NOT_YET]}"


def _unsupported(schema: JsonSchema, path: str) -> Iterator[Unsupported]:
    refused: tuple[str, ...] = ()
    for here, field in _fields(schema, path):
        if here.startswith(refused):
            continue
        if NOT_YET in field:
            refused += (f"{here}.", f"{here}[]")
            yield Unsupported(
                path=here, values=(), promise=_one_line(field["description"]), message=_refusal(field, here)
            )
        for later in field.get(NOT_YET_VALUES, ()):
            yield Unsupported(
                path=here,
                values=tuple(later["values"]),
                promise=later["promise"],
                message=later["message"],
            )


def _fields(schema: JsonSchema, path: str) -> Iterator[tuple[str, JsonSchema]]:
    """Every field below a schema with its path, in the order of declaration."""
    for name, marked in _without_null(schema).get("properties", {}).items():
        field = _without_null(marked)
        here = f"{path}.{name}"
        yield here, field
        yield from _fields(field, here)
        if "items" in field:
            yield from _fields(field["items"], f"{here}[]")


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
