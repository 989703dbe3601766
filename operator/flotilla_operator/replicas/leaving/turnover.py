"""Decides which groups are created and which leave. Pure.

Scaling, updates, rebalancing and emptying nodes are one mechanism. Groups to be replaced and groups that may
stay exist side by side, and the pace limits how fast the ones give way to the others. No step reduces the
serving groups below `wanted − max_unavailable`, or raises those that live or drain above `wanted +
max_surge`; failures may. While no group of the spec can start, what runs stays. A group whose pods are being
deleted is not counted, because placement sees when its accelerators are free. A group that leaves drains
first (draining.py). Until one of its pods is deleted it may come back. It does when it is wanted again,
before a new group is created; the one with the most sessions comes back first.

The first to leave is a group that is not ready, then the one with the fewest sessions (unknown counts as
none), then the one on whose nodes others hold the fewest accelerators, so that whole nodes become free, then
the youngest.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from flotilla_operator.replicas.group import ReplicaGroup

MOVED_AT_ONCE = 1  # groups of the right revision that only change nodes


class RemovalReason(StrEnum):
    """Why a group that could go on is removed."""

    SCALED_DOWN = "ScaledDown"
    OUTDATED = "Outdated"
    NODE_LEAVES = "NodeLeaves"
    REBALANCED = "Rebalanced"
    SERVER_ID_TAKEN = "ServerIdTaken"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How many groups more than wanted may exist, and how many fewer than wanted may serve."""

    max_surge: int = 1
    max_unavailable: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """A group to remove."""

    group: ReplicaGroup
    reason: RemovalReason


@dataclass(frozen=True, slots=True, kw_only=True)
class Turnover:
    """Next step of a turnover.

    `create` groups are wanted in place of missing ones, and `surge` groups beside those to be replaced.
    `removals` leave, and `returning` stop draining. `updated` groups have the wanted revision and stay,
    `outdated` have another one, and `moving` are on nodes that are being emptied.
    """

    create: int = 0
    surge: int = 0
    removals: tuple[Removal, ...] = ()
    returning: tuple[ReplicaGroup, ...] = ()
    updated: int = 0
    outdated: int = 0
    moving: int = 0

    @property
    def wanted_new(self) -> int:
        """How many groups should be created."""
        return self.create + self.surge


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """The wanted state and the pace, by which every step is judged.

    `replaces` is False while no group can start: then groups leave only where more exist than are wanted.
    """

    wanted: int
    revision: str
    pace: Pace = Pace()
    replaces: bool = True

    @property
    def floor(self) -> int:
        """How many groups must serve."""
        return max(0, self.wanted - (self.pace.max_unavailable if self.replaces else 0))

    def is_met_by(self, group: ReplicaGroup) -> bool:
        """Whether this group may stay as it is."""
        return group.revision == self.revision and not group.must_move

    def reason_against(self, group: ReplicaGroup) -> RemovalReason:
        """Why this group leaves."""
        if group.revision != self.revision:
            return RemovalReason.OUTDATED
        if group.node_leaves:
            return RemovalReason.NODE_LEAVES
        if group.shares_id:
            return RemovalReason.SERVER_ID_TAKEN
        return RemovalReason.REBALANCED if group.moved else RemovalReason.SCALED_DOWN


def decide(groups: Sequence[ReplicaGroup], goal: Goal) -> Turnover:
    """The next step towards the goal."""
    draining = [group for group in groups if group.may_return]
    live = [group for group in groups if group.lives]
    returning = _returning(live, draining, goal)
    live = [*live, *returning]
    draining = _without(draining, returning)

    begun = _leaving(live, draining, goal)
    staying = _without(live, begun)
    occupying = len(staying) + len(draining) + sum(not group.goes_at_once for group in begun)
    room = max(0, goal.wanted + goal.pace.max_surge - occupying)
    create = min(max(0, goal.wanted - len(staying)), room)
    leaving = [*draining, *begun]
    return Turnover(
        create=create,
        surge=_surge(staying, goal, create=create, room=room - create),
        removals=tuple(Removal(group=group, reason=goal.reason_against(group)) for group in leaving),
        returning=tuple(returning),
        updated=sum(goal.is_met_by(group) for group in staying),
        outdated=sum(group.revision != goal.revision for group in (*live, *draining)),
        moving=sum(group.node_leaves and group.revision == goal.revision for group in (*live, *draining)),
    )


def victim_order(group: ReplicaGroup) -> tuple[bool, int, int, float, str]:
    """The order in which groups leave. Groups that drain come back in the reverse order."""
    sessions = (group.sessions or 0) + (group.in_flight or 0)
    return (group.ready, sessions, group.others_on_nodes, -group.created_at.timestamp(), group.name)


def _returning(
    live: Sequence[ReplicaGroup], draining: Sequence[ReplicaGroup], goal: Goal
) -> list[ReplicaGroup]:
    """Groups that drain and should serve again.

    One that is ready is preferred to one that still has to load. Others return when failures leave too few
    that serve.
    """
    coming_back_first = sorted(draining, key=victim_order, reverse=True)
    fresh = [group for group in live if goal.is_met_by(group)]
    good = [group for group in coming_back_first if goal.is_met_by(group)]
    not_served_yet = max(0, goal.wanted - sum(group.ready for group in fresh))
    in_place_of_loading = min(sum(group.ready for group in good), not_served_yet)
    returning = good[: max(goal.wanted - len(fresh), in_place_of_loading, 0)]
    serving = sum(group.ready for group in (*live, *returning))
    others = [group for group in _without(coming_back_first, returning) if group.ready]
    return [*returning, *others[: max(0, goal.floor - serving)]]


def _leaving(
    live: Sequence[ReplicaGroup], draining: Sequence[ReplicaGroup], goal: Goal
) -> list[ReplicaGroup]:
    """The groups that begin to leave now."""
    first_to_go = sorted(live, key=victim_order)
    if not goal.replaces:
        outdated_first = sorted(first_to_go, key=goal.is_met_by)
        return outdated_first[: max(0, len(live) - goal.wanted)]
    fresh = [group for group in first_to_go if goal.is_met_by(group)]
    surplus = fresh[: max(0, len(fresh) - goal.wanted)]
    replaced = [group for group in first_to_go if not goal.is_met_by(group)]
    useless = [group for group in replaced if not group.ready]
    serving = sum(group.ready for group in _without(live, surplus))
    spare = max(0, serving - goal.floor)
    on_the_move = sum(group.revision == goal.revision and group.must_move for group in draining)
    chosen: list[ReplicaGroup] = []
    for group in replaced:
        moves_only = group.revision == goal.revision
        if not group.ready or len(chosen) == spare or (moves_only and on_the_move >= MOVED_AT_ONCE):
            continue
        on_the_move += moves_only
        chosen.append(group)
    return [*surplus, *useless, *chosen]


def _surge(staying: Sequence[ReplicaGroup], goal: Goal, *, create: int, room: int) -> int:
    """How many groups to add beside those that are still to be replaced."""
    fresh = [group for group in staying if goal.is_met_by(group)]
    replaced = [group for group in staying if not goal.is_met_by(group)]
    if not replaced:
        return 0
    surge = min(max(0, goal.wanted - len(fresh) - create), room)
    if all(group.revision == goal.revision for group in replaced):
        starting = create + sum(not group.ready for group in fresh)
        return min(surge, max(0, MOVED_AT_ONCE - starting))
    return surge


def _without(groups: Sequence[ReplicaGroup], others: Sequence[ReplicaGroup]) -> list[ReplicaGroup]:
    names = {group.name for group in others}
    return [group for group in groups if group.name not in names]
