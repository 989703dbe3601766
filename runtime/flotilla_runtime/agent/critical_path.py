"""The critical path of a task: what it would have to do faster to end sooner. Pure, told entry by entry.

A path is a chain of stretches of time, each of which began when the one before it had ended: calls, and waits
for a worker. The critical path is the longest such chain, so it is never longer than the task took. Of calls
that ran at the same time it has the slowest; what an agent itself did between its calls is in none.

A call that was given up counts when nothing else had ended just before: then the task waited for it until a
time-out. Else it lost, and the task waited for the one that won.

Stretches come in the order of their ends, so one pass finds the chain: the longest that ends with a stretch
is the longest of those that ended before it began, and it.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from flotilla_runtime.agent.journal import (
    CallKind,
    CallOutcome,
    Claimed,
    Done,
    Ended,
    Entry,
    HandedOver,
    Intended,
    Resumed,
    Submitted,
)

LOST_WITHIN_MS: Final = 250  # in which what lost a race is given up after its winner has ended
NO_CALL: Final = ""


class StretchKind(StrEnum):
    """The kind of a stretch of a path: that of its call, or the wait for a worker."""

    QUEUE = "Queue"
    RETRIEVE = CallKind.RETRIEVE.value
    MODEL = CallKind.MODEL.value
    TOOL = CallKind.TOOL.value
    SPAWN = CallKind.SPAWN.value
    SLEEP = CallKind.SLEEP.value
    APPROVE = CallKind.APPROVE.value
    SIGNAL = CallKind.SIGNAL.value
    OTHER = "Other"


_KINDS: Final = {kind.value: kind for kind in StretchKind} | {
    CallKind.APPROVE_AGAIN.value: StretchKind.APPROVE
}
_OF_A_WORKER: Final = frozenset({StretchKind.MODEL, StretchKind.TOOL, StretchKind.RETRIEVE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """A stretch of time of a task, in milliseconds since the epoch; `call` is empty while it waited."""

    call: str = NO_CALL
    kind: StretchKind
    target: str = ""
    began_at: int
    ended_at: int
    child: str | None = None

    @property
    def took_ms(self) -> int:
        """How long it is."""
        return self.ended_at - self.began_at


@dataclass(slots=True)
class _Chains:
    """The longest chains of the stretches so far, of which each ends no earlier than the one before it."""

    stretches: list[Stretch] = field(default_factory=list)
    _ends: list[int] = field(default_factory=list)
    _longest: list[int] = field(default_factory=lambda: [0])  # among the first n
    _taken: list[bool] = field(default_factory=list)  # whether the longest among the first n has the nth

    def add(self, stretch: Stretch) -> None:
        """Know of one more."""
        with_it = self._longest[self._before(stretch, len(self.stretches))] + stretch.took_ms
        without = self._longest[-1]
        self.stretches.append(stretch)
        self._ends.append(stretch.ended_at)
        self._taken.append(with_it > without)
        self._longest.append(max(with_it, without))

    def longest(self, more: Sequence[Stretch] = ()) -> tuple[Stretch, ...]:
        """The longest chain of all, with these that end last, at the same time."""
        known = len(self.stretches)
        chain, place = [], known
        last = max(more, key=lambda one: self._longest[self._before(one, known)] + one.took_ms, default=None)
        if last is not None and self._longest[self._before(last, known)] + last.took_ms > self._longest[-1]:
            chain, place = [last], self._before(last, known)
        while place > 0:
            if self._taken[place - 1]:
                stretch = self.stretches[place - 1]
                chain.append(stretch)
                place = self._before(stretch, place - 1)
            else:
                place -= 1
        return tuple(reversed(chain))

    def _before(self, stretch: Stretch, known: int) -> int:
        """How many of the first ones had ended when it began."""
        return bisect_right(self._ends, stretch.began_at, hi=known)


@dataclass(slots=True)
class CriticalPath:
    """The critical path of the entries so far. `told` gives each entry, in order."""

    _chains: _Chains = field(default_factory=_Chains)
    _open: dict[str, Stretch] = field(default_factory=dict)
    _waits_since: int | None = None
    _now: int = 0
    _won_at: int | None = None
    _handed_over: bool = False

    def told(self, entry: Entry) -> None:
        """Count an entry. Several clocks write them, so one can seem to be before the one that it follows."""
        self._now = max(self._now, entry.at)
        match entry:
            case Submitted() | Resumed():
                self._waits_since = self._now
            case HandedOver():
                self._cut()
                self._waits_since, self._handed_over = self._now, True
            case Claimed():
                self._claimed()
            case Intended():
                self._open.setdefault(entry.call, self._begun(entry))
            case Done():
                self._done(entry)
            case Ended():
                self._waited()
                for stretch in self._open.values():
                    self._add(_until(stretch, self._now))
                self._open.clear()

    def path(self, now_ms: int | None = None) -> tuple[Stretch, ...]:
        """The path until now, or until the task ended."""
        now = max(self._now, now_ms or 0)
        under_way = [*self._open.values()]
        if self._waits_since is not None:
            under_way.append(_wait(self._waits_since, now))
        return self._chains.longest([_until(stretch, now) for stretch in under_way])

    def _begun(self, intent: Intended) -> Stretch:
        return Stretch(
            call=intent.call,
            kind=_KINDS.get(intent.kind.value, StretchKind.OTHER),
            target=intent.target,
            began_at=self._now,
            ended_at=self._now,
            child=intent.child,
        )

    def _done(self, done: Done) -> None:
        stretch = self._open.pop(done.call, None)
        if stretch is None:
            return
        if done.outcome is not CallOutcome.CANCELLED:
            self._won_at = self._now
        elif self._won_at is not None and self._now - self._won_at <= LOST_WITHIN_MS:
            return
        self._add(_until(stretch, self._now))

    def _claimed(self) -> None:
        """After a worker was lost, its calls begin anew; until then the task did not wait in the queue."""
        if self._waits_since is None:
            self._cut()
        elif self._handed_over:
            self._begin_anew()
        self._handed_over = False
        self._waited()

    def _cut(self) -> None:
        """End what workers did themselves. What waits for somebody else goes on without a worker."""
        for stretch in self._open.values():
            if stretch.kind in _OF_A_WORKER:
                self._add(_until(stretch, self._now))
        self._begin_anew()

    def _begin_anew(self) -> None:
        for call, stretch in self._open.items():
            if stretch.kind in _OF_A_WORKER:
                self._open[call] = replace(stretch, began_at=self._now)

    def _waited(self) -> None:
        if self._waits_since is not None:
            self._add(_wait(self._waits_since, self._now))
        self._waits_since = None

    def _add(self, stretch: Stretch) -> None:
        if stretch.took_ms > 0:
            self._chains.add(stretch)


def critical_path(entries: Sequence[Entry]) -> tuple[Stretch, ...]:
    """The critical path of a whole journal."""
    path = CriticalPath()
    for entry in entries:
        path.told(entry)
    return path.path()


def _wait(since: int, until: int) -> Stretch:
    return Stretch(kind=StretchKind.QUEUE, began_at=since, ended_at=until)


def _until(stretch: Stretch, at: int) -> Stretch:
    return replace(stretch, ended_at=at)
