"""Makes a document that satisfies a simple JSON Schema, as a constrained engine would write one.

It knows types, `properties`, `items`, `enum`, `const`, bounds of lengths and numbers, the first of `anyOf`
and `oneOf`, all of `allOf`, and references into the schema. It knows no patterns and formats. The same
schema always gives the same document.
"""

from collections.abc import Mapping
from typing import Any

WORD = "sail "
DEEPEST = 16
Schema = Mapping[str, Any]


def document(schema: Any, root: Any = None, depth: int = 0) -> Any:
    """A value that satisfies the schema."""
    root = schema if root is None else root
    if not isinstance(schema, Mapping) or depth > DEEPEST:
        return None
    schema = _resolved(schema, root)
    if "const" in schema or schema.get("enum"):
        return schema["const"] if "const" in schema else schema["enum"][0]
    choices = schema.get("anyOf") or schema.get("oneOf")
    if choices:
        return document(choices[0], root, depth + 1)
    kind = schema.get("type", "object" if "properties" in schema else "string")
    match kind[0] if isinstance(kind, list) else kind:
        case "object":
            return _object(schema, root, depth)
        case "array":
            item = document(schema.get("items", {"type": "string"}), root, depth + 1)
            return [item] * schema.get("minItems", 1)
        case "integer" | "number":
            return _number(schema)
        case "boolean":
            return True
        case "null":
            return None
        case _:
            return _text(schema)


def _resolved(schema: Schema, root: Any) -> Schema:
    """The schema with its references and `allOf` put in."""
    merged: dict[str, Any] = dict(schema)
    for _ in range(DEEPEST):
        reference = merged.pop("$ref", None)
        parts = merged.pop("allOf", ())
        if reference is None and not parts:
            break
        for part in (_target(reference, root), *parts):
            properties = {**merged.get("properties", {}), **part.get("properties", {})}
            required = [*merged.get("required", ()), *part.get("required", ())]
            merged |= part
            merged |= {"properties": properties, "required": required} if properties else {}
    return merged


def _target(reference: str | None, root: Any) -> Schema:
    place = root
    for name in (reference or "").removeprefix("#").split("/")[1:]:
        place = place.get(name, {}) if isinstance(place, Mapping) else {}
    return place if reference is not None and isinstance(place, Mapping) else {}


def _object(schema: Schema, root: Any, depth: int) -> dict[str, Any]:
    properties = schema.get("properties", {})
    required = schema.get("required", properties)
    return {name: document(properties.get(name, {}), root, depth + 1) for name in required}


def _number(schema: Schema) -> int | float:
    least = schema.get("minimum", schema.get("exclusiveMinimum", 0))
    if "exclusiveMinimum" in schema:
        least += 1
    most = schema.get("maximum")
    if most is None and "exclusiveMaximum" in schema:
        most = schema["exclusiveMaximum"] - 1
    value: int | float = least if most is None else min(least, most)
    step = schema.get("multipleOf")
    return value if step is None else -(-value // step) * step


def _text(schema: Schema) -> str:
    least, most = schema.get("minLength", 0), schema.get("maxLength", len(WORD.strip()))
    text = WORD * (-(-least // len(WORD))) if least else WORD.strip()
    return text[: max(least, most)]
