"""What stands around the engine pods and is applied: services, the router and what guards them."""

from collections.abc import Iterable

from flotilla_operator.cluster.resources import resource_of
from flotilla_operator.cluster.writes import Delete, Manifest
from flotilla_operator.controllers.model_replica_set.seen import Observed
from flotilla_operator.workloads.model_replica_set import router_objects


def applied_objects(observed: Observed, *, pods_to_keep: int) -> tuple[list[Manifest], tuple[str, ...]]:
    """The objects to apply, and the names that belong to somebody else; the writer leaves those alone."""
    me = observed.me
    wanted = router_objects(
        me.owner,
        me.spec,
        observed.around.images,
        key_made_anew=me.key_made_anew,
        pods_to_keep=pods_to_keep,
        beside=observed.served_beside,
        several_stages=any(group.stages > 1 for group in me.groups),
    )
    taken = []
    for manifest in wanted:
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        live = observed.existing.get((kind, name))
        if live is not None and not _controlled_by(live, me.owner.uid):
            taken.append(f"{kind} {name}")
    return wanted, tuple(taken)


def surplus_deletes(observed: Observed, wanted: Iterable[Manifest]) -> list[Delete]:
    """The services and policies that nothing asks for any more: names for stages when the last group of
    several is gone, plain HTTP inside when the router speaks it anyway.
    """
    names = {(manifest["kind"], manifest["metadata"]["name"]) for manifest in wanted}
    return [
        Delete(ref=resource_of(live).ref_to(live), uid=live["metadata"]["uid"])
        for live in observed.services_and_policies
        if (live["kind"], live["metadata"]["name"]) not in names
    ]


def _controlled_by(manifest: Manifest, uid: str) -> bool:
    return any(
        reference.get("controller") and reference["uid"] == uid
        for reference in manifest["metadata"].get("ownerReferences") or ()
    )
