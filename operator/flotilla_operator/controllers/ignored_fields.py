"""Finds the fields of an object that this release of the operator does not know.

The custom resource definitions can be newer than the operator, for example during an upgrade. The operator
then acts on the fields that it knows and names the others in a condition, so that nothing is ignored
silently. Fields with free keys, and objects that are passed on as they are, have no unknown fields.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel


def ignored_fields(model: type[BaseModel], document: Mapping[str, Any], path: str) -> list[str]:
    """The paths under `path` for which `model` has no field, sorted."""
    return sorted(_ignored(model, document, path))


def told_of(ignored: Sequence[str]) -> str:
    """The message that names these fields."""
    names = ", ".join(ignored)
    return f"this release of the operator does not know {names}; upgrade the operator, or remove them"


def _ignored(model: type[BaseModel], document: Mapping[str, Any], path: str) -> Iterator[str]:
    known = {field.alias or name: field.annotation for name, field in model.model_fields.items()}
    for key, value in document.items():
        if key not in known:
            yield f"{path}.{key}"
        elif (inner := _model_in(known[key])) is not None:
            yield from _below(inner, value, f"{path}.{key}")


def _below(model: type[BaseModel], value: Any, path: str) -> Iterator[str]:
    if isinstance(value, Mapping):
        yield from _ignored(model, value, path)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for index, item in enumerate(value):
            yield from _below(model, item, f"{path}[{index}]")


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model in a field's annotation: the annotation itself, an optional one, or a list's items."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_model_in(argument) for argument in get_args(annotation))
    return next((model for model in found if model is not None), None)
