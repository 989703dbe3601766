"""When to reconcile a set again even if nothing changes."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from flotilla_operator.api.model_replica_set import Update
from flotilla_operator.controllers.model_replica_set.reasons import Reason
from flotilla_operator.controllers.model_replica_set.seen import Situation
from flotilla_operator.controllers.secret_reader import LOOK_FOUND_SECONDS, LOOK_MISSING_SECONDS
from flotilla_operator.replicas.demand import LEFT_OUT_FOR, Demand
from flotilla_operator.replicas.group import GroupIdentity, Phase
from flotilla_operator.replicas.revisions.rollout import Rollout

LOOK_AGAIN_ON_TRIAL_SECONDS = 10.0  # answers of a new revision are judged
LOOK_AGAIN_ABSENT_NODE_SECONDS = 10.0
LOOK_AGAIN_LOADING_SECONDS = 60.0  # a kubelet that hangs causes no watch event
SECRET_IS_MISSING = frozenset(
    {
        Reason.SECRET_MISSING,
        Reason.SECRET_KEY_MISSING,
        Reason.SECRET_FOR_ELSEWHERE,
        Reason.SECRET_FOR_OTHERS,
    }
)


def look_again(
    situation: Situation,
    demand: Demand,
    rollout: Rollout,
    started: Sequence[GroupIdentity],
    now: datetime,
) -> float:
    """The seconds until the next reconcile.

    It is due at the next deadline, when time alone lets a waiting group go elsewhere, and when a secret may
    have changed, since secrets are not watched. What routers report wakes the set by itself.
    """
    waits = [LOOK_FOUND_SECONDS]  # each set has at least one secret, its engines' key
    waits += _of_a_rollout(rollout, situation.me.spec.update, now)
    if any(missing.reason in SECRET_IS_MISSING for missing in situation.missing):
        waits.append(LOOK_MISSING_SECONDS)
    if _misses_a_node(situation, demand):
        waits.append(LOOK_AGAIN_ABSENT_NODE_SECONDS)
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


def _misses_a_node(situation: Situation, demand: Demand) -> bool:
    """Whether a pod is on a node that is missing and not known to be gone."""
    nodes = {member.bound_to for group in demand.groups for member in group.members if member.bound_to}
    return any(situation.around.node(name) is None for name in nodes - situation.around.gone)


def _of_a_rollout(rollout: Rollout, update: Update, now: datetime) -> list[float]:
    """The seconds until answers are judged again where a rollback is possible, and until the deadline."""
    waits = []
    if rollout.may_go_back:
        waits.append(LOOK_AGAIN_ON_TRIAL_SECONDS)
    if (due := rollout.due_at(update)) is not None and due > now:
        waits.append((due - now).total_seconds())
    return waits


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
