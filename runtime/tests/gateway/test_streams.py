"""How much of a journal a stream reads, how much of it a task shows, and how many streams a caller has.

No server. Streams over HTTP are in test_task_api.py, with a real Redis in test_events.py.
"""

import asyncio
import json
from collections.abc import Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flotilla_runtime.agent.journal import (
    CallKind,
    CallOutcome,
    Claimed,
    Done,
    Ended,
    Entry,
    HandedOver,
    Intended,
    Submitted,
)
from flotilla_runtime.agent.journal import TaskStatus as Status
from flotilla_runtime.agent.store.task_store import TaskStore
from flotilla_runtime.agent.store.texts import TextStore
from flotilla_runtime.agent.tasks import NewTask, Submission, SubmitOutcome, TaskRecord
from flotilla_runtime.contract import GatewayAuth, GatewayConfig, Priority, QueueConfig, TaskLimits
from flotilla_runtime.gateway.a2a.endpoints import A2AFrontEnd
from flotilla_runtime.gateway.application import TaskAPI, task_application
from flotilla_runtime.gateway.auth import Identity, NoAuthentication, Verb
from flotilla_runtime.gateway.callers import Callers
from flotilla_runtime.gateway.desk import Desk
from flotilla_runtime.gateway.events import READ_AT_ONCE, Sight, task_events
from flotilla_runtime.gateway.growth import Growth
from flotilla_runtime.gateway.openai.endpoints import OpenAIFrontEnd
from flotilla_runtime.gateway.service import LONGEST_TIMELINE, Sources, TaskService
from flotilla_runtime.gateway.streams import Streams
from router_support.waiting import until

TASK = "01jd0000000000000000000000"
CONFIG = GatewayConfig(
    queue=QueueConfig(fleet="default/support"), namespace="default", name="support", auth=GatewayAuth.NONE
)
SOURCES = Sources(monotonic_seconds=lambda: 0, wall_ms=lambda: 10, random_bits=lambda bits: 0)
SUBMITTED = Submitted(at=0)
CLAIMED = Claimed(at=0, worker="w", attempt=1)
ENDED = Ended(at=9, status=Status.SUCCEEDED, reason="Completed")


def begins(call: str) -> Intended:
    return Intended(at=1, call=call, kind=CallKind.TOOL, target=f"tool of {call}", arguments={"a": call})


def ends(call: str) -> Done:
    return Done(at=2, call=call, outcome=CallOutcome.SUCCEEDED, took_ms=1, value=call)


@dataclass(slots=True)
class Journal:
    """A store with one journal, and how many entries of it were read."""

    entries: Sequence[Entry]
    status: Status = Status.SUCCEEDED
    read: int = 0
    submitted: int = 0
    looked: int = 0
    record: TaskRecord = field(
        default_factory=lambda: TaskRecord(
            id=TASK,
            status=Status.RUNNING,
            priority=Priority.BATCH,
            caller="c",
            input="why?",
            limits=TaskLimits(),
            metadata={},
            submitted_at=0,
            started_at=0,
            ended_at=None,
            attempts=1,
            cancel_requested=False,
            reason=None,
            message=None,
            result=None,
            partial=None,
            tenant="team",
        )
    )

    async def submit(self, task: NewTask) -> Submission:
        self.submitted += 1
        return Submission(outcome=SubmitOutcome.CREATED, id=TASK)

    async def progress(self, task_id: str, place: int, count: int) -> tuple[Status, list[Entry]]:
        self.looked += 1
        entries = list(self.entries[place : place + count])
        self.read += len(entries)
        return self.status, entries

    async def whole(self, task_id: str, entry: Entry) -> Entry:
        return entry

    async def summaries(self, ids: list[str]) -> list[TaskRecord]:
        return [self.record]

    async def records(self, ids: list[str]) -> list[TaskRecord]:
        return [self.record]


class Unwritten:
    """Models of which nobody watches the text."""

    def channel(self, task_id: str) -> str:
        return ""

    async def after(self, task_id: str, place: str, count: int) -> list[Any]:
        return []


class Still:
    """A journal that grows no more."""

    @asynccontextmanager
    async def of(self, task_id: str, *channels: str) -> Any:
        yield self

    async def next(self) -> bool:
        await asyncio.Event().wait()
        return False


