"""How many groups to create and which to remove: a pure decision over groups, the wanted number and the
revision.

Without a change of revision it is plain scaling. With one, groups are turned over one at a time: one of the
new revision is added beside the others, and when it is ready one of the old revision leaves, so the number
that serves never falls below what is wanted. A group of the old revision that is not ready serves nobody and
leaves at once, which is how a set with a broken revision gets to a good one. The victim is the group that is
not ready, then the one with the fewest requests in flight (unknown counts as none), then the youngest.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from flotilla_operator.controllers.model_replica_set.life import Phase, ReplicaGroup

SURGE = 1


class RemovalReason(StrEnum):
    """Why a group that could go on is removed."""

    SCALED_DOWN = "ScaledDown"
    OUTDATED = "Outdated"


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """A group that makes way."""

    group: ReplicaGroup
    reason: RemovalReason


@dataclass(frozen=True, slots=True, kw_only=True)
class Turnover:
    """What to do now: `create` groups are wanted in place of missing ones, `surge` beside the ones being
    updated.
    """

    create: int
    surge: int
    removals: tuple[Removal, ...]
    outdated: int

    @property
    def wanted_new(self) -> int:
        """How many groups should come into being."""
        return self.create + self.surge


def decide(groups: Sequence[ReplicaGroup], *, wanted: int, revision: str) -> Turnover:
    """The next step towards `wanted` groups of `revision`."""
    live = [group for group in groups if group.lives]
    fresh = [group for group in live if group.revision == revision]
    stale = [group for group in live if group.revision != revision]
    ready_fresh = sum(group.phase is Phase.READY for group in fresh)

    kept_stale, outdated = _split(
        [group for group in stale if group.phase is Phase.READY], keep=max(0, wanted - ready_fresh)
    )
    outdated = [*(group for group in stale if group.phase is not Phase.READY), *outdated]
    kept_fresh, surplus = _split(fresh, keep=wanted)

    missing = max(0, wanted - len(kept_stale) - len(kept_fresh))
    starting = len(kept_fresh) - sum(group.phase is Phase.READY for group in kept_fresh)
    can_surge = kept_stale and not missing and not starting and len(kept_fresh) < wanted
    return Turnover(
        create=missing,
        surge=SURGE if can_surge else 0,
        removals=(
            *(Removal(group=group, reason=RemovalReason.SCALED_DOWN) for group in surplus),
            *(Removal(group=group, reason=RemovalReason.OUTDATED) for group in outdated),
        ),
        outdated=len(stale),
    )


def victim_order(group: ReplicaGroup) -> tuple[bool, int, float, str]:
    """The order in which groups leave."""
    return (group.phase is Phase.READY, group.in_flight or 0, -group.created_at.timestamp(), group.name)


def _split(groups: Sequence[ReplicaGroup], *, keep: int) -> tuple[list[ReplicaGroup], list[ReplicaGroup]]:
    """The ones to keep, and those that leave because there are more."""
    leaving_first = sorted(groups, key=victim_order)
    excess = max(0, len(leaving_first) - keep)
    return leaving_first[excess:], leaving_first[:excess]
