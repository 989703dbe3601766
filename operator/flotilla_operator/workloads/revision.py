"""The revision of an engine pod's template: a hash over what the user wrote, and over nothing of ours.

Fields at their default do not count, so a field that a later release adds changes no hash, and neither do the
operator's image, its labels or the order of keys. A default that changes would change the hash of every set
that was stored with the old one: the golden hashes of the tests fail then, and the old default must go on to
be left out here. What acts without new pods (replicas, router, drain, update, pricing, what the set is to
promise) is no part of a revision; the drain's deadline holds for the replicas made after it was changed.
New pods for an unchanged spec, say with a newer chart's engine image, are asked for by the annotation
flotilla.dev/refresh.
"""

from collections.abc import Mapping
from typing import Any

from flotilla_operator.api.annotations import ANNOTATION_REFRESH
from flotilla_operator.api.model_replica_set import ModelReplicaSetSpec
from flotilla_operator.workloads.hashing import stable_hash

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
    """The revision that pods made from this spec carry as a label; `refresh` is what the user's annotation
    says.
    """
    written = spec.model_dump(
        mode="json", by_alias=True, include=PARTS, exclude_defaults=True, exclude_none=True
    )
    # A part of which only what does not count is set, as a wish for nodes in placement, is dumped empty.
    counts = {part: value for part, value in written.items() if value}
    return stable_hash({**counts, ANNOTATION_REFRESH: refresh} if refresh else counts)


def recorded_parts(spec: ModelReplicaSetSpec) -> dict[str, Any]:
    """What of a spec makes a revision, in full: defaults too, for a later release may have others."""
    return spec.model_dump(mode="json", by_alias=True, include=PARTS, exclude_none=True)


def with_recorded_parts(spec: ModelReplicaSetSpec, recorded: Mapping[str, Any]) -> ModelReplicaSetSpec:
    """The spec with what makes a revision taken from a record, and all else as it is."""
    written = spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    replaced = recorded_parts(spec)
    for part in {*replaced, *recorded}:
        theirs = replaced.get(part, {})
        held = written.pop(part, {})
        if part in recorded:
            written[part] = {**{key: held[key] for key in held if key not in theirs}, **recorded[part]}
    return ModelReplicaSetSpec.model_validate(written)
