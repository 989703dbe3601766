"""How long a set waits before it makes groups again after some have failed: a pure function of the set's
status, so a restart of the operator forgets nothing.

One failure costs nothing: an evicted or deleted pod is replaced at once. A second one soon after waits ten
seconds, each further one twice as long, five minutes at most. It is over when nothing has failed for ten
minutes and every group serves: an engine that crashes only after loading for half an hour waits all the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from flotilla_operator.cluster.ownership import RefusalReason
from flotilla_operator.controllers.conditions import conditions_of, parsed_timestamp, timestamp
from flotilla_operator.controllers.model_replica_set.life import Phase, ReplicaGroup
from flotilla_operator.controllers.model_replica_set.reasons import ConditionType, EventReason

BASE = timedelta(seconds=10)
LIMIT = timedelta(minutes=5)
FORGOTTEN_AFTER = timedelta(minutes=10)
MESSAGE_LIMIT = 1000
FAILURES = frozenset({EventReason.GROUP_FAILED, EventReason.GROUP_INCOMPLETE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Groups that failed in a row; groups that fail together count once."""

    failures: int
    failed_at: datetime
    message: str

    @property
    def until(self) -> datetime:
        """Before this time no group is made."""
        if self.failures < 2:
            return self.failed_at
        wait: timedelta = min(BASE * 2 ** min(self.failures - 2, 10), LIMIT)
        return self.failed_at + wait

    def holds(self, now: datetime) -> bool:
        """Whether groups have to wait."""
        return now < self.until

    def manifest(self) -> dict[str, Any]:
        """As it stands in the status."""
        return {
            "failures": self.failures,
            "failedTime": timestamp(self.failed_at),
            "untilTime": timestamp(self.until),
            "message": self.message,
        }


def backoff_of(manifest: Mapping[str, Any], groups: Sequence[ReplicaGroup], now: datetime) -> Backoff | None:
    """The backoff after what is seen now."""
    held = _in_status(manifest)
    failed = next((group for group in groups if _fails(group)), None)
    told = held is not None and failed is not None and held.message.startswith(f"{failed.name}: ")
    if failed is not None and failed.ending is not None and not told:
        why = failed.ending.message
        if failed.ending.reason is EventReason.GROUP_INCOMPLETE and (refused := _refused(manifest)):
            why = f"{why}: {refused}"
        return Backoff(
            failures=held.failures + 1 if held else 1,
            failed_at=now,
            message=f"{failed.name}: {why}"[:MESSAGE_LIMIT],
        )
    if held is None or now - held.failed_at < FORGOTTEN_AFTER:
        return held
    serving = all(group.phase is Phase.READY for group in groups if group.lives)
    return None if serving else held


def _fails(group: ReplicaGroup) -> bool:
    return group.ending is not None and group.ending.reason in FAILURES and bool(group.staying)


def _in_status(manifest: Mapping[str, Any]) -> Backoff | None:
    held = (manifest.get("status") or {}).get("backoff")
    if not held:
        return None
    return Backoff(
        failures=held["failures"],
        failed_at=parsed_timestamp(held["failedTime"]),
        message=held.get("message") or "",
    )


def _refused(manifest: Mapping[str, Any]) -> str | None:
    """What the server said when it refused a pod: it stands in the condition that rested on it."""
    for condition in conditions_of(dict(manifest)):
        if condition["type"] == ConditionType.PLACED and condition["reason"] in set(RefusalReason):
            return str(condition.get("message") or "")
    return None
