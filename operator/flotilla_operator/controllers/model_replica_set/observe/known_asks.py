"""Asks of each set to placement, computed again only when something of the set has changed.

A thousand sets may wait. Each of their reconciles needs to know what all the others ask for, so this is kept
between reconciles, beside the last placement round that was made of it.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import islice

from flotilla_operator.controllers.model_replica_set.observe.parsed_sets import ParsedSet
from flotilla_operator.replicas.rounds import Asked, Asks, Room, Round, foreseen

KEPT_FOR = timedelta(seconds=60)  # back-offs and failed pins end without an event
SILENT_FOR = timedelta(minutes=2)  # a set that waits is reconciled more often than that


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """Last known asks of a set. `of` is the set they were computed from; None for its own word.

    `silent_since` is the time since which others have worked out that it asks for room, without its own word.
    """

    name: str
    asked: Asked
    at: datetime
    of: ParsedSet | None = None
    silent_since: datetime | None = None


@dataclass(slots=True)
class KnownAsks:
    """Can be lost: then all of it is worked out again."""

    kept: dict[str, Kept] = field(default_factory=dict)
    changed: set[str] = field(default_factory=set)
    version: int = 0
    last_round: Round | None = None

    def seen_by(
        self, me: ParsedSet, others: Sequence[ParsedSet], ask: Callable[[ParsedSet], Asked], now: datetime
    ) -> Asks:
        """Return all asks as this set sees them; `ask` computes those of another set."""
        if len(self.kept) > len(others):
            self._forget_the_gone({me.uid, *(other.uid for other in others)})
        found: dict[str, Asked] = {}
        for other in others:
            kept = self.kept.get(other.uid)
            if kept is None or self._is_stale(kept, other, now):
                kept = _worked_out(other, ask(other), kept, now)
                self._keep(other.uid, kept)
            if kept.asked.groups:
                found[kept.name] = kept.asked
        mine = self.kept.get(me.uid)
        return Asks(others=found, own=None if mine is None else mine.asked, version=self.version)

    def note(self, uid: str, name: str, room: Room, started: Collection[str], now: datetime) -> None:
        """Keep what a set asked for, less the groups that it has started."""
        if not room.asked.groups and uid not in self.kept:
            return
        if room.made is not None:
            self.last_round = room.made
            self.kept[uid] = Kept(name=name, asked=room.asked, at=now)
        rest = tuple(group for group in room.asked.groups if group.name not in started)
        self._keep(uid, Kept(name=name, asked=replace(room.asked, groups=rest), at=now))

    def first_in_line(self, count: int) -> Collection[str]:
        """The UIDs of a few sets that ask for room."""
        return list(islice((uid for uid, kept in self.kept.items() if kept.asked.groups), count))

    def has_changed(self, uid: str) -> None:
        """Work out anew what the set with this UID asks for."""
        if uid in self.kept:
            self.changed.add(uid)

    def all_changed(self) -> None:
        """Work out everything anew, because something changed that all sets depend on."""
        self.changed.update(self.kept)

    def _forget_the_gone(self, alive: Collection[str]) -> None:
        """Forget sets that are gone. Room that was kept for one that waited is for others now."""
        for uid in self.kept.keys() - alive:
            if self.kept.pop(uid).asked.groups:
                self.version += 1
            self.changed.discard(uid)

    def _is_stale(self, kept: Kept, other: ParsedSet, now: datetime) -> bool:
        written_since = kept.of is not None and kept.of is not other
        return written_since or other.uid in self.changed or now - kept.at >= KEPT_FOR

    def _keep(self, uid: str, kept: Kept) -> None:
        before = self.kept.get(uid)
        if not foreseen(None if before is None else before.asked, kept.asked, self.last_round, kept.name):
            self.version += 1
        self.kept[uid] = kept
        self.changed.discard(uid)


def _worked_out(other: ParsedSet, asked: Asked, before: Kept | None, now: datetime) -> Kept:
    """Return the asks of another set; none if no reconcile of its own has confirmed them for long.

    Such a set cannot be reconciled, for example because its Secret may not be read. It would hold room that
    it cannot use.
    """
    silent_since = None
    if asked.groups:
        silent_since = now if before is None or before.silent_since is None else before.silent_since
    if silent_since is not None and now - silent_since > SILENT_FOR:
        asked = Asked()
    return Kept(name=other.full_name, asked=asked, at=now, of=other, silent_since=silent_since)
