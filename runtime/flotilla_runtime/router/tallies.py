"""Counts what each replica did lately: answers, failures, answers within the promised times, conversations.

The counts are made from the request lines. The operator compares revisions by them, and removes the replica
with the fewest conversations first. Answers are dropped after half an hour and conversations after ten
minutes, so that only recent behaviour counts.

Some requests say nothing about the replica and do not count as answers: those whose caller left, and those
that the router refused after it had chosen the replica, because they waited too long in the queue or the
replica had another key. Their conversations still count.
"""

from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from flotilla_runtime.router.requests import RequestRecord

ANSWERS_SECONDS = 1800.0
BUCKET_SECONDS = 60.0
SESSION_SECONDS = 600.0
SESSIONS_KEPT = 20_000  # per replica; more than any replica holds in its KV cache
FIRST_FAILURE_STATUS = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """The promised times of an answer; None stands for no promise."""

    first_byte_seconds: float | None = None
    total_seconds: float | None = None

    def kept_by(self, record: RequestRecord) -> bool:
        """Whether this answer did not fail and was within the promised times."""
        return (
            record.status < FIRST_FAILURE_STATUS
            and _within(record.first_byte_seconds, self.first_byte_seconds)
            and _within(record.total_seconds, self.total_seconds)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """One replica's figures: `failed` answers had status 500 or above, `kept` ones kept the promise."""

    answers: int = 0
    failed: int = 0
    kept: int = 0
    sessions: int = 0


@dataclass(slots=True)
class _Bucket:
    since: float
    answers: int = 0
    failed: int = 0
    kept: int = 0


@dataclass(slots=True)
class _Replica:
    buckets: deque[_Bucket] = field(default_factory=deque)
    sessions: "OrderedDict[str, float]" = field(default_factory=OrderedDict)


class Tallies:
    """The figures of all replicas."""

    def __init__(self, promise: Promise) -> None:
        self._promise = promise
        self._replicas: dict[str, _Replica] = {}

    def count(self, record: RequestRecord, now: float) -> bool:
        """Count one request that has ended; returns whether it was an answer that kept the promise."""
        if record.replica is None:
            return False
        replica = self._replicas.setdefault(record.replica, _Replica())
        if record.conversation is not None:
            replica.sessions.pop(record.conversation, None)
            replica.sessions[record.conversation] = now
            if len(replica.sessions) > SESSIONS_KEPT:
                replica.sessions.popitem(last=False)
        if record.aborted or record.refused is not None:
            return False
        if not replica.buckets or now - replica.buckets[-1].since >= BUCKET_SECONDS:
            replica.buckets.append(_Bucket(since=now))
        bucket = replica.buckets[-1]
        bucket.answers += 1
        bucket.failed += record.status >= FIRST_FAILURE_STATUS
        kept = self._promise.kept_by(record)
        bucket.kept += kept
        return kept

    def of(self, name: str, now: float) -> Tally:
        """One replica's current figures."""
        replica = self._replicas.get(name)
        if replica is None:
            return Tally()
        while replica.buckets and now - replica.buckets[0].since >= ANSWERS_SECONDS:
            replica.buckets.popleft()
        while replica.sessions and now - next(iter(replica.sessions.values())) >= SESSION_SECONDS:
            replica.sessions.popitem(last=False)
        return Tally(
            answers=sum(bucket.answers for bucket in replica.buckets),
            failed=sum(bucket.failed for bucket in replica.buckets),
            kept=sum(bucket.kept for bucket in replica.buckets),
            sessions=len(replica.sessions),
        )

    def keep_only(self, names: Iterable[str]) -> None:
        """Forget all other replicas."""
        for name in self._replicas.keys() - set(names):
            del self._replicas[name]


def _within(seconds: float | None, limit: float | None) -> bool:
    return limit is None or (seconds is not None and seconds <= limit)
