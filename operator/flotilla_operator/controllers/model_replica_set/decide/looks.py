"""When to reconcile a set again even if nothing changes."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from flotilla_operator.controllers.model_replica_set.seen import Situation
from flotilla_operator.replicas.demand import LEFT_OUT_FOR, Demand
from flotilla_operator.replicas.group import Phase
from flotilla_operator.workloads.engine_pod import GroupIdentity

LOOK_AGAIN_MISSING_SECONDS = 10.0
LOOK_AGAIN_LOADED_SECONDS = 10.0  # as often as figures may be written
LOOK_AGAIN_AT_ZERO_SECONDS = 1.0  # somebody may wait for the first replica
LOOK_AGAIN_LOADING_SECONDS = 60.0  # a kubelet that hangs causes no watch event
LOOK_AGAIN_SETTLED_SECONDS = 600.0


def look_again(
    situation: Situation, demand: Demand, started: Sequence[GroupIdentity], now: datetime
) -> float:
    """The seconds until the next reconcile.

    It is due at the next bind deadline, when time alone lets a waiting group go elsewhere, when something may
    appear that is not watched, when the routers' load is to be read, and otherwise now and then.
    """
    waits = [LOOK_AGAIN_SETTLED_SECONDS]
    if situation.observed.targets:
        waits.append(LOOK_AGAIN_LOADED_SECONDS)
    if situation.scaling is not None and not situation.scaling.wanted:
        waits.append(LOOK_AGAIN_AT_ZERO_SECONDS)
    if situation.missing:
        waits.append(LOOK_AGAIN_MISSING_SECONDS)
    if any(group.phase is Phase.LOADING for group in demand.groups):
        waits.append(LOOK_AGAIN_LOADING_SECONDS)
    waits += _of_those_that_wait(situation, demand, now)
    if demand.backoff is not None and demand.backoff.holds(now):
        waits.append(max((demand.backoff.until - now).total_seconds(), 1.0))
    if any(one.nodes for one in started):
        waits.append(situation.around.bind_timeout.total_seconds())
    for group in demand.groups:
        since = group.may_bind_since
        unbound = group.phase in (Phase.GATED, Phase.BINDING)
        if unbound and group.ending is None and group.pinned and since is not None:
            left: timedelta = since + situation.around.bind_timeout - now
            waits.append(max(left.total_seconds(), 1.0))
    return min(waits)


def _of_those_that_wait(situation: Situation, demand: Demand, now: datetime) -> list[float]:
    """The seconds until nodes are kept for a waiting group, or until one where its pin failed is tried again.

    Room that becomes free causes an event.
    """
    if not demand.waiting:
        return []
    ages_after = timedelta(seconds=situation.around.policy.aging_seconds)
    times = [waiting.since + ages_after for waiting in demand.waiting]
    times += [pin.at + LEFT_OUT_FOR for pin in demand.failed_pins]
    return [(time - now).total_seconds() for time in times if time > now]