def sight_of(journal: Journal) -> Sight:
    return Sight(
        store=cast(TaskStore, journal),
        texts=cast(TextStore, Unwritten()),
        growth=cast(Growth, Still()),
        stopping=asyncio.Event(),
    )


async def streamed(journal: Journal, first: int) -> list[str]:
    return [text async for text in task_events(sight_of(journal), TASK, first)]


CALLS = st.sampled_from(["a", "b", "c"])
ENTRIES = st.one_of(
    CALLS.map(begins), CALLS.map(ends), st.just(CLAIMED), st.just(HandedOver(at=3, worker="w"))
)


@pytest.mark.holds(
    "tasks.md", "A resumed stream tells what follows its event, and reads little more of the journal"
)
@given(st.lists(ENTRIES, max_size=60), st.integers(0, 62))
def test_a_resumed_stream_tells_what_the_whole_one_tells_after_that_event(
    entries: list[Entry], first: int
) -> None:
    journal = Journal([SUBMITTED, *entries, ENDED])
    whole = asyncio.run(streamed(journal, 0))
    rest = [text for text in whole if int(text.split("\n")[0].removeprefix("id: ")) >= first]
    journal.read = 0
    assert asyncio.run(streamed(journal, first)) == rest
    assert journal.read <= len(journal.entries), "no entry is read twice"


@pytest.mark.holds(
    "tasks.md", "A resumed stream tells what follows its event, and reads little more of the journal"
)
@pytest.mark.attack("A caller resumes an event stream of a long task again and again")
async def test_a_resumed_stream_reads_little_of_a_long_journal() -> None:
    calls = [entry for number in range(5000) for entry in (begins(f"c{number}"), ends(f"c{number}"))]
    journal = Journal([SUBMITTED, CLAIMED, *calls, ENDED])
    told = await streamed(journal, len(journal.entries) - 2)
    first = json.loads(told[0].split("data: ")[1])
    assert (first["event"], first["call"], first["target"]) == ("callEnded", "c4999", "tool of c4999")
    assert journal.read <= 2 * READ_AT_ONCE


@pytest.mark.holds(
    "tasks.md",
    "A caller has 200 streams at a gateway, and no task is started for one that is refused; a "
    "timeline has the latest 1,000 events",
)
async def test_of_a_long_timeline_the_latest_events_are_shown_and_the_others_counted() -> None:
    calls = [entry for number in range(2000) for entry in (begins(f"c{number}"), ends(f"c{number}"))]
    journal = Journal([SUBMITTED, CLAIMED, *calls])
    service = TaskService(cast(TaskStore, journal), CONFIG, SOURCES)
    caller = await NoAuthentication().identify(None, Verb.GET)
    view = await service.view(TASK, caller)
    assert (len(view.timeline), view.timeline_left_out) == (LONGEST_TIMELINE, 4002 - LONGEST_TIMELINE)
    assert view.timeline[-1].call == "c1999"
    journal.entries = journal.entries[:10]
    assert (await service.view(TASK, caller)).timeline_left_out == 0


class Named(NoAuthentication):
    """The caller is who the header says."""

    async def identify(self, authorization: str | None, verb: Verb) -> Identity:
        return Identity(name=authorization or "", sees_all=True)


@dataclass(slots=True)
class Caller:
    """Follows a task until it leaves."""

    name: str
    leaves: asyncio.Event = field(default_factory=asyncio.Event)
    status: int = 0
    body: bytes = b""
    headers: dict[bytes, bytes] = field(default_factory=dict)
    sends: bytes | None = None

    async def follow(self, application: Any) -> None:
        await self.ask(application, "GET", f"/v1/tasks/{TASK}/events")

    async def ask(self, application: Any, method: str, path: str, body: Any = None) -> None:
        if body is not None:
            self.sends = json.dumps(body).encode()
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "query_string": b"",
            "headers": [(b"authorization", self.name.encode()), (b"a2a-version", b"1.0")],
        }
        await application(scope, self.receive, self.send)

    async def receive(self) -> dict[str, Any]:
        if self.sends is not None:
            body, self.sends = self.sends, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self.leaves.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], dict(message["headers"])
        self.body += message.get("body", b"")


