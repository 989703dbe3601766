"""Checks that end a group, over its pods and its nodes.

All pods of a group end together, because processes that computed together cannot take in a new one: a member
that is deleted, evicted, finished, lost or restarted takes the others with it. Before all of its pods are
bound, a group is also released as soon as one of its nodes becomes unusable or other pods have taken the
room. Nothing is lost by that, whereas half a group would hold accelerators for nothing. When the model is
judged not to fit, all groups but one are released.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from flotilla_operator.replicas.group import Ending, EndingReason, Member, Phase, ReplicaGroup
from flotilla_operator.replicas.leaving.turnover import victim_order
from flotilla_operator.replicas.surroundings import Surroundings


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A group with what is needed to judge it."""

    group: ReplicaGroup
    around: Surroundings
    now: datetime
    paused: bool = False


Check = Callable[[Seen], Ending | None]


def pod_over(seen: Seen) -> Ending | None:
    """A pod was preempted, evicted by the kubelet, or has finished: it will never run again."""
    for member in seen.group.members:
        if member.finished is not None:
            message = f"{_the_pod(seen, member)} has ended: {member.finished}"
            return Ending(reason=EndingReason.FAILED, message=message)
    return None


def node_gone(seen: Seen) -> Ending | None:
    """A node was removed, so nobody will confirm the end of its pods."""
    for member in seen.group.members:
        if member.bound_to in seen.around.gone:
            return Ending(
                reason=EndingReason.LOST,
                message=f"node {member.bound_to} no longer exists",
                by_force=True,
            )
    return None


def member_leaves(seen: Seen) -> Ending | None:
    """One pod was deleted or evicted. The engine still works, so it gets the time to drain.

    An eviction to empty a node is not a failure.
    """
    leaving = [member for member in seen.group.members if member.leaves]
    if not leaving or not seen.group.staying:
        return None
    evicted = next((member for member in leaving if member.evicted), None)
    if evicted is not None:
        return Ending(reason=EndingReason.EVICTED, message=f"pod {evicted.name} was evicted", drains=True)
    return Ending(reason=EndingReason.FAILED, message=f"pod {leaving[0].name} was deleted", drains=True)


def member_missing(seen: Seen) -> Ending | None:
    """A pod was deleted and no longer exists, or was never accepted."""
    group = seen.group
    if group.whole or group.going:
        return None
    held = {member.stage for member in group.members}
    absent = ", ".join(str(stage) for stage in range(group.stages) if stage not in held)
    if group.phase is Phase.GATED:
        message = f"the pod of stage {absent} could not be created"
        return Ending(reason=EndingReason.INCOMPLETE, message=message)
    return Ending(reason=EndingReason.FAILED, message=f"the pod of stage {absent} no longer exists")


def engine_ended(seen: Seen) -> Ending | None:
    """In a group of several stages, an engine that restarts has no peers to compute with.

    The message names the engine that ended first, because the others ended when they lost it.
    """
    if seen.group.stages == 1:
        return None
    ended = [member for member in seen.group.members if member.engine.end is not None]
    if not ended:
        return None
    first = min(ended, key=lambda member: member.engine.ended_at)
    return Ending(reason=EndingReason.FAILED, message=f"pod {first.name}: {first.engine.end}")


def node_not_to_be_had(seen: Seen) -> Ending | None:
    """Before the pod was bound, its node went away or began to refuse such pods."""
    for member in seen.group.members:
        if member.bound_to is None and member.pin is not None and (why := _turned_away(seen, member)):
            return Ending(
                reason=EndingReason.RELEASED,
                message=f"not bound to {member.pin}: the node {why}",
            )
    return None


def room_taken(seen: Seen) -> Ending | None:
    """Other pods took the room while the group was gated. Later the scheduler gets the time to find out."""
    if seen.group.phase is not Phase.GATED:
        return None
    for member in seen.group.members:
        if member.bound_to is not None or member.pin is None:
            continue
        if not (overdrawn := seen.around.overdrawn(member.pin)):
            continue
        if short := sorted(overdrawn & member.asks.keys()):
            return Ending(
                reason=EndingReason.RELEASED,
                message=f"not bound to {member.pin}: other pods took the node's free {', '.join(short)}",
            )
    return None


