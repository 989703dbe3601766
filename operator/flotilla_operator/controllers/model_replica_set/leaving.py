"""The writes and events of groups that leave, or come back: what `turnover` wants and `draining` allows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from flotilla_operator.cluster.resources import PODS
from flotilla_operator.cluster.writes import Delete, Event, JsonPatch, ObjectRef, Write
from flotilla_operator.controllers.model_replica_set.draining import (
    Because,
    Drained,
    DrainStep,
    epoch_of,
    next_step,
)
from flotilla_operator.controllers.model_replica_set.life import ReplicaGroup
from flotilla_operator.controllers.model_replica_set.news import news_of
from flotilla_operator.controllers.model_replica_set.reasons import EventReason
from flotilla_operator.controllers.model_replica_set.seen import Observed
from flotilla_operator.controllers.model_replica_set.turnover import Removal, RemovalReason, Turnover
from flotilla_runtime import contract

LOOK_AGAIN_DRAINING_SECONDS = 1.0  # the routers' answers come as often
ANNOTATION_PATH = f"/metadata/annotations/{contract.ANNOTATION_DRAIN_EPOCH.replace('/', '~1')}"
WHY = {
    RemovalReason.SCALED_DOWN: "fewer replicas are wanted",
    RemovalReason.OUTDATED: "its revision is outdated",
    RemovalReason.NODE_LEAVES: "its node is cordoned or tainted",
    RemovalReason.REBALANCED: "flotilla.dev/rebalance moves it",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaving:
    """What a plan does about groups that leave; each event rests on the writes of its group."""

    writes: Sequence[Write] = ()
    events: Sequence[Event] = ()
    rests_on: Mapping[str, frozenset[ObjectRef]] = field(default_factory=dict)
    look_again_seconds: float = float("inf")


def steps(turnover: Turnover, observed: Observed, now: datetime) -> Leaving:
    """The next step of every group that leaves, and the end of the drains that are called off."""
    deadline = timedelta(seconds=observed.me.spec.drain.deadline_seconds)
    writes: list[Write] = []
    events: list[Event] = []
    rests_on: dict[str, frozenset[ObjectRef]] = {}
    waits = False
    for group in turnover.returning:
        done = _annotated(group, observed, [{"op": "remove", "path": ANNOTATION_PATH}])
        writes += done
        rests_on[group.name] = frozenset(write.ref for write in done)
        events.append(
            news_of(group.name, EventReason.GROUP_RETURNED, ": it is wanted after all and serves on")
        )
    for removal in turnover.removals:
        judged = next_step(removal.group, observed.routers, deadline=deadline, now=now)
        waits = waits or judged.step is not DrainStep.DELETE
        if judged.step is DrainStep.WAIT:
            continue
        made = _step(removal.group, judged, observed, now)
        writes += made
        rests_on[removal.group.name] = frozenset(write.ref for write in made)
        events.append(_told(removal, judged))
    return Leaving(
        writes=writes,
        events=events,
        rests_on=rests_on,
        look_again_seconds=LOOK_AGAIN_DRAINING_SECONDS if waits else float("inf"),
    )


def _step(
    group: ReplicaGroup, judged: Drained, observed: Observed, now: datetime
) -> Sequence[JsonPatch | Delete]:
    if judged.step is DrainStep.BEGIN:
        epoch = str(epoch_of(now))
        return _annotated(group, observed, [{"op": "add", "path": ANNOTATION_PATH, "value": epoch}])
    return [
        Delete(
            ref=PODS.ref(observed.me.owner.namespace, member.pod_name),
            uid=member.uid,
            grace_period_seconds=group.stop_seconds,
        )
        for member in group.staying
    ]


def _annotated(
    group: ReplicaGroup, observed: Observed, operations: Sequence[Mapping[str, str]]
) -> list[JsonPatch]:
    """The kubelet writes a pod's status all the time, so the patch is for this pod and not for a version.

    Routers know a group by its leader, so the drain is written there alone and begins or ends at once.
    """
    ref = PODS.ref(observed.me.owner.namespace, group.leader.pod_name)
    return [JsonPatch(ref=ref, uid=group.leader.uid, operations=operations)]


def _told(removal: Removal, judged: Drained) -> Event:
    why = WHY[removal.reason]
    if judged.step is DrainStep.BEGIN:
        return news_of(removal.group.name, EventReason.GROUP_DRAINING, f": it leaves: {why}")
    proof = {
        Because.NEVER_SERVED: "it never served",
        Because.IDLE: f"{judged.routers} routers and its engine have nothing left of it",
        Because.DEADLINE_PASSED: f"the drain's deadline has passed, {judged.in_flight} requests in flight",
    }[judged.because]
    return news_of(removal.group.name, EventReason.GROUP_REMOVED, f": {why}; {proof}")
