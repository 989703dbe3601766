"""The engines' key of a set: looked up, and made where there is none, because `plan` knows no randomness.

A key that is missing although the routers' Deployment names it was deleted: the next one carries the time,
and replaces engines and routers. A secret that belongs to another, such as a deleted set of this name, is not
the key: ours is asked for until the name is free, and what needs it is not started before.
"""

import secrets
from dataclasses import dataclass, field
from datetime import datetime

from flotilla_operator.api.model_replica_set import ModelReplicaSetSpec
from flotilla_operator.cluster.caches import controller_uid
from flotilla_operator.cluster.resources import DEPLOYMENTS
from flotilla_operator.controllers.conditions import timestamp
from flotilla_operator.controllers.controller import World
from flotilla_operator.workloads import engine_key as workloads
from flotilla_operator.workloads.labels import Owner
from flotilla_operator.workloads.router import routers, sends_engine_key

KEY_BYTES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineKey:
    """`made_anew` is the time of a key that is not the first one; `new` is a key to be written now; `lost`
    that the one before was found missing by this very look.
    """

    made_anew: str = ""
    new: str | None = field(default=None, repr=False)
    lost: bool = False


async def engine_key_of(
    owner: Owner, spec: ModelReplicaSetSpec, world: World, asked: dict[str, str], now: datetime
) -> EngineKey:
    """The key as it is; `asked` remembers by uid the `made_anew` of a key that has not been seen yet."""
    if not workloads.asks_for_our_key(spec):
        return EngineKey()
    secret = await world.own_secret(owner.namespace, workloads.engine_key(owner).name, owner.uid)
    if secret is not None:
        asked.pop(owner.uid, None)
        return EngineKey(made_anew=secret.data.get(workloads.MADE_ANEW_ENTRY, b"").decode(errors="replace"))
    lost = not asked.get(owner.uid) and _was_there(owner, world)
    made_anew = asked[owner.uid] = timestamp(now) if lost else asked.get(owner.uid, "")
    return EngineKey(made_anew=made_anew, new=secrets.token_urlsafe(KEY_BYTES), lost=lost)


def _was_there(owner: Owner, world: World) -> bool:
    live = world.caches.get(DEPLOYMENTS, owner.namespace, routers(owner).name)
    return live is not None and controller_uid(live) == owner.uid and sends_engine_key(live)
