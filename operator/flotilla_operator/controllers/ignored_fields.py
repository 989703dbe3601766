"""Which fields of an object this operator does not know.

An object may be written by a newer custom resource definition than the operator was built with, for example
in the minutes of an upgrade. It is reconciled by what is known, and the fields that are not are named, so
nothing is silently ignored. Mappings of free keys and shapes that are passed on as they are hold no unknown
fields.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel


def ignored_fields(model: type[BaseModel], document: Mapping[str, Any], path: str) -> list[str]:
    """The paths under `path` that `model` has no field for, in order."""
    return sorted(_ignored(model, document, path))


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
    """The model that a field's annotation is about: itself, optional, or the items of a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_model_in(argument) for argument in get_args(annotation))
    return next((model for model in found if model is not None), None)
