"""When a status is worth a write.

What a person or a tool waits for (a condition's status or reason, the generation seen, a phase or URL) is
written at once, and so is what may be seen in one look only: a failure that is counted, and since when a
replica waits that has just lost its pods, which carried that time. Figures move all the time, so they are
written at most once per interval and object. A status that says what the live one says is not written.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from flotilla_operator.cluster.writes import Manifest

INTERVAL_SECONDS = 10.0


def without_nulls(value: Any) -> Any:
    """The value as the API server keeps it: it stores no nulls."""
    if isinstance(value, Mapping):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [without_nulls(item) for item in value]
    return value


def is_urgent(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Whether the change is one that somebody waits for, or that the next look may not see."""
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
        """How long this status has to wait: 0 for not at all, None when there is nothing to write."""
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
        """A write of this object's status is about to be sent."""
        self._written_at[owner["metadata"]["uid"]] = self._clock()

    def forget(self, uid: str) -> None:
        """The object is gone."""
        self._written_at.pop(uid, None)


def _headline(status: Mapping[str, Any]) -> tuple[Any, ...]:
    conditions = sorted(
        (c.get("type"), c.get("status"), c.get("reason"), c.get("observedGeneration"))
        for c in status.get("conditions") or ()
    )
    words = {key: value for key, value in status.items() if isinstance(value, str)}
    failures = (status.get("backoff") or {}).get("failures")
    return conditions, words, status.get("observedGeneration"), failures


def _ages(status: Mapping[str, Any]) -> Counter[Any]:
    """How many replicas wait since when. One that waits no longer is a figure; one that begins to is not."""
    named = (entry for entry in status.get("groups") or () if entry.get("phase") == "Waiting")
    ages = Counter(entry.get("sinceTime") for entry in named)
    for entry in status.get("moreWaiting") or ():
        ages[entry.get("sinceTime")] += entry.get("replicas", 0)
    return ages
