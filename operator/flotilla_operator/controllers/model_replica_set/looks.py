"""When to look at a set again even if nothing changes."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from flotilla_operator.controllers.model_replica_set.demand import Demand
from flotilla_operator.controllers.model_replica_set.life import Phase
from flotilla_operator.controllers.model_replica_set.outcome import Started
from flotilla_operator.controllers.model_replica_set.seen import Observed

LOOK_AGAIN_MISSING_SECONDS = 10.0
LOOK_AGAIN_LOADED_SECONDS = 10.0  # as often as figures may be written
LOOK_AGAIN_AT_ZERO_SECONDS = 1.0  # somebody may wait for the first replica
LOOK_AGAIN_WAITING_SECONDS = 60.0
LOOK_AGAIN_SETTLED_SECONDS = 600.0


def look_again(observed: Observed, demand: Demand, started: Sequence[Started], now: datetime) -> float:
    """The seconds until then: at the next bind deadline, at what may appear unseen, at what
    the routers say of their load, or now and then.
    """
    waits = [LOOK_AGAIN_SETTLED_SECONDS]
    if observed.targets:
        waits.append(LOOK_AGAIN_LOADED_SECONDS)
    if observed.scaling is not None and not observed.scaling.wanted:
        waits.append(LOOK_AGAIN_AT_ZERO_SECONDS)
    if observed.missing:
        waits.append(LOOK_AGAIN_MISSING_SECONDS)
    if demand.waiting or any(group.phase is Phase.LOADING for group in demand.groups):
        waits.append(LOOK_AGAIN_WAITING_SECONDS)  # a kubelet that is stuck says nothing
    if demand.backoff is not None and demand.backoff.holds(now):
        waits.append(max((demand.backoff.until - now).total_seconds(), 1.0))
    if any(one.identity.nodes for one in started):
        waits.append(observed.around.bind_timeout.total_seconds())
    for group in demand.groups:
        since = group.may_bind_since
        unbound = group.phase in (Phase.GATED, Phase.BINDING)
        if unbound and group.ending is None and group.pinned and since is not None:
            left: timedelta = since + observed.around.bind_timeout - now
            waits.append(max(left.total_seconds(), 1.0))
    return min(waits)
