"""How long a set waits before it creates groups again after failures.

It depends on what the status remembers, so a restarted operator forgets nothing. After the first failure the
group is replaced at once. After a second one soon after, the set waits ten seconds, and after each further
one twice as long, up to five minutes. An eviction through the API is not a failure. The count ends when
nothing has failed for ten minutes and every group serves; an engine that crashes after loading for half an
hour is therefore counted too.

Pods that the API server refuses (a quota, pod security) are failures too. Until it accepts them, the set asks
for no room in the plans of others, because otherwise accelerators that it cannot use would be kept from
everybody. A changed spec is tried at once, because it may remove the cause. What a quota or an admission
plugin forbids may become allowed at any time without notice, and so may what a broken webhook stops. Both are
tried again within half a minute. What is invalid stays invalid.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from flotilla_operator.api.parts import MESSAGE_LIMIT
from flotilla_operator.objects.refused_writes import WriteReason
from flotilla_operator.replicas.group import EndingReason, Phase, ReplicaGroup

BASE = timedelta(seconds=10)
LIMIT = timedelta(minutes=5)
LIMIT_MAY_END = timedelta(seconds=30)  # each try costs a refused POST for every waiting group with room
FORGOTTEN_AFTER = timedelta(minutes=10)
CLOCKS_DIFFER = timedelta(seconds=30)  # those of two nodes, at most, where nothing is wrong
FAILURES = frozenset({EndingReason.FAILED, EndingReason.INCOMPLETE})
PASSING = frozenset({WriteReason.CONFLICT, WriteReason.BEING_DELETED})  # another writer came first
REFUSALS = frozenset(WriteReason) - PASSING
MAY_END = frozenset({WriteReason.FORBIDDEN, WriteReason.QUOTA_EXCEEDED, WriteReason.FAILED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Groups that failed in a row; groups that fail together count once.

    `reason` is why the last ones failed, or why the API server refused their pods; `why` says it in words.
    `group` is one that failed last; it is empty where pods were refused.
    """

    failures: int
    failed_at: datetime
    why: str
    reason: str = ""
    group: str = ""

    @property
    def message(self) -> str:
        """Last failure and its cause, within the limit of the status."""
        return f"{self.group}: {self.why}"[:MESSAGE_LIMIT] if self.group else self.why[:MESSAGE_LIMIT]

    @property
    def refused(self) -> bool:
        """Whether the API server refused the pods."""
        return self.reason in REFUSALS

    @property
    def until(self) -> datetime:
        """Before this time no group is created."""
        if self.failures < 2:
            return self.failed_at
        limit = LIMIT_MAY_END if self.reason in MAY_END else LIMIT
        wait: timedelta = min(BASE * 2 ** min(self.failures - 2, 10), limit)
        return self.failed_at + wait

    def holds(self, now: datetime) -> bool:
        """Whether groups must wait. A failure in the future was noted by a clock that has been set back."""
        return self.failed_at - CLOCKS_DIFFER < now < self.until


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusedPods:
    """Last refusal of the API server to create the set's pods.

    It is `counted` once a backoff has counted it as a failure.
    """

    reason: WriteReason
    message: str
    counted: bool = False

    @property
    def lasts(self) -> bool:
        """Whether another try would be refused too, as far as anybody knows."""
        return self.reason in REFUSALS


def backoff_of(
    held: Backoff | None, refusal: RefusedPods | None, groups: Sequence[ReplicaGroup], now: datetime
) -> Backoff | None:
    """The backoff after what is observed now. `held` is the one before, `refusal` that of the last try."""
    if refusal is not None and refusal.counted:
        refusal = None
    failed = next((group for group in groups if _fails(group)), None)
    told = held is not None and failed is not None and held.group == failed.name
    if failed is not None and failed.ending is not None and not told:
        incomplete = failed.ending.reason is EndingReason.INCOMPLETE
        reason, why = str(failed.ending.reason), failed.ending.message
        if incomplete and refusal is not None:
            reason, why = refusal.reason, f"{why}: {refusal.message}"
        return _one_more(held, reason, why, now, group=failed.name)
    if refusal is not None and refusal.lasts:
        return _one_more(held, refusal.reason, refusal.message, now)
    if held is None or abs(now - held.failed_at) < FORGOTTEN_AFTER:
        return held
    serving = all(group.phase is Phase.READY for group in groups if group.lives)
    return None if serving else held


def _one_more(held: Backoff | None, reason: str, why: str, now: datetime, group: str = "") -> Backoff:
    failures = held.failures + 1 if held else 1
    return Backoff(failures=failures, failed_at=now, why=why, reason=reason, group=group)


def _fails(group: ReplicaGroup) -> bool:
    return group.ending is not None and group.ending.reason in FAILURES and bool(group.staying)
