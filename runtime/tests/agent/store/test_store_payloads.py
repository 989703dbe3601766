"""Texts of more than 64 KiB are kept apart from journals and tasks, once for each task, and go with it."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from agent_support.stores import END, done, intent, loaded, open_store, running, task, with_lines
from flotilla_runtime.agent.errors import BrokenEntryError, LeaseLostError, StoreUnavailableError
from flotilla_runtime.agent.journal import CallKind, Done, Intended, Resolved, WaitKind, decode, encode
from flotilla_runtime.agent.protocols import Waits
from flotilla_runtime.agent.store.payloads import LARGE_BYTES, apart, payload_of
from flotilla_runtime.agent.store.task_store import TaskStore
from flotilla_runtime.agent.tasks import NewTask, SubmitOutcome
from flotilla_runtime.contract import Effect, TaskLimits

LARGE = "y" * 100 * 1024
OTHER = "ä" * 50 * 1024
SOON = {"result_ttl_seconds": 0, "journal_ttl_seconds": 0}

services = pytest.mark.services


@dataclass(slots=True)
class Objects:
    """An object store in memory. It fails while `problem` is set."""

    held: dict[str, bytes] = field(default_factory=dict)
    problem: str = ""

    async def put(self, name: str, body: bytes, sha256: str) -> None:
        self._answer()
        self.held[name] = body

    async def get(self, name: str, most_bytes: int) -> bytes | None:
        self._answer()
        return self.held.get(name)

    async def delete(self, name: str) -> None:
        self._answer()
        self.held.pop(name, None)

    async def names(self, under: str) -> list[str]:
        self._answer()
        return [name for name in self.held if name.startswith(under)]

    def _answer(self) -> None:
        if self.problem:
            raise StoreUnavailableError(self.problem)


@dataclass(slots=True)
class Place:
    """A store, and where it keeps large texts: in Redis if it has no objects."""

    store: TaskStore
    server: Any
    objects: Objects | None

    def keys(self) -> set[str]:
        found = self.server.ask("--scan").split()
        return {key.removeprefix(self.store.keys.prefix) for key in found}

    def texts_of(self, task_id: str) -> int:
        if self.objects is not None:
            return len([name for name in self.objects.held if name.startswith(f"{task_id}/")])
        return int(self.server.ask("hlen", self.store.keys.payloads(task_id)))

    async def forget(self) -> None:
        await asyncio.sleep(0.01)
        await self.store.forget_ended()
        await self.store.drop_payloads()


@pytest.fixture(params=["in Redis", "elsewhere"])
async def place(request: pytest.FixtureRequest, redis_server: Any) -> AsyncIterator[Place]:
    objects = Objects() if request.param == "elsewhere" else None
    store = await with_lines(open_store(redis_server, objects, **SOON))
    yield Place(store, redis_server, objects)
    await store.close()


@pytest.mark.parametrize(
    ("entry", "is_apart"),
    [
        pytest.param(done(value="y" * LARGE_BYTES), True, id="a result"),
        pytest.param(done(value="y" * (LARGE_BYTES - 2)), False, id="one of 64 KiB with its quotes"),
        pytest.param(done(value="ä" * (LARGE_BYTES // 2)), True, id="bytes count, not letters"),
        pytest.param(done(value=["y" * LARGE_BYTES]), True, id="any JSON"),
        pytest.param(intent(arguments={"q": LARGE}), True, id="arguments"),
        pytest.param(Resolved(at=1, call="a", happened=True, by="ann", result=LARGE), True, id="a word"),
        pytest.param(done(value=None, problem="p" * 2 * LARGE_BYTES), False, id="what is no value"),
    ],
)
def test_large_values_are_kept_apart(entry: Any, is_apart: bool) -> None:
    split = apart(entry)
    assert (split.text is not None) is is_apart
    if split.text is None:
        assert split.entry == entry
        return
    reference: dict[str, Any] = {"payload": payload_of(split.text)}
    written: Any = replace(split.entry, **reference)
    assert decode(encode(written)) == written
    assert len(encode(written)) < 500
    assert json.loads(encode(written))["type"].endswith("WithPayload"), "older versions hand the task over"


@pytest.mark.attack("A tool or a caller answers with what stands for somebody's large text")
def test_nobody_else_can_make_a_reference() -> None:
    """The answer of a tool stays its value, whatever it looks like."""
    forged = {"payload": {"hash": "0" * 64, "bytes": 1}, "type": "DoneWithPayload"}
    entry = decode(encode(done(value=forged)))
    assert isinstance(entry, Done)
    assert (entry.value, entry.payload) == (forged, None)


@pytest.mark.holds(
    "tasks.md",
    "Texts of more than 64 KiB are kept once for each task, in Redis or in a bucket, and go with it",
)
@services
async def test_a_large_result_is_kept_once_and_goes_with_its_task(place: Place) -> None:
    before = place.keys()
    store = place.store
    claim = await running(store, task("t1"))
    await store.append(claim, 2, [intent(arguments={"q": OTHER}), done(value=LARGE)])
    (asked, told) = (await loaded(store, "t1")).entries[2:]
    assert isinstance(asked, Intended)
    assert isinstance(told, Done)
    assert (asked.arguments, told.value) == (None, None)
    assert ((await store.whole("t1", asked)).arguments, (await store.whole("t1", told)).value) == (
        {"q": OTHER},
        LARGE,
    )
    await store.append(claim, 4, [intent("b"), done("b", value=LARGE)])
    await store.finish(claim, replace(END, result=LARGE, partial=OTHER))
    assert place.texts_of("t1") == 3, "the result is that of a call; the arguments and the partial differ"
    (record,) = await store.records(["t1"])
    assert (record.result, record.partial) == (LARGE, OTHER)
    await place.forget()
    assert place.texts_of("t1") == 0
    assert (await store.figures()).stored_bytes == 0
    new = place.keys() - before
    assert not [key for key in new if "t1" in key or key in ("stored", "promised", "drops", "places")], new


@pytest.mark.holds("tasks.md", "What the result needs outlives the journal")
@services
async def test_texts_of_the_result_outlive_the_journal(redis_server: Any) -> None:
    for objects in (None, Objects()):
        store = await with_lines(open_store(redis_server, objects, journal_ttl_seconds=0))
        place = Place(store, redis_server, objects)
        name = "t1" if objects is None else "t2"
        claim = await running(store, task(name))
        await store.append(claim, 2, [intent(), done(value=LARGE), intent("b"), done("b", value=OTHER)])
        await store.finish(claim, replace(END, result=LARGE))
        assert place.texts_of(name) == 2
        await place.forget()
        assert place.texts_of(name) == 1
        assert (await store.records([name]))[0].result == LARGE
        await store.close()


@services
async def test_a_text_counts_towards_its_callers_share_in_redis_alone(redis_server: Any) -> None:
    store = await with_lines(open_store(redis_server, max_stored_mib=1, queue_percent=50))
    claim = await running(store, task("t1"))
    first = (await store.figures()).stored_bytes
    await store.append(claim, 2, [intent(), done(value="y" * 400 * 1024)])
    assert 400 * 1024 < (await store.figures()).stored_bytes - first < 402 * 1024
    (refused,) = (await store.append(claim, 4, [intent("b", arguments="z" * 200 * 1024)])).refused
    assert refused.call == "b"
    await store.close()
    objects = Objects()
    store = await with_lines(open_store(redis_server, objects, max_stored_mib=1, queue_percent=50))
    claim = await running(store, task("t2", caller="bob"))
    for turn in range(4):
        call = intent(f"b/{turn}", reserved_bytes=16 * 1024 * 1024)
        written = await store.append(
            claim, 2 + 2 * turn, [call, done(f"b/{turn}", value=f"{turn}" * 400 * 1024)]
        )
        assert not written.refused, "of a result elsewhere, only what stands for it takes room in Redis"
    assert len(objects.held) == 4
    await store.close()


@services
async def test_what_was_said_of_an_effect_may_be_large(place: Place) -> None:
    store = place.store
    claim = await running(store, task("t1"))
    await store.append(claim, 2, [intent(effect=Effect.UNSAFE)])
    await store.suspend(claim, 3, Waits(kind=WaitKind.EFFECT, call="answer/1"))
    await store.resolve("t1", "answer/1", happened=True, by="ann", result=LARGE)
    said = (await loaded(store, "t1")).entries[4]
    assert isinstance(said, Resolved)
    assert said.at > 0
    assert (await store.whole("t1", said)).result == LARGE


@services
async def test_a_spawned_tasks_large_result_reaches_its_parent(place: Place) -> None:
    store = place.store
    claim = await running(store, task("t1"))
    await store.spawn(claim, 2, intent("r", kind=CallKind.SPAWN), LARGE)
    (child,) = await store.claim("w2", 1)
    assert (await loaded(store, child.id)).record.input == LARGE
    await store.finish(child, replace(END, result=OTHER))
    assert (await store.children([child.id]))[child.id].result == OTHER
    await store.finish(claim, END)
    await place.forget()
    assert place.texts_of(child.id) == 0


@pytest.mark.holds(
    "tasks.md", "A crash between the text and what stands for it leaves nothing when the task is forgotten"
)
@services
async def test_a_write_that_is_sent_again_or_refused_keeps_no_second_text(place: Place) -> None:
    store = place.store
    claim = await running(store, task("t1"))
    for _ in range(2):
        await store.append(claim, 2, [intent(), done(value=LARGE)], "a write")
    assert place.texts_of("t1") == 1
    counted = (await store.figures()).stored_bytes
    with pytest.raises(LeaseLostError):
        await store.append(replace(claim, token=claim.token - 1), 4, [done("b", value=OTHER)])
    assert (await store.figures()).stored_bytes == counted
    await store.finish(claim, END)
    await place.forget()
    assert place.texts_of("t1") == 0, "what a stale worker has sent to the object store goes too"


@pytest.mark.holds("tasks.md", "A large input that is refused leaves no object")
@services
async def test_a_large_input_goes_to_the_object_store_and_leaves_nothing_if_it_is_refused(
    redis_server: Any,
) -> None:
    objects = Objects()
    store = await with_lines(open_store(redis_server, objects, max_waiting=2, queue_percent=50, **SOON))

    async def submit(name: str, caller: str = "ann", key: str | None = None) -> SubmitOutcome:
        new = NewTask(id=name, input=LARGE, caller=caller, limits=TaskLimits(), idempotency_key=key)
        return (await store.submit(new)).outcome

    assert [await submit("t1", key="k"), await submit("t2", key="k"), await submit("t3")] == [
        SubmitOutcome.CREATED,
        SubmitOutcome.EXISTS,
        SubmitOutcome.CALLER_FULL,
    ]
    assert await submit("t1", key="k") is SubmitOutcome.EXISTS
    assert (await store.records(["t1"]))[0].input == LARGE
    await store.drop_payloads()
    assert {name.partition("/")[0] for name in objects.held} == {"t1"}
    await store.cancel("t1")
    await asyncio.sleep(0.01)
    await store.forget_ended()
    await store.drop_payloads()
    assert objects.held == {}
    await store.close()


@pytest.mark.holds(
    "tasks.md", "Objects are deleted later if the bucket does not answer, and never another task's"
)
@services
async def test_objects_are_deleted_later_if_the_object_store_does_not_answer(redis_server: Any) -> None:
    objects = Objects()
    place = Place(await with_lines(open_store(redis_server, objects, **SOON)), redis_server, objects)
    claim = await running(place.store, task("t1"))
    await place.store.append(claim, 2, [intent(), done(value=LARGE)])
    objects.held["t10/0"] = b"of another task"
    objects.problem = "down"
    with pytest.raises(StoreUnavailableError):
        await place.store.append(claim, 4, [intent("b"), done("b", value=OTHER)])
    await place.store.finish(claim, END)
    with pytest.raises(StoreUnavailableError):
        await place.forget()
    objects.problem = ""
    await place.store.drop_payloads()
    assert list(objects.held) == ["t10/0"]
    await place.store.close()


@pytest.mark.holds("tasks.md", "A text that is gone or was changed ends its task")
@services
@pytest.mark.parametrize(
    ("left", "said"),
    [
        pytest.param(None, "is gone from the object store", id="deleted"),
        pytest.param(b'"another text"', "was changed in the object store", id="changed"),
    ],
)
async def test_a_text_that_is_not_what_was_written_breaks_its_entry(
    redis_server: Any, left: bytes | None, said: str
) -> None:
    objects = Objects()
    store = await with_lines(open_store(redis_server, objects))
    claim = await running(store, task("t1"))
    await store.append(claim, 2, [intent(), done(value=LARGE)])
    (name,) = objects.held
    objects.held = {} if left is None else {name: left}
    with pytest.raises(BrokenEntryError, match=said):
        await store.whole("t1", (await loaded(store, "t1")).entries[3])
    without = open_store(redis_server)
    with pytest.raises(BrokenEntryError, match=r"queue\.payloads names none"):
        await without.whole("t1", (await loaded(without, "t1")).entries[3])
    await store.close()
    await without.close()
