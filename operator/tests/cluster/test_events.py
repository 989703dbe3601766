"""Events under a hand-turned clock: repeats become a series, and no object can flood the server."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from flotilla_operator.cluster.crash_points import CrashPoint
from flotilla_operator.cluster.events import BUCKET_SIZE, NOTE_LIMIT, Recorder, gathered
from flotilla_operator.cluster.ownership import Reconciled
from flotilla_operator.cluster.writes import Event, EventType
from flotilla_operator.objects.resources import EVENTS, MODEL_REPLICA_SETS, Manifest
from tests.support.fake_api import FakeApi


def placed(group: str) -> Event:
    return Event(
        type=EventType.NORMAL, reason="GroupPlaced", note=f"{group} goes to node-{group}", subject=group
    )


FAILED = Event(type=EventType.WARNING, reason="WriteFailed", note="the server said no")


@dataclass
class Bench:
    api: FakeApi
    owner: Reconciled
    recorder: Recorder = field(init=False)
    now: float = 0.0
    reached: list[CrashPoint] = field(default_factory=list)

    def events(self) -> list[Manifest]:
        return list(self.api.shelf(EVENTS).objects.values())


@asynccontextmanager
async def bench() -> AsyncIterator[Bench]:
    api = FakeApi()
    manifest = api.put(MODEL_REPLICA_SETS, {"metadata": {"name": "m", "namespace": "default"}})
    async with api.running(), api.client() as client:
        made = Bench(api, Reconciled(resource=MODEL_REPLICA_SETS, manifest=manifest))
        made.recorder = Recorder(client, "operator-0", clock=lambda: made.now, reached=made.reached.append)
        yield made


async def test_an_event_names_the_object_and_who_reports() -> None:
    async with bench() as b:
        await b.recorder.record(b.owner, FAILED)
        (event,) = b.events()
        assert event["regarding"]["uid"] == b.owner.uid
        assert event["reportingController"] == "flotilla.dev/operator"
        assert (event["type"], event["reason"], event["action"]) == ("Warning", "WriteFailed", "Reconcile")


async def test_the_crash_points_surround_a_new_event_and_a_repeat() -> None:
    async with bench() as b:
        for _ in range(2):
            await b.recorder.record(b.owner, FAILED)
        assert b.reached == [CrashPoint.BEFORE_EVENT, CrashPoint.AFTER_EVENT] * 2


async def test_a_hundred_failures_make_at_most_three_events_and_few_writes() -> None:
    async with bench() as b:
        for attempt in range(100):
            b.now += min(300, 2**attempt) / 2
            await b.recorder.record(b.owner, FAILED)
        assert len(b.events()) <= 3
        assert max(event["series"]["count"] for event in b.events()) > 90
        assert len(b.api.writes()) <= 60


async def test_a_hundred_failures_in_a_minute_make_two_writes() -> None:
    async with bench() as b:
        for _ in range(100):
            b.now += 0.6
            await b.recorder.record(b.owner, FAILED)
        assert [request.method for request in b.api.writes()] == ["POST", "PATCH"]


async def test_the_same_news_of_two_subjects_are_two_events_and_of_one_are_a_series() -> None:
    def lost(group: str) -> Event:
        note = f"{group}: node n no longer exists"
        return Event(type=EventType.WARNING, reason="GroupLost", note=note, subject=group)

    async with bench() as b:
        for group in ("a", "b", "a"):
            b.now += 60
            await b.recorder.record(b.owner, lost(group))
        assert [event["note"][0] for event in b.events()] == ["a", "b"]
        assert [event.get("series", {}).get("count") for event in b.events()] == [2, None]


def test_what_a_plan_tells_of_several_subjects_for_one_reason_is_one_event() -> None:
    together, alone = gathered([placed("a"), FAILED, placed("b")])
    assert (together.note, together.subject) == ("a goes to node-a; b goes to node-b", "a b")
    assert alone == FAILED


def test_an_event_of_too_many_subjects_says_how_many_more_there_are() -> None:
    (event,) = gathered([placed(f"group-{number:03}") for number in range(200)])
    told = event.note.count(" goes to ")
    assert event.note.endswith(f"group-{told - 1:03}; and {200 - told} more")
    assert NOTE_LIMIT - 60 < len(event.note) <= NOTE_LIMIT


async def test_a_hundred_subjects_share_the_object_s_tokens() -> None:
    async with bench() as b:
        for attempt in range(100):
            event = Event(type=EventType.WARNING, reason="GroupLost", note="", subject=f"group-{attempt}")
            await b.recorder.record(b.owner, event)
        assert len(b.events()) == BUCKET_SIZE


async def test_an_object_with_ever_new_reasons_runs_out_of_tokens() -> None:
    async with bench() as b:
        for attempt in range(100):
            await b.recorder.record(b.owner, Event(type=EventType.NORMAL, reason=f"R{attempt}", note=""))
        assert len(b.events()) == BUCKET_SIZE


async def test_a_series_whose_event_expired_begins_anew() -> None:
    async with bench() as b:
        await b.recorder.record(b.owner, FAILED)
        b.api.shelf(EVENTS).objects.clear()
        await b.recorder.record(b.owner, FAILED)
        await b.recorder.record(b.owner, FAILED)
        assert len(b.events()) == 1


async def test_an_event_that_cannot_be_written_fails_nothing() -> None:
    async with bench() as b:
        b.api.fail(lambda r: r.method == "POST", 403)
        await b.recorder.record(b.owner, FAILED)
        assert [request.method for request in b.api.writes()] == ["POST"]
        assert b.events() == []
        await b.recorder.record(b.owner, placed("a"))
        assert [event["reason"] for event in b.events()] == ["GroupPlaced"]
