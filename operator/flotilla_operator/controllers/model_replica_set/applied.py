"""What stands around the engine pods: services, the router and what guards them."""

from flotilla_operator.cluster.resources import SERVICES
from flotilla_operator.cluster.writes import Delete, Manifest
from flotilla_operator.controllers.model_replica_set.seen import Observed
from flotilla_operator.workloads.engine_pod import engines
from flotilla_operator.workloads.model_replica_set import router_objects


def applied_objects(observed: Observed, *, pods_to_keep: int) -> tuple[list[Manifest], tuple[str, ...]]:
    """The objects to apply, and the names that belong to somebody else; the writer leaves those alone."""
    me = observed.me
    wanted = router_objects(
        me.owner,
        me.spec,
        observed.around.images,
        several_stages=me.several_stages,
        key_made_anew=me.key_made_anew,
        pods_to_keep=pods_to_keep,
        beside=observed.served_beside,
    )
    taken = []
    for manifest in wanted:
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        live = observed.existing.get((kind, name))
        if live is not None and not _controlled_by(live, me.owner.uid):
            taken.append(f"{kind} {name}")
    return wanted, tuple(taken)


def names_nobody_asks_for(observed: Observed) -> list[Delete]:
    """The Service that named the stages, once the last group of several has gone."""
    me = observed.me
    part = engines(me.owner)
    live = observed.existing.get((SERVICES.kind, part.name))
    if me.several_stages or live is None or not _controlled_by(live, me.owner.uid):
        return []
    return [Delete(ref=SERVICES.ref(part.owner.namespace, part.name), uid=live["metadata"]["uid"])]


def _controlled_by(manifest: Manifest, uid: str) -> bool:
    return any(
        reference.get("controller") and reference["uid"] == uid
        for reference in manifest["metadata"].get("ownerReferences") or ()
    )
