"""Writes Kubernetes events about our objects, with limits on their number.

Events of one reconcile with the same reason are joined into one. For example, one event reports a hundred
replicas that were placed together, instead of a hundred requests to the API server.

An event with the same reason and subject as one in the last minutes does not become a new event. It increases
the count of that event's series, which is written when the series starts and then at most once per interval.
Each object also has a token bucket, so that a loop whose error message changes each time cannot fill etcd. An
event that cannot be written is logged and dropped, because the conditions carry the state anyway.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

import structlog

from flotilla_operator.cluster.client import ApiError, Client
from flotilla_operator.cluster.crash_points import CrashPoint, go_on
from flotilla_operator.cluster.ownership import Reconciled
from flotilla_operator.cluster.writes import Event, EventType
from flotilla_operator.objects.resources import EVENTS, FLOTILLA_GROUP, Manifest
from flotilla_runtime.contract.failure_texts import what_failed

CONTROLLER: Final = f"{FLOTILLA_GROUP}/operator"
NOTE_LIMIT: Final = 1024
# client-go ends a series after six minutes without a repeat.
SERIES_SECONDS: Final = 360.0
# The burst that client-go allows for one object; a set with several groups reports events for each of them.
BUCKET_SIZE: Final = 25
REFILL_SECONDS: Final = 60.0
OBJECTS_REMEMBERED: Final = 4096

log = structlog.get_logger(__name__)
Identity = tuple[str, str, str, str, str]


@dataclass(slots=True)
class Series:
    """One event on the server, and how often it was repeated."""

    name: str
    count: int
    seen_at: float
    written_at: float


@dataclass(slots=True)
class Bucket:
    """The tokens of one object; each write spends one."""

    tokens: float
    at: float

    def spend(self, now: float) -> bool:
        """Take a token if there is one."""
        self.tokens = min(BUCKET_SIZE, self.tokens + (now - self.at) / REFILL_SECONDS)
        self.at = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


def gathered(events: Sequence[Event]) -> list[Event]:
    """The events of one reconcile, with those of the same type, reason and action joined into one."""
    alike: dict[tuple[EventType, str, str], list[Event]] = {}
    for event in events:
        alike.setdefault((event.type, event.reason, event.action), []).append(event)
    return [
        replace(
            together[0],
            note=_joined([event.note for event in together]),
            subject=" ".join(event.subject for event in together),
        )
        for together in alike.values()
    ]


def _joined(notes: Sequence[str]) -> str:
    """As many of the notes as fit into one event, and the number of the others."""
    if len(text := "; ".join(notes)) <= NOTE_LIMIT:
        return text
    shown = list(notes)
    while len(text) > NOTE_LIMIT and len(shown) > 1:
        shown.pop()
        text = "; ".join([*shown, f"and {len(notes) - len(shown)} more"])
    return text


class Recorder:
    """Writes events and counts repeats."""

    def __init__(
        self,
        client: Client,
        instance: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        reached: Callable[[CrashPoint], None] = go_on,
    ) -> None:
        self._client = client
        self._instance = instance
        self._clock = clock
        self._now = now
        self._reached = reached
        self._series: dict[Identity, Series] = {}
        self._buckets: dict[str, Bucket] = {}
        self._count = 0

    async def record(self, owner: Reconciled, event: Event) -> None:
        """Write an event, or count it as a repeat of an earlier one."""
        at = self._clock()
        self._forget_old(at)
        identity = (owner.uid, event.type, event.reason, event.action, event.subject)
        series = self._series.get(identity)
        try:
            if series is not None:
                await self._repeat(owner, series, at)
            elif self._may_write(owner, at):
                self._series[identity] = await self._begin(owner, event, at)
        except ApiError as error:
            if error.status == 404:
                self._series.pop(identity, None)
            log.info("event_not_written", reason=event.reason, error=what_failed(error))
        except (TimeoutError, OSError) as error:
            log.info("event_not_written", reason=event.reason, error=what_failed(error))

    async def _begin(self, owner: Reconciled, event: Event, at: float) -> Series:
        self._count += 1
        metadata = owner.manifest["metadata"]
        name = f"{metadata['name']}.{int(self._now().timestamp() * 1000):x}{self._count:x}"
        self._reached(CrashPoint.BEFORE_EVENT)
        await self._client.create(EVENTS, self._manifest(owner, event, name))
        self._reached(CrashPoint.AFTER_EVENT)
        return Series(name=name, count=1, seen_at=at, written_at=at)

    async def _repeat(self, owner: Reconciled, series: Series, at: float) -> None:
        series.count += 1
        series.seen_at = at
        starts = series.count == 2
        if not starts and at - series.written_at < SERIES_SECONDS:
            return
        if not self._may_write(owner, at):
            return
        series.written_at = at
        patch = {"series": {"count": series.count, "lastObservedTime": self._timestamp()}}
        namespace = owner.manifest["metadata"]["namespace"]
        self._reached(CrashPoint.BEFORE_EVENT)
        await self._client.merge_patch(EVENTS, namespace, series.name, patch)
        self._reached(CrashPoint.AFTER_EVENT)

    def _manifest(self, owner: Reconciled, event: Event, name: str) -> Manifest:
        metadata = owner.manifest["metadata"]
        return {
            "apiVersion": EVENTS.api_version,
            "kind": EVENTS.kind,
            "metadata": {"name": name, "namespace": metadata["namespace"]},
            "eventTime": self._timestamp(),
            "reportingController": CONTROLLER,
            "reportingInstance": self._instance[:128],
            "type": str(event.type),
            "reason": event.reason,
            "action": event.action,
            "note": event.note[:NOTE_LIMIT],
            "regarding": {
                "apiVersion": owner.resource.api_version,
                "kind": owner.resource.kind,
                "namespace": metadata["namespace"],
                "name": metadata["name"],
                "uid": owner.uid,
                "resourceVersion": metadata.get("resourceVersion", ""),
            },
        }

    def _may_write(self, owner: Reconciled, at: float) -> bool:
        bucket = self._buckets.setdefault(owner.uid, Bucket(tokens=BUCKET_SIZE, at=at))
        return bucket.spend(at)

    def _forget_old(self, at: float) -> None:
        """Forget series that have ended, and the oldest buckets when there are too many."""
        ended = [key for key, series in self._series.items() if at - series.seen_at >= SERIES_SECONDS]
        for key in ended:
            del self._series[key]
        while len(self._buckets) > OBJECTS_REMEMBERED:
            del self._buckets[next(iter(self._buckets))]

    def _timestamp(self) -> str:
        return self._now().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
