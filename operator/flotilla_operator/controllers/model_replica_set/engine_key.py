"""The engines' key of a set: looked up, and made where there is none, because `plan` knows no randomness.

A key that is missing although the routers' Deployment names it was deleted: the next one carries the time,
and replaces engines and routers. That it is missing may have been read before we made it, so an answer of
the last seconds is not believed twice. A secret that belongs to another, such as a deleted set of this name,
is not the key: ours is asked for until the name is free.
"""

import secrets
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from flotilla_operator.api.model_replica_set import ModelReplicaSetSpec
from flotilla_operator.cluster.caches import controller_uid
from flotilla_operator.cluster.resources import DEPLOYMENTS
from flotilla_operator.controllers.conditions import timestamp
from flotilla_operator.controllers.controller import World
from flotilla_operator.workloads import engine_key as workloads
from flotilla_operator.workloads.labels import Owner
from flotilla_operator.workloads.router import routers, sends_engine_key

KEY_BYTES = 32
ANSWER_AGE = timedelta(seconds=15)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineKey:
    """`made_anew` is the time of a key that is not the first one; `new` is a key to be written now."""

    made_anew: str = ""
    new: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyMade:
    """A key that was made here and may not be readable yet."""

    at: datetime
    made_anew: str


async def engine_key_of(
    owner: Owner, spec: ModelReplicaSetSpec, world: World, made: dict[str, KeyMade], now: datetime
) -> EngineKey:
    """The key as it is; `made` remembers by uid what was made a moment ago."""
    if not workloads.asks_for_our_key(spec):
        return EngineKey()
    secret = await world.secret(owner.namespace, workloads.engine_key(owner).name)
    if secret is not None and secret.controller_uid == owner.uid:
        made.pop(owner.uid, None)
        return EngineKey(made_anew=secret.data.get(workloads.MADE_ANEW_ENTRY, b"").decode(errors="replace"))
    before = made.get(owner.uid)
    if secret is None and before is not None and now - before.at < ANSWER_AGE:
        return EngineKey(made_anew=before.made_anew)
    made_anew = before.made_anew if before is not None else ""
    if not made_anew and before is None and _was_there(owner, world):
        made_anew = timestamp(now)
    made[owner.uid] = KeyMade(at=now, made_anew=made_anew)
    return EngineKey(made_anew=made_anew, new=secrets.token_urlsafe(KEY_BYTES))


def _was_there(owner: Owner, world: World) -> bool:
    live = world.caches.get(DEPLOYMENTS, owner.namespace, routers(owner).name)
    return live is not None and controller_uid(live) == owner.uid and sends_engine_key(live)
