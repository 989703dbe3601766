"""How long a set waits before it makes groups again after some have failed: a pure function of the set's
status, so a restart of the operator forgets nothing.

One failure costs nothing: a deleted pod is replaced at once. A second one soon after waits ten seconds,
each further one twice as long, five minutes at most. An eviction through the API is none. It is over when
nothing has failed for ten minutes and every group serves: an engine that crashes only after loading for half
an hour waits all the same.

Pods that the API server refuses (a quota, pod security) are a failure too. Until it takes them the set asks
for no room in the plans of others, or accelerators that it cannot have would be kept from everybody; and a
change of the spec is tried at once, for it may be what was asked for. What a quota or an admission plugin
forbids may be allowed again at any time without a word to us, so nobody waits longer than half a minute for
it; what is invalid stays so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from flotilla_operator.cluster.ownership import RefusalReason
from flotilla_operator.controllers.conditions import conditions_of, parsed_timestamp, timestamp
from flotilla_operator.controllers.model_replica_set.life import Phase, ReplicaGroup
from flotilla_operator.controllers.model_replica_set.reasons import ConditionType, EventReason, Reason

BASE = timedelta(seconds=10)
LIMIT = timedelta(minutes=5)
LIMIT_FORBIDDEN = timedelta(seconds=30)  # a try costs a refused POST for each group that waits and has room
FORGOTTEN_AFTER = timedelta(minutes=10)
MESSAGE_LIMIT = 1000
FAILURES = frozenset({EventReason.GROUP_FAILED, EventReason.GROUP_INCOMPLETE})
PASSING = frozenset({RefusalReason.CONFLICT, RefusalReason.BEING_DELETED})  # somebody else wrote meanwhile
REFUSALS = frozenset(RefusalReason) - PASSING
FORBIDDEN = frozenset({RefusalReason.FORBIDDEN, RefusalReason.QUOTA_EXCEEDED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Groups that failed in a row; groups that fail together count once. `reason` is what the last ones died
    of, or why the API server refused their pods.
    """

    failures: int
    failed_at: datetime
    message: str
    reason: str = ""

    @property
    def refused(self) -> bool:
        """Whether the pods were never accepted."""
        return self.reason in REFUSALS

    @property
    def until(self) -> datetime:
        """Before this time no group is made."""
        if self.failures < 2:
            return self.failed_at
        limit = LIMIT_FORBIDDEN if self.reason in FORBIDDEN else LIMIT
        wait: timedelta = min(BASE * 2 ** min(self.failures - 2, 10), limit)
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
            "reason": self.reason or None,
            "message": self.message,
        }


def backoff_of(manifest: Mapping[str, Any], groups: Sequence[ReplicaGroup], now: datetime) -> Backoff | None:
    """The backoff after what is seen now."""
    held = _in_status(manifest)
    failed = next((group for group in groups if _fails(group)), None)
    told = held is not None and failed is not None and held.message.startswith(f"{failed.name}: ")
    refusal = refusal_of(manifest)
    if failed is not None and failed.ending is not None and not told:
        incomplete = failed.ending.reason is EventReason.GROUP_INCOMPLETE
        reason, why = str(failed.ending.reason), failed.ending.message
        if incomplete and refusal is not None:
            reason, why = refusal.reason, f"{why}: {refusal.message}"
        return _one_more(held, reason, f"{failed.name}: {why}", now)
    if refusal is not None and newly_refused(manifest):
        return _one_more(held, refusal.reason, refusal.message, now)
    if held is None or now - held.failed_at < FORGOTTEN_AFTER:
        return held
    serving = all(group.phase is Phase.READY for group in groups if group.lives)
    return None if serving else held


def newly_refused(manifest: Mapping[str, Any]) -> bool:
    """Whether the API server has refused pods in the last plan."""
    refusal = refusal_of(manifest)
    return refusal is not None and refusal.reason in REFUSALS


def is_refused(manifest: Mapping[str, Any]) -> bool:
    """Whether it refused the last ones that the set tried, now or before it began to back off."""
    held = _in_status(manifest)
    backs_off = placed_reason(manifest) == Reason.BACKING_OFF
    return newly_refused(manifest) or (backs_off and held is not None and held.refused)


def placed_reason(manifest: Mapping[str, Any]) -> str:
    """The reason of the condition Placed."""
    return str(_placed(manifest).get("reason") or "")


def placed_message(manifest: Mapping[str, Any]) -> str:
    """What the condition Placed says."""
    return str(_placed(manifest).get("message") or "")


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedPods:
    """What the server said when it refused pods in the last plan."""

    reason: str
    message: str


def refusal_of(manifest: Mapping[str, Any]) -> RefusedPods | None:
    """It stands in the condition that rested on the pods, unless the spec has been changed since."""
    placed = _placed(manifest)
    if placed.get("reason") not in set(RefusalReason) or _is_changed(manifest):
        return None
    return RefusedPods(reason=str(placed["reason"]), message=str(placed.get("message") or ""))


def _one_more(held: Backoff | None, reason: str, message: str, now: datetime) -> Backoff:
    failures = held.failures + 1 if held else 1
    return Backoff(failures=failures, failed_at=now, message=message[:MESSAGE_LIMIT], reason=reason)


def _fails(group: ReplicaGroup) -> bool:
    return group.ending is not None and group.ending.reason in FAILURES and bool(group.staying)


def _in_status(manifest: Mapping[str, Any]) -> Backoff | None:
    held = (manifest.get("status") or {}).get("backoff")
    if not held:
        return None
    found = Backoff(
        failures=held["failures"],
        failed_at=parsed_timestamp(held["failedTime"]),
        message=held.get("message") or "",
        reason=held.get("reason") or "",
    )
    return None if found.refused and _is_changed(manifest) else found


def _placed(manifest: Mapping[str, Any]) -> Mapping[str, Any]:
    found = (c for c in conditions_of(dict(manifest)) if c["type"] == ConditionType.PLACED)
    return next(found, {})


def _is_changed(manifest: Mapping[str, Any]) -> bool:
    """Whether the status is of an older spec."""
    seen = (manifest.get("status") or {}).get("observedGeneration")
    return bool(seen != manifest["metadata"].get("generation"))
