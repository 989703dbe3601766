"""What ends a group: a visible chain of checks over its pods and its nodes.

A group lives and dies as one: processes that computed together cannot be joined by a new one, so a member
that is deleted, evicted, over, lost or restarted takes the others with it. Before its pods are bound a group
is given up as soon as one of its nodes is not to be had any more, or another pod has taken the room; nothing
is lost by that, and half a group would hold accelerators for nothing. A verdict on the model gives up all
groups but one (sizing.py).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from flotilla_operator.controllers.model_replica_set.life import Ending, Member, Phase, ReplicaGroup
from flotilla_operator.controllers.model_replica_set.reasons import EventReason
from flotilla_operator.controllers.model_replica_set.seen import Surroundings
from flotilla_operator.controllers.model_replica_set.trouble import (
    has_ended,
    how_it_ended,
    is_evicted,
    scheduler_message,
    when_it_ended,
)
from flotilla_operator.placement.manifests import FINISHED, pod_requests, toleration_of
from flotilla_operator.workloads.devices import devices_of
from flotilla_operator.workloads.engine_pod import CONTAINER


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A group with what judging it takes; `given_up` says whom a verdict on the model ends."""

    group: ReplicaGroup
    around: Surroundings
    now: datetime
    paused: bool = False
    given_up: Mapping[str, str] | None = None


Check = Callable[[Seen], Ending | None]


def pod_over(seen: Seen) -> Ending | None:
    """Preempted, evicted by the kubelet, or finished otherwise: such a pod never runs again."""
    for member in seen.group.members:
        status = member.pod.get("status") or {}
        if status.get("phase") in FINISHED:
            why = status.get("message") or status.get("reason") or "its containers have ended"
            return Ending(
                reason=EventReason.GROUP_FAILED,
                message=f"{_the_pod(seen, member)} is over: {why}",
            )
    return None


def node_gone(seen: Seen) -> Ending | None:
    """The node was taken away; nobody will confirm the end of its pods."""
    for member in seen.group.members:
        if member.bound_to is not None and seen.around.node(member.bound_to) is None:
            return Ending(
                reason=EventReason.GROUP_LOST,
                message=f"node {member.bound_to} no longer exists",
                by_force=True,
            )
    return None


def member_leaves(seen: Seen) -> Ending | None:
    """Somebody deleted or evicted one pod; the engine as a whole gets the time to drain. What was made to
    leave its node has not failed.
    """
    leaving = [member for member in seen.group.members if member.leaves]
    if not leaving or not seen.group.staying:
        return None
    evicted = next((member for member in leaving if is_evicted(member.pod)), None)
    if evicted is not None:
        return Ending(
            reason=EventReason.GROUP_EVICTED, message=f"pod {evicted.pod_name} was evicted", drains=True
        )
    return Ending(
        reason=EventReason.GROUP_FAILED, message=f"pod {leaving[0].pod_name} was deleted", drains=True
    )


def member_missing(seen: Seen) -> Ending | None:
    """A pod was deleted and is gone, or was never accepted."""
    group = seen.group
    if group.whole or group.going:
        return None
    held = {member.stage for member in group.members}
    absent = ", ".join(str(stage) for stage in range(group.stages) if stage not in held)
    if group.phase is Phase.GATED:
        return Ending(reason=EventReason.GROUP_INCOMPLETE, message=f"stage {absent} could not be created")
    return Ending(reason=EventReason.GROUP_FAILED, message=f"the pod of stage {absent} is gone")


def engine_ended(seen: Seen) -> Ending | None:
    """In a group of several, an engine that starts anew finds nobody to compute with. The first one that has
    ended is told of: the others end because they have lost it.
    """
    if seen.group.stages == 1:
        return None
    engines = (
        (member, container)
        for member in seen.group.members
        for container in (member.pod.get("status") or {}).get("containerStatuses") or ()
        if container["name"] == CONTAINER
    )
    ended = [(member, engine) for member, engine in engines if has_ended(engine)]
    if not ended:
        return None
    member, engine = min(ended, key=lambda one: when_it_ended(one[1]))
    words = how_it_ended(engine) or f"container {CONTAINER} was restarted"
    return Ending(reason=EventReason.GROUP_FAILED, message=f"pod {member.pod_name}: {words}")


