"""The base class of every API model, and marks that add CRD schema which pydantic cannot express.

A field is declared once. Its type, bounds and default are pydantic's, and its docstring is the description
that `kubectl explain` shows. CEL rules, list types and fields that are not supported yet are marks beside the
type. A mark adds to the field's JSON schema, so the generator needs to know no field by name.

Reading an object ignores unknown fields: an operator that meets an object of a newer CRD acts on the fields
that it knows. CEL rules are evaluated by the API server only.
"""

from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler
from pydantic.config import JsonDict
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

VALIDATIONS: Final = "x-kubernetes-validations"
NOT_YET: Final = "x-flotilla-not-yet"
NOT_YET_VALUES: Final = "x-flotilla-not-yet-values"
NOT_YET_REPORTED: Final = "x-flotilla-not-yet-reported"

_SPELLED_IN_CAPITALS: Final = {
    "usd": "USD",
    "ttl": "TTL",
    "gib": "GiB",
    "mib": "MiB",
    "kib": "KiB",
    "ndcg": "NDCG",
    "ai": "AI",
}


def api_name(python_name: str) -> str:
    """The field's name in YAML: camelCase, with units spelled as usual (`max_cost_usd` is `maxCostUSD`)."""
    first, *others = python_name.split("_")
    return first + "".join(_SPELLED_IN_CAPITALS.get(word, word[:1].upper() + word[1:]) for word in others)


class ApiModel(BaseModel):
    """A part of an object as the API server stores it. Instances are immutable."""

    model_config = ConfigDict(
        alias_generator=api_name,
        validate_by_name=True,
        validate_by_alias=True,
        frozen=True,
        extra="ignore",
        use_attribute_docstrings=True,
    )

    def manifest(self) -> dict[str, Any]:
        """The value with the field names of the API, without fields that are None."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A CEL rule, and the message that a user reads when it refuses an object.

    The message names the field by its whole path and says how to correct it.
    """

    rule: str
    message: str

    def __get_pydantic_json_schema__(
        self, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Add the rule to the schema of the field that it is beside."""
        schema = handler(core_schema)
        rules = [*schema.get(VALIDATIONS, []), {"rule": self.rule, "message": self.message}]
        return {**schema, VALIDATIONS: rules}


def rules(*stated: Rule) -> JsonDict:
    """Rules over a whole model, for `ConfigDict(json_schema_extra=...)`."""
    return {VALIDATIONS: [{"rule": rule.rule, "message": rule.message} for rule in stated]}


@dataclass(frozen=True, slots=True)
class NotYet:
    """Marks a field that this release does not support: the API server refuses every value of it.

    The field's docstring says what the field will do; the generator puts "Not yet supported" in front of it.
    `instead` is the end of the message that refuses the field: what to do instead of setting it.
    """

    instead: str = "remove it"

    def __get_pydantic_json_schema__(
        self, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Mark the field; the generator adds the rule to its parent, where CEL can test for its presence."""
        return {**handler(core_schema), NOT_YET: self.instead}


@dataclass(frozen=True, slots=True, kw_only=True)
class NotYetValues:
    """Marks values of a field that this release does not support. The field's other values are supported.

    `promise` says what the values will do.
    """

    values: tuple[str, ...]
    rule: str
    message: str
    promise: str

    def __get_pydantic_json_schema__(
        self, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Add the rule that refuses the values, and mark them for the page docs/api/not-yet.md."""
        schema = Rule(rule=self.rule, message=self.message).__get_pydantic_json_schema__(core_schema, handler)
        later: list[JsonSchemaValue] = [
            *schema.get(NOT_YET_VALUES, []),
            {"values": list(self.values), "promise": self.promise, "message": self.message},
        ]
        return {**schema, NOT_YET_VALUES: later}


class NotYetReported:
    """Marks a status field that the operator does not write in this release.

    The generator puts "Not yet reported" in front of its description.
    """

    def __get_pydantic_json_schema__(
        self, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Mark the field for the generator."""
        return {**handler(core_schema), NOT_YET_REPORTED: True}


class MapList:
    """Marks a list whose items are identified by keys, so that two appliers can own different items."""

    def __init__(self, *keys: str) -> None:
        self.keys = keys

    def __get_pydantic_json_schema__(
        self, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Add the list type and the keys, which server-side apply merges by."""
        return {
            **handler(core_schema),
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": list(self.keys),
        }
