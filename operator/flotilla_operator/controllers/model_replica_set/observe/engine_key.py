"""Looks for the engines' key of a set.

If the routers' Deployment uses a key that no longer exists, the key was deleted. The new one will carry the
time at which that was found, which makes a new revision and replaces engines and routers. A secret that
belongs to another owner, such as a deleted set of the same name, is not the key. Until that name is free, the
operator keeps trying to create its own key, and starts nothing that needs it.
"""

from dataclasses import dataclass
from datetime import datetime

from flotilla_operator.api.model_replica_set import ModelReplicaSetSpec
from flotilla_operator.cluster.caches import controller_uid
from flotilla_operator.controllers.controller import World
from flotilla_operator.objects.owners import Owner
from flotilla_operator.objects.resources import DEPLOYMENTS
from flotilla_operator.objects.times import timestamp
from flotilla_operator.workloads import engine_key as workloads
from flotilla_operator.workloads.router import routers, sends_engine_key


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineKey:
    """`made_anew` is the time of a key that is not the first. A `missing` one has to be made.

    `lost` says that this reconcile found the previous key missing.
    """

    made_anew: str = ""
    missing: bool = False
    lost: bool = False


async def engine_key_of(
    owner: Owner, spec: ModelReplicaSetSpec, world: World, asked: dict[str, str], now: datetime
) -> EngineKey:
    """The key as it is. `asked` remembers, by UID, the `made_anew` of a key that is not observed yet."""
    if not workloads.asks_for_our_key(spec):
        return EngineKey()
    secret = await world.own_secret(owner.namespace, workloads.engine_key(owner).name, owner.uid)
    if secret is not None:
        asked.pop(owner.uid, None)
        return EngineKey(made_anew=secret.data.get(workloads.MADE_ANEW_ENTRY, b"").decode(errors="replace"))
    lost = not asked.get(owner.uid) and _was_there(owner, world)
    made_anew = asked[owner.uid] = timestamp(now) if lost else asked.get(owner.uid, "")
    return EngineKey(made_anew=made_anew, missing=True, lost=lost)


def _was_there(owner: Owner, world: World) -> bool:
    live = world.caches.get(DEPLOYMENTS, owner.namespace, routers(owner).name)
    return live is not None and controller_uid(live) == owner.uid and sends_engine_key(live)