def node_not_to_be_had(seen: Seen) -> Ending | None:
    """A node went, or turned pods like this one away, before the pod was bound."""
    for member in seen.group.members:
        if member.bound_to is None and member.pin is not None and (why := _turned_away(seen, member)):
            return Ending(
                reason=EventReason.GROUP_RELEASED,
                message=f"not bound to {member.pin}: the node {why}",
            )
    return None


def room_taken(seen: Seen) -> Ending | None:
    """Other pods took the room while the group was gated; once it is not, the scheduler has its time."""
    if seen.group.phase is not Phase.GATED:
        return None
    for member in seen.group.members:
        if member.bound_to is not None or member.pin is None:
            continue
        if not (overdrawn := seen.around.overdrawn(member.pin)):
            continue
        requests = {**pod_requests(member.pod["spec"]), **devices_of(member.pod)}
        if short := sorted(overdrawn & requests.keys()):
            return Ending(
                reason=EventReason.GROUP_RELEASED,
                message=f"not bound to {member.pin}: other pods took its {', '.join(short)}",
            )
    return None


def not_bound_in_time(seen: Seen) -> Ending | None:
    """Somebody else took the room; a pin cannot be moved, so the group makes way for a new one elsewhere. So
    does one that no operator was there to let go: a pod of it may be bound, but the nodes have not failed.
    """
    since = seen.group.may_bind_since
    late = [m for m in seen.group.members if m.bound_to is None and m.pin is not None]
    if not late or since is None or seen.now - since < seen.around.bind_timeout:
        return None
    tried = [m for m in late if m.phase is not Phase.GATED]
    first = (tried or late)[0]
    silent = "the scheduler said nothing" if tried else "its gate was not lifted"
    why = scheduler_message(first.pod) or silent
    return Ending(
        reason=EventReason.GROUP_RELEASED,
        message=f"not bound to {first.pin} within {seen.around.bind_timeout.total_seconds():g} s: {why}",
        failed_nodes=frozenset(m.pin for m in tried if m.pin is not None),
    )


def gated_while_paused(seen: Seen) -> Ending | None:
    """Nobody lifts the gates of a paused set, and others are planned around the room of its gated pods."""
    if not seen.paused or seen.group.phase is not Phase.GATED:
        return None
    return Ending(
        reason=EventReason.GROUP_RELEASED,
        message="spec.paused is true and its gates are not lifted yet; it gets its pods when that ends",
    )


def given_up_by_verdict(seen: Seen) -> Ending | None:
    """The model is judged not to be servable like this, and another group is left to try."""
    because = (seen.given_up or {}).get(seen.group.name)
    return None if because is None else Ending(reason=EventReason.GROUP_RELEASED, message=because)


ENDS_WHEN: tuple[Check, ...] = (
    pod_over,
    node_gone,
    member_leaves,
    member_missing,
    engine_ended,
    node_not_to_be_had,
    room_taken,
    not_bound_in_time,
    gated_while_paused,
    given_up_by_verdict,
)


def ending_of(
    group: ReplicaGroup,
    around: Surroundings,
    now: datetime,
    *,
    paused: bool = False,
    given_up: Mapping[str, str] | None = None,
) -> Ending | None:
    """Why a group must go, None when it need not."""
    seen = Seen(group=group, around=around, now=now, paused=paused, given_up=given_up)
    return next((ending for check in ENDS_WHEN if (ending := check(seen))), None)


def _turned_away(seen: Seen, member: Member) -> str | None:
    node = seen.around.node(member.pin)
    if node is None:
        return "no longer exists"
    if not node.ready:
        return "is not ready"
    if node.cordoned:
        return "was cordoned"
    tolerations = [toleration_of(t) for t in member.pod["spec"].get("tolerations") or ()]
    for taint in node.taints:
        if taint.keeps_away and not any(t.tolerates(taint) for t in tolerations):
            return f"has the taint {taint.key}"
    return None


def _the_pod(seen: Seen, member: Member) -> str:
    return "the pod" if seen.group.stages == 1 else f"pod {member.pod_name}"
