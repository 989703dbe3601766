"""What each replica did lately: answers, failed ones, those within the promised times, and conversations.

Made from the request lines that the agent reads anyway. The operator compares revisions by these figures and
lets the replica with the fewest conversations go first. Old figures fall out: answers after half an hour,
conversations after ten minutes, so a replica is judged by what it does and not by what it once did. A request
whose caller left, or that the router refused after choosing the replica (it waited too long in its queue,
or the replica knew another key than the router), says nothing about the replica and is not an answer; its
conversation counts all the same.
"""

from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from flotilla_runtime.router.requests import RequestRecord

ANSWERS_SECONDS = 1800.0
BUCKET_SECONDS = 60.0
SESSION_SECONDS = 600.0
SESSIONS_KEPT = 20_000  # of one replica; more than any holds in its KV cache
FIRST_FAILURE_STATUS = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """The times an answer must keep; None is not promised."""

    first_byte_seconds: float | None = None
    total_seconds: float | None = None

    def kept_by(self, record: RequestRecord) -> bool:
        """Whether this answer was good and in time."""
        return (
            record.status < FIRST_FAILURE_STATUS
            and _within(record.first_byte_seconds, self.first_byte_seconds)
            and _within(record.total_seconds, self.total_seconds)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """One replica's figures: `failed` are answers of 500 and above, `kept` those that kept the promise."""

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
        """Take one request that has ended; whether it was an answer that kept the promise."""
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
        """One replica's figures as of now."""
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
        """Forget the replicas that are gone."""
        for name in self._replicas.keys() - set(names):
            del self._replicas[name]


def _within(seconds: float | None, limit: float | None) -> bool:
    return limit is None or (seconds is not None and seconds <= limit)
