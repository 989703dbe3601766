"""Decides when a status is written.

A change that people or tools wait for is written at once: a condition's status or reason, the observed
generation, a phase or a URL. So is a change that a later reconcile could not compute again: a counted
failure, the times of a rollout, and the time since which a replica waits, when the pods that carried this
time are gone. Figures change all the time, so they are written at most once per interval and object. A status
that equals the live one is not written.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from flotilla_operator.objects.resources import Manifest

INTERVAL_SECONDS = 10.0
TIMES = ("progressTime", "trialTime", "clockStoppedTime")  # of `status.rollout`
FIGURES = frozenset({"bottleneck"})  # words that follow from figures and change as often


def without_nulls(value: Any) -> Any:
    """The value without nulls, as the API server stores it."""
    if isinstance(value, Mapping):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [without_nulls(item) for item in value]
    return value


def is_urgent(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Whether people or tools wait for this change, or a later reconcile could not compute it again."""
    return _headline(before) != _headline(after) or bool(_ages(after) - _ages(before))


class StatusLimiter:
    """Remembers when each object's status was written last."""

    def __init__(
        self, interval_seconds: float = INTERVAL_SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._interval_seconds = interval_seconds
        self._clock = clock
        self._written_at: dict[str, float] = {}

    def wait_seconds(self, owner: Manifest, status: Mapping[str, Any]) -> float | None:
        """The seconds until this status may be written; None when there is nothing to write."""
        live = owner.get("status") or {}
        if status == live:
            return None
        if is_urgent(live, status):
            return 0.0
        written_at = self._written_at.get(owner["metadata"]["uid"])
        if written_at is None:
            return 0.0
        return max(0.0, written_at + self._interval_seconds - self._clock())

    def written(self, owner: Manifest) -> None:
        """Record that a write of this object's status is about to be sent."""
        self._written_at[owner["metadata"]["uid"]] = self._clock()

    def forget(self, uid: str) -> None:
        """Forget an object that is gone."""
        self._written_at.pop(uid, None)


def _headline(status: Mapping[str, Any]) -> tuple[Any, ...]:
    conditions = sorted(
        (c.get("type"), c.get("status"), c.get("reason"), c.get("observedGeneration"))
        for c in status.get("conditions") or ()
    )
    words = {key: value for key, value in status.items() if isinstance(value, str) and key not in FIGURES}
    failures = (status.get("backoff") or {}).get("failures")
    rollout = status.get("rollout") or {}
    times = [rollout.get(name) for name in TIMES]
    return conditions, words, status.get("observedGeneration"), failures, times


def _ages(status: Mapping[str, Any]) -> Counter[Any]:
    """The number of waiting replicas by the time since which they wait.

    A replica that begins to wait makes a status urgent; one that stops waiting does not.
    """
    named = (entry for entry in status.get("groups") or () if entry.get("phase") == "Waiting")
    ages = Counter(entry.get("sinceTime") for entry in named)
    for entry in status.get("moreWaiting") or ():
        ages[entry.get("sinceTime")] += entry.get("replicas", 0)
    return ages
