"""Indexes that an event wakes beside owners and references: those that wait for the workers of a fleet."""

from collections.abc import Iterable

from flotilla_operator.cluster.caches import Caches
from flotilla_operator.controllers.vector_index.remembered import requires_keys
from flotilla_operator.objects.resources import (
    AGENT_FLEETS,
    DEPLOYMENTS,
    PODS,
    VECTOR_INDEXES,
    Key,
    Manifest,
    Resource,
    key_of,
)
from flotilla_runtime import contract


def indexes_to_wake(resource: Resource, manifest: Manifest, caches: Caches) -> Iterable[Key]:
    """The indexes that do not require keys yet, of the fleet that changed or whose workers did."""
    fleet = manifest if resource == AGENT_FLEETS else _fleet_of(resource, manifest, caches)
    for name in sorted(indexes_named(fleet)) if fleet is not None else ():
        index = caches.get(VECTOR_INDEXES, manifest["metadata"]["namespace"], name)
        if index is not None and not requires_keys(index):
            yield key_of(VECTOR_INDEXES, index)


def indexes_named(fleet: Manifest) -> set[str]:
    """The indexes that a fleet's spec names, which may be invalid otherwise."""
    indexes = (fleet.get("spec") or {}).get("indexes") or ()
    return {str(name) for index in indexes if (name := (index.get("indexRef") or {}).get("name"))}


def _fleet_of(resource: Resource, manifest: Manifest, caches: Caches) -> Manifest | None:
    labels = manifest["metadata"].get("labels") or {}
    if resource not in (PODS, DEPLOYMENTS) or labels.get(contract.LABEL_OWNER_KIND) != AGENT_FLEETS.kind:
        return None
    name = labels.get(contract.LABEL_OWNER_NAME, "")
    return caches.get(AGENT_FLEETS, manifest["metadata"]["namespace"], name)
