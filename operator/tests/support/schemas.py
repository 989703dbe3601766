"""The generated schema of a kind as a list of its fields."""

import functools
from collections.abc import Iterator
from typing import Any

from flotilla_operator.api.kinds import Kind
from flotilla_operator.api.schema import structural


@functools.cache
def fields(kind: Kind) -> list[tuple[str, dict[str, Any]]]:
    """Every field of spec and status with its path; `[]` ends the path of the items of a list or map."""
    root = structural(kind)["properties"]
    return [entry for part in ("spec", "status") for entry in schemas(root[part], part)]


def schemas(schema: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, field in schema.get("properties", {}).items():
        yield from schemas(field, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield from schemas(schema[key], f"{path}[]")
