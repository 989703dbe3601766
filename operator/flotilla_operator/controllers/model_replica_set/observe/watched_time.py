"""Measures times by a clock that does not jump, and only while an operator looks.

A drain may end, and an update may be rolled back, because so much time has passed. The wall clock can jump by
an hour, and there can be hours without an operator. So the length of a drain is measured from this process'
first look at it, and times of a rollout are moved by what nobody has watched.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from flotilla_operator.replicas.group import ReplicaGroup
from flotilla_operator.replicas.revisions.rollout import Rollout

LONGEST_LOOK = timedelta(seconds=150)  # twice as long as two reconciles of a set are apart
SMALL = timedelta(seconds=5)  # clocks are corrected all the time


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One moment on both clocks; `steady` is in seconds."""

    now: datetime
    steady: float


@dataclass(slots=True)
class WatchedTime:
    """The looks of this process at sets and drains. A restart loses them, which only prolongs."""

    begun: dict[str, Look] = field(default_factory=dict)
    told: dict[str, Look] = field(default_factory=dict)
    drains: dict[str, dict[tuple[str, int], Look]] = field(default_factory=dict)

    def rollout(self, uid: str, rollout: Rollout, look: Look) -> Rollout:
        """The rollout as the status tells it, without the time since the last look that nobody watched."""
        self.begun[uid] = look
        last = self.told.get(uid)
        if last is None:
            return rollout.looked_at_again(look.now)
        watched = min(timedelta(seconds=look.steady - last.steady), LONGEST_LOOK)
        unwatched = look.now - last.now - watched
        return rollout if abs(unwatched) < SMALL else rollout.moved_by(unwatched)

    def was_told(self, uid: str) -> None:
        """Note that the effects of the last look are written."""
        if (look := self.begun.pop(uid, None)) is not None:
            self.told[uid] = look

    def drained(self, uid: str, groups: Iterable[ReplicaGroup], look: Look) -> tuple[ReplicaGroup, ...]:
        """The groups, each that drains with how long it has done so.

        A drain that a process before this one began counts from this one's first look. It only lasts longer,
        whereas the clock of that process may have been wrong.
        """
        held, fresh = self.drains.get(uid, {}), {}
        found = []
        for group in groups:
            if group.drain_epoch:
                place = (group.name, group.drain_epoch)
                first = fresh[place] = held.get(place, look)
                lasted = timedelta(seconds=look.steady - first.steady)
                group = replace(group, drained_for=lasted)  # noqa: PLW2901
            found.append(group)
        self.drains[uid] = fresh
        return tuple(found)

    def keep_only(self, uids: set[str]) -> None:
        """Forget all other sets."""
        for held in (self.begun, self.told, self.drains):
            for uid in held.keys() - uids:
                del held[uid]
