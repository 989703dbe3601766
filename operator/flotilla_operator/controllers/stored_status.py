"""Reads the status that the last reconcile wrote, by the status model of its kind.

What an older release wrote is read by the same model. A status that is not valid is read as an empty one: it
is only a memory, so losing it must not keep an object from being reconciled.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import ValidationError

from flotilla_operator.api.base import ApiModel
from flotilla_operator.api.parts import Status
from flotilla_operator.objects.resources import Manifest

AnyStatus = TypeVar("AnyStatus", bound=Status)
Part = TypeVar("Part", bound=ApiModel)


def stored_status(model: type[AnyStatus], manifest: Manifest) -> AnyStatus:
    """The object's status; an empty one before the first reconcile, and for a status that is not valid."""
    try:
        return model.model_validate(manifest.get("status") or {})
    except ValidationError:
        return model()


def stored_part(model: type[Part], held: Mapping[str, Any] | None) -> Part | None:
    """A part of a status of which the rest may be lost alone; None when it is absent or not valid."""
    if not held:
        return None
    try:
        return model.model_validate(held)
    except ValidationError:
        return None


def stored_parts(model: type[Part], held: Sequence[Mapping[str, Any]] | None) -> list[Part]:
    """The valid ones of a list of parts."""
    found = (stored_part(model, one) for one in held or ())
    return [part for part in found if part is not None]


def without_status(manifest: Manifest) -> Manifest:
    """The manifest for reading its spec, so that a status that is not valid is no error of the spec."""
    return {key: value for key, value in manifest.items() if key != "status"}


def as_written(part: ApiModel) -> dict[str, Any]:
    """A part of the status as it was written: only the fields that were there."""
    return part.model_dump(mode="json", by_alias=True, exclude_unset=True)


def conditions_before(status: Status) -> Sequence[Mapping[str, Any]]:
    """The conditions of the status, as `conditions.merged` and `conditions.transitions` read them."""
    return tuple(as_written(condition) for condition in status.conditions)
