"""Decides which placeholder pods to create and which to delete, from what exists and what is missing. Pure.

A slot is the full number of placeholders for one replica. There is one slot for each replica that fits
nowhere. Replicas on the way to their nodes keep their slots until they are bound, because they preempt the
placeholders themselves, and an autoscaler would remove a node that is empty for a moment. It does not matter
which replica gets which node, so a slot belongs to no particular replica.

A slot that has not led to a replica within the time-out is deleted whole, so that the autoscaler removes the
nodes it brought for it. Then there is a pause, which doubles each time. Otherwise a node pool at its limit
would bring half of a replica's nodes again and again, and somebody would pay for them.

While something else holds the replicas back (a backoff, a missing secret), nobody knows whether they fit.
Then nothing new is asked for, and existing slots stay until their time-out if replicas wait for them. Such a
time-out is not counted, because the nodes may have come.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

MOST_SLOTS = 50  # more are created when these have their nodes
LONGEST_PAUSE = timedelta(hours=1)
MOST_DOUBLINGS = 12  # turns a second into more than an hour; without a limit timedelta overflows


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceholderId:
    """Identifies one of the set's placeholders: `slot` is its replica, `stage` is the pod of the replica."""

    slot: int
    stage: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Placeholder:
    """A placeholder as its pod shows it.

    `shape` is the hash of what it requests. One that has ended, or has the wrong shape, is not `useful`.
    """

    name: str
    uid: str
    id: PlaceholderId
    created_at: datetime
    node: str | None
    shape: str = ""
    useful: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Unplaced:
    """Replicas without a node: `replicas` that fit nowhere, each of `stages` stages.

    `starting` counts the replicas on the way to their nodes. With `held_back`, `replicas` counts all that
    wait, because nobody knows how many of them fit.
    """

    replicas: int
    starting: int
    stages: int
    timeout: timedelta
    held_back: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempts:
    """How asking has gone so far: the time-outs in a row, and when to ask again."""

    timeouts: int = 0
    last_timeout: str = ""
    retry_at: datetime | None = None

    def pausing(self, now: datetime) -> bool:
        """Whether nothing is asked for at the moment."""
        return self.retry_at is not None and now < self.retry_at

    def timed_out(self, why: str, timeout: timedelta, now: datetime) -> "Attempts":
        """Count one more time-out, unless it belongs to the one that began the present pause."""
        if self.pausing(now):
            return self
        doublings = min(self.timeouts, MOST_DOUBLINGS)
        pause = min(timeout * 2**doublings, max(timeout, LONGEST_PAUSE))
        return Attempts(timeouts=self.timeouts + 1, last_timeout=why, retry_at=now + pause)


@dataclass(frozen=True, slots=True, kw_only=True)
class Provisioning:
    """Placeholders to create, to delete and to keep."""

    create: tuple[PlaceholderId, ...] = ()
    remove: tuple[Placeholder, ...] = ()
    kept: tuple[Placeholder, ...] = ()
    attempts: Attempts = Attempts()
    look_again_seconds: float | None = None

    @property
    def standing(self) -> int:
        """How many placeholders there are after this step."""
        return len(self.kept) + len(self.create)

    @property
    def bound(self) -> int:
        """How many of the kept placeholders have a node."""
        return sum(placeholder.node is not None for placeholder in self.kept)


def decide(
    unplaced: Unplaced, held: Sequence[Placeholder], attempts: Attempts, now: datetime
) -> Provisioning:
    """The next step towards one whole slot for each missing replica."""
    useless = [placeholder for placeholder in held if not placeholder.useful]
    slots = _slots([placeholder for placeholder in held if placeholder.useful])
    expired = _expired(slots, unplaced, now)
    standing = {slot: pods for slot, pods in slots.items() if slot not in expired}
    wanted = min(unplaced.replicas, MOST_SLOTS)
    kept = _most_bound(standing, wanted + unplaced.starting)
    if not wanted:
        attempts = Attempts()
    elif expired and not unplaced.held_back:
        attempts = attempts.timed_out(_what_did_not_come(expired, unplaced), unplaced.timeout, now)
    pods = tuple(pod for slot in sorted(kept) for pod in kept[slot])
    return Provisioning(
        create=() if unplaced.held_back or attempts.pausing(now) else _missing(kept, unplaced.stages, wanted),
        remove=(*useless, *(pod for slot in sorted(slots) if slot not in kept for pod in slots[slot])),
        kept=pods,
        attempts=attempts,
        look_again_seconds=_look_again(pods, unplaced, attempts, now),
    )


Slots = Mapping[int, Sequence[Placeholder]]


def _slots(placeholders: Sequence[Placeholder]) -> Slots:
    found: dict[int, list[Placeholder]] = {}
    for placeholder in sorted(placeholders, key=lambda p: (p.id.slot, p.id.stage, p.name)):
        found.setdefault(placeholder.id.slot, []).append(placeholder)
    return found


def _expired(slots: Slots, unplaced: Unplaced, now: datetime) -> Slots:
    """The slots that have reached the time-out. While replicas start, none has: they may need their slots."""
    if unplaced.starting:
        return {}
    return {
        slot: pods
        for slot, pods in slots.items()
        if now - min(pod.created_at for pod in pods) >= unplaced.timeout
    }


def _most_bound(slots: Slots, count: int) -> Slots:
    """This many slots, those with the most bound placeholders first, so that the others are given up."""

    def furthest(slot: int) -> tuple[int, int]:
        return (-sum(pod.node is not None for pod in slots[slot]), slot)

    return {slot: slots[slot] for slot in sorted(slots, key=furthest)[:count]}


def _missing(kept: Slots, stages: int, replicas: int) -> tuple[PlaceholderId, ...]:
    """The places to fill, incomplete slots first. A preempted placeholder is not created again."""
    lacking = replicas * stages - sum(len(pods) for pods in kept.values())
    fresh = (slot for slot in range(replicas + len(kept)) if slot not in kept)
    slots = [*sorted(kept), *(slot for slot, _ in zip(fresh, range(replicas), strict=False))]
    taken = {pod.id for pods in kept.values() for pod in pods}
    places = (PlaceholderId(slot=slot, stage=stage) for slot in slots for stage in range(stages))
    return tuple(place for place in places if place not in taken)[: max(0, lacking)]


def _what_did_not_come(expired: Slots, unplaced: Unplaced) -> str:
    wanted = len(expired) * unplaced.stages
    bound = sum(pod.node is not None for pods in expired.values() for pod in pods)
    within = f"within {unplaced.timeout.total_seconds():.0f} s"
    if bound >= wanted:
        return f"every placeholder pod found a node {within}, and still no replica fits"
    return f"{wanted - bound} of {wanted} placeholder pods found no node {within}"


def _look_again(
    kept: Sequence[Placeholder], unplaced: Unplaced, attempts: Attempts, now: datetime
) -> float | None:
    """At the next time-out, or when it is time to ask again."""
    times = [pod.created_at + unplaced.timeout for pod in kept]
    if attempts.retry_at is not None and attempts.pausing(now):
        times.append(attempts.retry_at)
    return max((min(times) - now).total_seconds(), 1.0) if times else None
