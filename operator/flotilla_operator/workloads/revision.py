"""The revision of an engine pod's template: a hash of the fields that the user wrote.

Fields that have their default do not count, so a field that a later release adds changes no hash. Neither do
the operator's image, its labels or the order of keys. Changing a default would change the hash of every set
that was stored with the old one. The golden hashes of the tests fail then, and the old default must still be
left out here.

Fields that take effect without new pods are not part of a revision: replicas, router, drain, update, pricing
and SLO. A new drain deadline applies to replicas that are made after the change. The annotation
flotilla.dev/refresh asks for new pods with an unchanged spec, for example with the engine image of a newer
chart.
"""

from collections.abc import Mapping
from typing import Any

from flotilla_operator.api.annotations import ANNOTATION_REFRESH
from flotilla_operator.api.model_replica_set import ModelReplicaSetSpec
from flotilla_operator.objects.hashes import stable_hash

PARTS: dict[str, Any] = {
    "model": True,
    "engine": True,
    "parallelism": True,
    "accelerator": {"resource", "device_class", "products"},
    "placement": {"node_selector", "tolerations", "priority_class_name"},
    "model_cache": True,
    "pod": True,
}


def revision_of(spec: ModelReplicaSetSpec, *, refresh: str = "") -> str:
    """The revision of pods made from this spec, which they have as a label.

    `refresh` is the value of the user's annotation.
    """
    written = spec.model_dump(
        mode="json", by_alias=True, include=PARTS, exclude_defaults=True, exclude_none=True
    )
    # A part in which only fields that do not count are set, such as preferences in placement, is dumped
    # empty.
    counts = {part: value for part, value in written.items() if value}
    return stable_hash({**counts, ANNOTATION_REFRESH: refresh} if refresh else counts)


def recorded_parts(spec: ModelReplicaSetSpec) -> dict[str, Any]:
    """The parts of a spec that make its revision; with defaults, which a later release may change."""
    return spec.model_dump(mode="json", by_alias=True, include=PARTS, exclude_none=True)


def with_recorded_parts(spec: ModelReplicaSetSpec, recorded: Mapping[str, Any]) -> ModelReplicaSetSpec:
    """The spec, with the parts that make a revision replaced by those of a record."""
    written = spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    replaced = recorded_parts(spec)
    for part in {*replaced, *recorded}:
        theirs = replaced.get(part, {})
        held = written.pop(part, {})
        if part in recorded:
            written[part] = {**{key: held[key] for key in held if key not in theirs}, **recorded[part]}
    return ModelReplicaSetSpec.model_validate(written)
