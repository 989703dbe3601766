"""What every model of the API is made of, and the marks that the generator turns into CRD schema.

A field is declared once: its type, bounds and default are pydantic's, its docstring is the description that
users read in `kubectl explain`, and what pydantic cannot say stands in a mark beside the type. Marks add to
the JSON schema themselves, so the generator knows no field by name.

Reading ignores what it does not know: an operator that meets an object of a newer CRD goes on with the rest.
CEL rules are judged by the API server alone.
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

_SPELLED_IN_CAPITALS: Final = {"usd": "USD", "ttl": "TTL", "gib": "GiB", "mib": "MiB", "ndcg": "NDCG"}


def api_name(python_name: str) -> str:
    """The field's name in YAML: camelCase, with units as they are written elsewhere (`maxCostUSD`)."""
    first, *others = python_name.split("_")
    return first + "".join(_SPELLED_IN_CAPITALS.get(word, word[:1].upper() + word[1:]) for word in others)


class ApiModel(BaseModel):
    """A part of an object as the API server keeps it; never changed after reading."""

    model_config = ConfigDict(
        alias_generator=api_name,
        validate_by_name=True,
        validate_by_alias=True,
        frozen=True,
        extra="ignore",
        use_attribute_docstrings=True,
    )

    def manifest(self) -> dict[str, Any]:
        """The value as Kubernetes spells it, without what is absent."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A CEL rule and the sentence a user reads when it refuses; the sentence names the field and the fix."""

    rule: str
    message: str

    def __get_pydantic_json_schema__(
        self, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Beside a field's type, the rule judges that field."""
        schema = handler(core_schema)
        rules = [*schema.get(VALIDATIONS, []), {"rule": self.rule, "message": self.message}]
        return {**schema, VALIDATIONS: rules}


def rules(*stated: Rule) -> JsonDict:
    """Rules over a whole model, for `ConfigDict(json_schema_extra=...)`."""
    return {VALIDATIONS: [{"rule": rule.rule, "message": rule.message} for rule in stated]}


@dataclass(frozen=True, slots=True)
class NotYet:
    """Marks a field that this release does not act on: the API server refuses it, whatever its value.

    `promise` says what the field will do once something acts on it.
    """

    promise: str

    def __get_pydantic_json_schema__(
        self, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """The generator makes a rule of the parent from it, which alone sees that a field is there."""
        return {**handler(core_schema), NOT_YET: self.promise}


@dataclass(frozen=True, slots=True, kw_only=True)
class NotYetValues:
    """Marks values of a field that this release does not act on; the field's other values act."""

    values: tuple[str, ...]
    rule: str
    message: str
    promise: str

    def __get_pydantic_json_schema__(
        self, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """A rule of the field, and a line on the page of what does not act yet."""
        schema = Rule(rule=self.rule, message=self.message).__get_pydantic_json_schema__(core_schema, handler)
        later: list[JsonSchemaValue] = [
            *schema.get(NOT_YET_VALUES, []),
            {"values": list(self.values), "promise": self.promise},
        ]
        return {**schema, NOT_YET_VALUES: later}


class MapList:
    """Marks a list whose items are told apart by keys, so that two appliers can own an item each."""

    def __init__(self, *keys: str) -> None:
        self.keys = keys

    def __get_pydantic_json_schema__(
        self, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """Server-side apply's merge strategy for lists of named things."""
        return {
            **handler(core_schema),
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": list(self.keys),
        }
