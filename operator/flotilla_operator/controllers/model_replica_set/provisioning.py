"""Which placeholders to make and which to take away: a pure decision over what is there and what is missing.

A placeholder stands in a slot; a slot is one replica's worth of them, whole. There are as many slots as
replicas that fit nowhere, and those that are on their way to their nodes keep theirs until they are bound:
they preempt placeholders themselves, and an autoscaler would take away a node that is empty for a moment.
Which replica gets which node does not matter, so slots belong to no replica.

A slot that has not led to a replica within the time-out is taken away whole, so the autoscaler takes back
what it could bring of it. Then there is a pause, doubled each time, because a pool at its limit would else
bring half of a replica's nodes again and again, and somebody pays for them.

While something else holds the replicas back (they have failed and back off, a secret is missing) nobody knows
whether they fit: nothing new is asked for then, and what was asked for stays until its time-out, as far as
replicas wait for it. Nobody is to blame for a time-out meanwhile: the nodes may be there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from flotilla_operator.workloads.placeholder import Place

MOST_SLOTS = 50  # the others follow when these have their nodes
LONGEST_PAUSE = timedelta(hours=1)
MOST_DOUBLINGS = 12  # a second becomes longer than an hour; without an end the product is no timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Placeholder:
    """A placeholder as its pod shows it; a `useful` one is of the right shape, and its pod is not over."""

    name: str
    uid: str
    place: Place
    created_at: datetime
    node: str | None
    useful: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is missing: `replicas` that fit nowhere, of so many `stages` each; `starting` are on their way.
    While they are `held_back` the replicas are all that wait, for nobody knows how many of them fit.
    """

    replicas: int
    starting: int
    stages: int
    timeout: timedelta
    held_back: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempts:
    """What became of asking so far: time-outs one after another, and when it is tried again."""

    timeouts: int = 0
    last_timeout: str = ""
    retry_at: datetime | None = None

    def pausing(self, now: datetime) -> bool:
        """Whether nothing is asked for now."""
        return self.retry_at is not None and now < self.retry_at

    def timed_out(self, why: str, timeout: timedelta, now: datetime) -> "Attempts":
        """One more time-out, unless it belongs to the last one."""
        if self.pausing(now):
            return self
        doublings = min(self.timeouts, MOST_DOUBLINGS)
        pause = min(timeout * 2**doublings, max(timeout, LONGEST_PAUSE))
        return Attempts(timeouts=self.timeouts + 1, last_timeout=why, retry_at=now + pause)


@dataclass(frozen=True, slots=True, kw_only=True)
class Provisioning:
    """What to do; `kept` stay, and `asked` and `attempts` say the rest."""

    create: tuple[Place, ...] = ()
    remove: tuple[Placeholder, ...] = ()
    kept: tuple[Placeholder, ...] = ()
    attempts: Attempts = Attempts()
    look_again_seconds: float | None = None

    @property
    def standing(self) -> int:
        """How many placeholders there are after this."""
        return len(self.kept) + len(self.create)

    @property
    def bound(self) -> int:
        """How many of them have a node."""
        return sum(placeholder.node is not None for placeholder in self.kept)


def decide(asked: Asked, held: Sequence[Placeholder], attempts: Attempts, now: datetime) -> Provisioning:
    """The next step towards as many whole slots as replicas are missing."""
    useless = [placeholder for placeholder in held if not placeholder.useful]
    slots = _slots([placeholder for placeholder in held if placeholder.useful])
    expired = _expired(slots, asked, now)
    standing = {slot: pods for slot, pods in slots.items() if slot not in expired}
    wanted = min(asked.replicas, MOST_SLOTS)
    kept = _most_bound(standing, wanted + asked.starting)
    if not wanted:
        attempts = Attempts()
    elif expired and not asked.held_back:
        attempts = attempts.timed_out(_what_did_not_come(expired, asked), asked.timeout, now)
    pods = tuple(pod for slot in sorted(kept) for pod in kept[slot])
    return Provisioning(
        create=() if asked.held_back or attempts.pausing(now) else _missing(kept, asked.stages, wanted),
        remove=(*useless, *(pod for slot in sorted(slots) if slot not in kept for pod in slots[slot])),
        kept=pods,
        attempts=attempts,
        look_again_seconds=_look_again(pods, asked, attempts, now),
    )


Slots = Mapping[int, Sequence[Placeholder]]


def _slots(placeholders: Sequence[Placeholder]) -> Slots:
    found: dict[int, list[Placeholder]] = {}
    for placeholder in sorted(placeholders, key=lambda p: (p.place.slot, p.place.stage, p.name)):
        found.setdefault(placeholder.place.slot, []).append(placeholder)
    return found


def _expired(slots: Slots, asked: Asked, now: datetime) -> Slots:
    """The slots that have led to nothing; while a replica is on its way, its own may be among them."""
    if asked.starting:
        return {}
    return {
        slot: pods
        for slot, pods in slots.items()
        if now - min(pod.created_at for pod in pods) >= asked.timeout
    }


def _most_bound(slots: Slots, count: int) -> Slots:
    """So many slots, those first that have got furthest: what leaves is what has no node yet."""

    def furthest(slot: int) -> tuple[int, int]:
        return (-sum(pod.node is not None for pod in slots[slot]), slot)

    return {slot: slots[slot] for slot in sorted(slots, key=furthest)[:count]}


def _missing(kept: Slots, stages: int, replicas: int) -> tuple[Place, ...]:
    """The places to fill, begun slots first; what is preempted for a replica is not made again."""
    lacking = replicas * stages - sum(len(pods) for pods in kept.values())
    fresh = (slot for slot in range(replicas + len(kept)) if slot not in kept)
    slots = [*sorted(kept), *(slot for slot, _ in zip(fresh, range(replicas), strict=False))]
    taken = {pod.place for pods in kept.values() for pod in pods}
    places = (Place(slot=slot, stage=stage) for slot in slots for stage in range(stages))
    return tuple(place for place in places if place not in taken)[: max(0, lacking)]


def _what_did_not_come(expired: Slots, asked: Asked) -> str:
    wanted = len(expired) * asked.stages
    bound = sum(pod.node is not None for pods in expired.values() for pod in pods)
    within = f"within {asked.timeout.total_seconds():.0f} s"
    if bound >= wanted:
        return f"every placeholder pod found a node {within}, and still no replica fits"
    return f"{wanted - bound} of {wanted} placeholder pods found no node {within}"


def _look_again(kept: Sequence[Placeholder], asked: Asked, attempts: Attempts, now: datetime) -> float | None:
    """At the next time-out, or when it is to be tried again."""
    times = [pod.created_at + asked.timeout for pod in kept]
    if attempts.retry_at is not None and attempts.pausing(now):
        times.append(attempts.retry_at)
    return max((min(times) - now).total_seconds(), 1.0) if times else None
