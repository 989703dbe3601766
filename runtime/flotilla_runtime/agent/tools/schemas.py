"""JSON Schemas that somebody else wrote: walked, checked with, and never trusted with a pattern. Pure.

A regular expression can take a server of ours years. So what a document or an MCP server declares is shown to
the model as it is, and checked without its patterns; the server has them too.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

Schema = dict[str, Any]

MAPS: Final = frozenset({"properties", "$defs", "definitions", "dependentSchemas"})
LISTS: Final = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
ONES: Final = frozenset(
    {"items", "additionalProperties", "not", "contains", "if", "then", "else", "propertyNames"}
    | {"unevaluatedProperties", "unevaluatedItems"}
)
PATTERNS: Final = frozenset({"pattern", "patternProperties"})


def changed(schema: Any, change: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> Any:
    """The schema with this change made to it and to each schema in it."""
    if not isinstance(schema, Mapping):
        return schema  # true and false are schemas
    told: Schema = {}
    for key, value in change(schema).items():
        if key in MAPS and isinstance(value, Mapping):
            told[key] = {name: changed(one, change) for name, one in value.items()}
        elif key in LISTS and isinstance(value, list):
            told[key] = [changed(one, change) for one in value]
        elif key in ONES:
            told[key] = changed(value, change)
        else:
            told[key] = value
    return told


def without_patterns(schema: Mapping[str, Any]) -> Schema:
    """The schema without its regular expressions, which lets more pass."""
    told: Schema = changed(schema, lambda one: {key: one[key] for key in one if key not in PATTERNS})
    return told
