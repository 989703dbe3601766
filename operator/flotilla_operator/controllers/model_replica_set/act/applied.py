"""The objects around the engine pods: services, the router, and what protects them."""

from flotilla_operator.cluster.caches import controller_uid
from flotilla_operator.cluster.writes import Delete
from flotilla_operator.controllers.model_replica_set.reasons import Reason
from flotilla_operator.controllers.model_replica_set.seen import Situation
from flotilla_operator.controllers.rendered import Rendered, rendered
from flotilla_operator.objects.resources import CONFIG_MAPS, DEPLOYMENTS, SERVICES
from flotilla_operator.workloads.engine_pod import engines
from flotilla_operator.workloads.model_replica_set import router_objects
from flotilla_operator.workloads.router import routers


def applied_objects(situation: Situation, *, pods_to_keep: int) -> list[Rendered]:
    """The objects to apply. The writer leaves alone what belongs to other owners.

    Routers that would mount a Secret of others stay as they are.
    """
    me = situation.me
    stays = {(kind, routers(me.owner).name) for kind in (DEPLOYMENTS.kind, CONFIG_MAPS.kind)}
    objects = rendered(
        lambda images: router_objects(
            me.owner,
            me.spec,
            images,
            several_stages=me.several_stages,
            key_made_anew=me.key_made_anew,
            pods_to_keep=pods_to_keep,
            beside=situation.served_beside,
        ),
        situation.rendering.images,
    )
    if all(missing.reason is not Reason.SECRET_FOR_OTHERS for missing in situation.missing):
        return objects
    return [one for one in objects if (one.manifest["kind"], one.manifest["metadata"]["name"]) not in stays]


def names_taken(situation: Situation) -> tuple[str, ...]:
    """The wanted names that objects of other owners have."""
    me = situation.me
    of_stages = (SERVICES.kind, engines(me.owner).name)
    return tuple(
        f"{kind} {name}"
        for (kind, name), live in situation.existing.items()
        if controller_uid(live) != me.owner.uid and (me.several_stages or (kind, name) != of_stages)
    )


def names_nobody_asks_for(situation: Situation) -> list[Delete]:
    """Delete the Service that named the stages, once the last group of several stages is gone."""
    me = situation.me
    part = engines(me.owner)
    live = situation.existing.get((SERVICES.kind, part.name))
    if me.several_stages or live is None or controller_uid(live) != me.owner.uid:
        return []
    return [Delete(ref=SERVICES.ref(part.owner.namespace, part.name), uid=live["metadata"]["uid"])]