def application_of(journal: Journal, streams: Streams) -> Any:
    """The task API and both front ends on one journal."""
    desk = Desk(
        service=TaskService(cast(TaskStore, journal), CONFIG, SOURCES),
        sight=sight_of(journal),
        callers=Callers(Named()),
        outside=cast(Any, None),
        replays=cast(Any, None),
        streams=streams,
        max_body_bytes=1024,
    )
    front_ends = [*OpenAIFrontEnd(desk, "support").routes(), *A2AFrontEnd(desk, CONFIG).routes()]
    return task_application(TaskAPI(desk), front_ends)


@pytest.mark.holds(
    "tasks.md",
    "A caller has 200 streams at a gateway, and no task is started for one that is refused; a "
    "timeline has the latest 1,000 events",
)
@pytest.mark.attack("A caller opens more and more event streams")
async def test_a_caller_has_so_many_streams_and_others_have_theirs() -> None:
    streams = Streams(2)
    application = application_of(Journal([SUBMITTED], status=Status.RUNNING), streams)
    callers = [Caller(name) for name in ("ann", "ann", "ann", "bob")]
    following = [asyncio.create_task(caller.follow(application)) for caller in callers]
    await until(lambda: all(caller.status for caller in callers))
    assert [caller.status for caller in callers] == [200, 200, 429, 200]
    problem = json.loads(callers[2].body)
    assert problem["type"].endswith("/streams-full")
    assert "you have 2 event streams open at this gateway" in problem["detail"]
    assert callers[2].headers[b"retry-after"] == b"5"
    assert len(streams) == 3

    callers[0].leaves.set()
    await until(lambda: len(streams) == 2)
    again = Caller("ann")
    following.append(asyncio.create_task(again.follow(application)))
    await until(lambda: again.status != 0)
    assert again.status == 200
    for caller in (*callers, again):
        caller.leaves.set()
    await asyncio.gather(*following)
    assert len(streams) == 0


CHAT = ("/v1/chat/completions", {"model": "support", "messages": [{"role": "user", "content": "why?"}]})
RESPONSE = ("/v1/responses", {"model": "support", "input": "why?"})
MESSAGE = {"messageId": "m", "role": "ROLE_USER", "parts": [{"text": "why?"}]}
SENDS = {"jsonrpc": "2.0", "id": 1, "params": {"message": MESSAGE}}


@pytest.mark.holds(
    "tasks.md",
    "A caller has 200 streams at a gateway, and no task is started for one that is refused; a "
    "timeline has the latest 1,000 events",
)
@pytest.mark.attack("A caller whose streams are full starts tasks by asking for streams again and again")
@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT[0], CHAT[1] | {"stream": True}),
        (RESPONSE[0], RESPONSE[1] | {"stream": True}),
        ("/a2a", SENDS | {"method": "SendStreamingMessage"}),
    ],
)
async def test_no_task_is_started_for_a_stream_that_is_refused(path: str, body: Any) -> None:
    journal, ann = Journal([SUBMITTED], status=Status.RUNNING), Caller("ann")
    await ann.ask(application_of(journal, Streams(0)), "POST", path, body)
    assert (ann.status, journal.submitted) == (429, 0), ann.body
    assert b"streams" in ann.body


@pytest.mark.holds(
    "front-ends.md",
    "A client that leaves cancels nothing, and nothing waits for it; it resumes a stream behind any event",
)
@pytest.mark.attack("A caller asks for answers that do not come, and leaves, again and again")
@pytest.mark.parametrize(("path", "body"), [CHAT, RESPONSE, ("/a2a", SENDS | {"method": "SendMessage"})])
async def test_nothing_waits_for_a_client_that_has_left(path: str, body: Any) -> None:
    journal, ann = Journal([SUBMITTED], status=Status.RUNNING), Caller("ann")
    asking = asyncio.create_task(ann.ask(application_of(journal, Streams(1)), "POST", path, body))
    await until(lambda: journal.looked > 0)
    assert not asking.done()
    ann.leaves.set()
    async with asyncio.timeout(5):
        await asking
    assert journal.submitted == 1
