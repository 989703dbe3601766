"""Pods whose creation was not answered, until it is known whether they exist.

A POST without an answer may have been carried out. A second one, for a pod of another name, would double a
replica. So the pod is kept in the cache as it was sent: its group keeps its name, its server id and its room.
The watch replaces it by the real pod. If that has not come after a minute, the API server is asked. If it
knows no such pod, the pod is dropped and may be created again.

Only pods are kept like this. Everything else has a name that stays the same, so that the API server refuses
a second POST.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from flotilla_operator.objects.resources import Manifest, ObjectRef
from flotilla_operator.objects.times import timestamp
from flotilla_operator.objects.unseen import unseen_uid

ASKED_FOR_AFTER_SECONDS: Final = 60.0
ANSWERED_BELOW: Final = 500  # a refusal with a smaller status says that nothing was created


@dataclass(frozen=True, slots=True, kw_only=True)
class Unanswered:
    """One pod whose creation was not answered; `uid` is the one that it has in the cache."""

    ref: ObjectRef
    uid: str
    ask_at: float


class UnansweredCreates:
    """The pods in doubt, by the UID of the object for which they were created."""

    def __init__(self, clock: Callable[[], float], now: Callable[[], datetime]) -> None:
        self._clock = clock
        self._now = now
        self._held: dict[str, dict[ObjectRef, Unanswered]] = {}

    def note(self, owner_uid: str, ref: ObjectRef, sent: Manifest) -> Manifest:
        """Remember that this creation was not answered; returns the pod as it is to be cached."""
        uid = unseen_uid(f"{ref.namespace}-{ref.name}-{self._clock():.6f}")
        ask_at = self._clock() + ASKED_FOR_AFTER_SECONDS
        self._held.setdefault(owner_uid, {})[ref] = Unanswered(ref=ref, uid=uid, ask_at=ask_at)
        metadata = {**sent["metadata"], "uid": uid, "creationTimestamp": timestamp(self._now())}
        return {**sent, "metadata": metadata, "status": {"phase": "Pending"}}

    def of(self, owner_uid: str) -> Iterator[Unanswered]:
        """Those of one owner."""
        yield from tuple(self._held.get(owner_uid, {}).values())

    def is_due(self, one: Unanswered) -> bool:
        """Whether the API server is to be asked for it now."""
        return self._clock() >= one.ask_at

    def next_seconds(self, owner_uid: str) -> float | None:
        """The time until the next one of this owner is due; None if there is none."""
        times = [one.ask_at for one in self._held.get(owner_uid, {}).values()]
        return max(0.0, min(times) - self._clock()) if times else None

    def settle(self, owner_uid: str, one: Unanswered) -> None:
        """Forget one of which it is known now whether it exists."""
        held = self._held.get(owner_uid, {})
        held.pop(one.ref, None)
        if not held:
            self._held.pop(owner_uid, None)

    def forget(self, owner_uid: str) -> list[Unanswered]:
        """Forget those of an owner that is gone, and return them."""
        return list(self._held.pop(owner_uid, {}).values())
