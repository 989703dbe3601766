"""Records which fields of our specs the operator's own code reads.

A read counts when the line that reads stands in `flotilla_operator`, but not in its `api` package: a test
that looks at a field proves nothing. Paths are those of the API (`spec.models[].role`): a value is known by
the field that it was read from. `manifest()` passes a whole value on, so it reads every field of it; a hash
over `model_dump` decides nothing by a single field, so it reads none.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, get_args
from unittest import mock

from flotilla_operator.api.agent_fleet import AgentFleetSpec
from flotilla_operator.api.base import ApiModel
from flotilla_operator.api.model_replica_set import ModelReplicaSetSpec
from flotilla_operator.api.vector_index import VectorIndexSpec

ROOTS: dict[type[ApiModel], str] = {
    ModelReplicaSetSpec: "ModelReplicaSet",
    VectorIndexSpec: "VectorIndex",
    AgentFleetSpec: "AgentFleet",
}


class FieldReads:
    """Fields that were read so far: kind and path."""

    def __init__(self) -> None:
        self.reads: set[tuple[str, str]] = set()
        self._known: dict[int, tuple[ApiModel, str, str]] = {}

    def of(self, kind: str) -> set[str]:
        """The paths of one kind that were read."""
        return {path for read_kind, path in self.reads if read_kind == kind}

    def note(self, model: ApiModel, name: str, value: Any, *, counts: bool) -> None:
        """One attribute was read: count it, and remember where the values below it come from."""
        place = self._place(model)
        if place is None:
            return
        kind, path = place
        here = f"{path}.{type(model).model_fields[name].alias}"
        if counts:
            self.reads.add((kind, here))
        if isinstance(value, ApiModel):
            self._known[id(value)] = (value, kind, here)
        elif isinstance(value, tuple):
            for item in value:
                if isinstance(item, ApiModel):
                    self._known[id(item)] = (item, kind, f"{here}[]")

    def note_whole(self, model: ApiModel) -> None:
        """Every field below was passed on."""
        place = self._place(model)
        if place is not None:
            kind, path = place
            self.reads |= {(kind, below) for below in paths_below(type(model), path)}

    def _place(self, model: ApiModel) -> tuple[str, str] | None:
        if type(model) in ROOTS:
            return ROOTS[type(model)], "spec"
        held = self._known.get(id(model))
        return (held[1], held[2]) if held is not None and held[0] is model else None


def paths_below(model: type[ApiModel], path: str) -> Iterator[str]:
    """The paths of every field of a model, and of the models below it."""
    for field in model.model_fields.values():
        here = f"{path}.{field.alias}"
        yield here
        nested = model_in(field.annotation)
        if nested is not None:
            repeated = "tuple[" in str(field.annotation)
            yield from paths_below(nested, f"{here}[]" if repeated else here)


def model_in(annotation: Any) -> type[ApiModel] | None:
    """The model that a field's type holds: itself, as an alternative to None, or as a list's item."""
    if isinstance(annotation, type) and issubclass(annotation, ApiModel):
        return annotation
    found = (model_in(argument) for argument in get_args(annotation))
    return next((model for model in found if model is not None), None)


@contextmanager
def recorded() -> Iterator[FieldReads]:
    """Record while the block runs."""
    found = FieldReads()
    plain_read, plain_manifest = ApiModel.__getattribute__, ApiModel.manifest

    def read(self: ApiModel, name: str) -> Any:
        value = plain_read(self, name)
        if name in type(self).model_fields:
            found.note(self, name, value, counts=_asked_by_the_operator())
        return value

    def manifest(self: ApiModel) -> dict[str, Any]:
        if _asked_by_the_operator():
            found.note_whole(self)
        return plain_manifest(self)

    with (
        mock.patch.object(ApiModel, "__getattribute__", read),
        mock.patch.object(ApiModel, "manifest", manifest),
    ):
        yield found


def _asked_by_the_operator() -> bool:
    module = str(sys._getframe(2).f_globals.get("__name__", ""))
    return module.startswith("flotilla_operator.") and not module.startswith("flotilla_operator.api.")
