"""JSON Schemas that somebody else wrote: walked, checked with, and never trusted. Pure.

A regular expression can take a server of ours years, and so can schemas that refer to each other. So what a
document or an MCP server declares is shown to the model as it is, and checked without its patterns, in a
limited number of steps. What is not checked here, the server checks.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from jsonschema.protocols import Validator
from jsonschema.validators import Draft202012Validator, extend, validator_for

Schema = dict[str, Any]

MAPS: Final = frozenset({"properties", "$defs", "definitions", "dependentSchemas"})
LISTS: Final = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
ONES: Final = frozenset(
    {"items", "additionalProperties", "not", "contains", "if", "then", "else", "propertyNames"}
    | {"unevaluatedProperties", "unevaluatedItems"}
)
UNEVALUATED: Final = frozenset({"unevaluatedProperties", "unevaluatedItems"})
MOST_STEPS: Final = 20_000  # less than a second


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


def without_patterns(told: Any) -> Any:
    """The schema without its regular expressions, and without the names of other dialects.

    They are left out wherever they stand: a reference can make a schema of any part, such as an example. What
    depends on all others comes last, because it walks through them without steps that are counted.
    """
    if isinstance(told, list):
        return [without_patterns(one) for one in told]
    if not isinstance(told, Mapping):
        return told
    kept = [(key, without_patterns(value)) for key, value in told.items() if not _is_left_out(key, value)]
    return dict(sorted(kept, key=lambda pair: pair[0] in UNEVALUATED))


def _is_left_out(key: str, value: Any) -> bool:
    """Whether this is a keyword; the properties of arguments may have these names too."""
    if key == "patternProperties":
        return isinstance(value, Mapping)
    return key in {"pattern", "$schema"} and isinstance(value, str)


class TooManyStepsError(Exception):
    """A check takes longer than it may."""


class Steps:
    """Counts the keywords that a check comes by."""

    def __init__(self, most: int = MOST_STEPS) -> None:
        self._most = most
        self._left = most

    def begin(self) -> None:
        """Begin a check."""
        self._left = self._most

    def counted(self, kind: type[Validator]) -> type[Validator]:
        """The validator, whose checks raise TooManyStepsError."""
        counting = {name: self._counting(check) for name, check in kind.VALIDATORS.items()}
        limited: type[Validator] = extend(kind, counting)  # type: ignore[no-untyped-call]
        return limited

    def _counting(self, check: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*given: Any) -> Any:
            self._left -= 1
            if self._left < 0:
                raise TooManyStepsError
            return check(*given)

        return counted


def dialect_of(schema: Mapping[str, Any]) -> type[Validator]:
    """The validator of the dialect that the schema names."""
    named = schema if isinstance(schema.get("$schema"), str) else {}
    dialect: type[Validator] = validator_for(named, default=Draft202012Validator)
    return dialect