def not_bound_in_time(seen: Seen) -> Ending | None:
    """A pod was not bound in time. Its pin cannot change, so a new group may go elsewhere.

    This includes groups whose gates were not removed because no operator ran; their nodes do not count as
    failed.
    """
    since = seen.group.may_bind_since
    late = [m for m in seen.group.members if m.bound_to is None and m.pin is not None]
    if not late or since is None or seen.now - since < seen.around.bind_timeout:
        return None
    tried = [m for m in late if m.phase is not Phase.GATED]
    first = (tried or late)[0]
    silent = "the scheduler gave no reason" if tried else "its scheduling gate was not removed"
    why = first.scheduler_says or silent
    return Ending(
        reason=EndingReason.RELEASED,
        message=f"not bound to {first.pin} within {seen.around.bind_timeout.total_seconds():g} s: {why}",
        failed_nodes=frozenset(m.pin for m in tried if m.pin is not None),
    )


def gated_while_paused(seen: Seen) -> Ending | None:
    """Nobody removes the gates of a paused set, and meanwhile its gated pods keep others from the room."""
    if not seen.paused or seen.group.phase is not Phase.GATED:
        return None
    return Ending(
        reason=EndingReason.RELEASED,
        message="spec.paused is true and its pods still have scheduling gates, so they are deleted; "
        "they are created again after spec.paused becomes false",
    )


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
)


def ending_of(
    group: ReplicaGroup,
    around: Surroundings,
    now: datetime,
    *,
    paused: bool = False,
) -> Ending | None:
    """Why a group must end; None when it need not, and while nobody knows whether all its pods exist."""
    if group.in_doubt:
        return None
    seen = Seen(group=group, around=around, now=now, paused=paused)
    return next((ending for check in ENDS_WHEN if (ending := check(seen))), None)


def without_the_unfit(
    groups: Sequence[ReplicaGroup], revision: str, wanted: int, reason: StrEnum
) -> tuple[ReplicaGroup, ...]:
    """The groups after a verdict that the model does not fit: all but one of those that never served end.

    At first nothing is known of a model, and all replicas get their pods. After the verdict they release
    their accelerators. The verdict is based on an estimate, so one of them goes on trying.
    """
    candidates = [g for g in groups if g.lives and g.revision == revision and not g.must_move]
    first_to_go = sorted(candidates, key=victim_order)
    surplus = max(0, len(candidates) - wanted)  # these leave because fewer are wanted
    trying = sorted(
        first_to_go[surplus:],
        key=lambda group: (not group.may_have_requests, group.phase is not Phase.LOADING, group.created_at),
    )
    given_up = {group.name for group in trying[1:] if not (group.may_have_requests or group.used)}
    if not given_up:
        return tuple(groups)
    why = f"{reason}: it releases its accelerators, and only {trying[0].name} still tries to start"
    ending = Ending(reason=EndingReason.RELEASED, message=why)
    return tuple(replace(group, ending=ending) if group.name in given_up else group for group in groups)


def ended_groups(groups: Sequence[ReplicaGroup]) -> list[ReplicaGroup]:
    """The groups that cannot go on and still have pods that nobody has deleted."""
    return [group for group in groups if group.ending is not None and group.staying]


def released_groups(groups: Sequence[ReplicaGroup]) -> list[ReplicaGroup]:
    """Those ended groups that never had all of their pods bound."""
    return [group for group in ended_groups(groups) if group.ending is not None and group.ending.never_ran]


def _turned_away(seen: Seen, member: Member) -> str | None:
    node = seen.around.node(member.pin)
    if node is None:
        return "no longer exists"
    if not node.ready:
        return "is not ready"
    if node.cordoned:
        return "was cordoned"
    for taint in node.taints:
        if taint.keeps_away and not any(t.tolerates(taint) for t in member.tolerations):
            return f"has the taint {taint.key}"
    return None


def _the_pod(seen: Seen, member: Member) -> str:
    return "the pod" if seen.group.stages == 1 else f"pod {member.name}"
