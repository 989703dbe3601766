"""How much the fleet's tasks and one caller's may take of the queue and of Redis, and what is given back."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from agent_support.stores import END, done, intent, loaded, open_store, running, task, with_lines
from flotilla_runtime.agent.budgets import LimitName
from flotilla_runtime.agent.journal import CallKind, EndReason, Entry, TaskStatus, WaitKind
from flotilla_runtime.agent.protocols import Finish, Waits
from flotilla_runtime.agent.store.quotas import quota_of
from flotilla_runtime.agent.store.redis_facts import MIB
from flotilla_runtime.agent.store.task_store import TaskStore
from flotilla_runtime.agent.tasks import NewTask, ResolveOutcome, SignalOutcome, SubmitOutcome
from flotilla_runtime.contract import Effect, QueueConfig, TaskLimits

pytestmark = pytest.mark.services

FAILED = Finish(status=TaskStatus.FAILED, reason=EndReason.MODEL_FAILED, busy_ms={}, calls={})


@pytest.fixture
async def store(redis_server: Any) -> AsyncIterator[TaskStore]:
    opened = await with_lines(open_store(redis_server, max_waiting=10, queue_percent=50, max_stored_mib=1))
    yield opened
    await opened.close()


def large(task_id: str, kib: int, caller: str = "ann") -> NewTask:
    return NewTask(id=task_id, input="x" * 1024 * kib, caller=caller, limits=TaskLimits())


async def outcomes(store: TaskStore, *tasks: NewTask) -> list[SubmitOutcome]:
    return [(await store.submit(new)).outcome for new in tasks]


async def test_no_caller_holds_more_than_its_share_of_the_places(store: TaskStore) -> None:
    filled = await outcomes(store, *(task(f"a{number}") for number in range(6)))
    assert filled == [SubmitOutcome.CREATED] * 5 + [SubmitOutcome.CALLER_FULL]
    assert (await store.submit(task("b", caller="bob"))).outcome is SubmitOutcome.CREATED
    (claim, *_) = await store.claim("w1", 1)
    assert (await store.submit(task("a6"))).outcome is SubmitOutcome.CREATED, "a running task has no place"
    await store.release(claim, "w1")
    assert (await store.submit(task("a7"))).outcome is SubmitOutcome.CALLER_FULL
    others = await outcomes(store, *(task(f"c{number}", caller="cleo") for number in range(4)))
    assert others == [SubmitOutcome.CREATED] * 3 + [SubmitOutcome.FULL]
    await store.cancel("a6")
    assert (await store.submit(task("c9", caller="cleo"))).outcome is SubmitOutcome.CREATED


async def test_no_caller_holds_more_than_its_share_of_the_bytes(store: TaskStore) -> None:
    assert await outcomes(store, large("a1", 300), large("a2", 300), large("a3", 200)) == [
        SubmitOutcome.CREATED,
        SubmitOutcome.CALLER_STORE_FULL,
        SubmitOutcome.CREATED,
    ]
    assert await outcomes(store, large("b1", 500, "bob"), large("b2", 50, "cleo")) == [
        SubmitOutcome.CREATED,
        SubmitOutcome.STORE_FULL,
    ]
    assert (await store.submit(task("a1"))).outcome is SubmitOutcome.EXISTS, "it is known, and takes no room"


@pytest.mark.holds(
    "tasks.md",
    "What a replay begins with, and the copies of state in journals, need room in their caller's share",
)
@pytest.mark.attack("One caller's tasks fill Redis with what their calls answer")
async def test_the_results_with_which_a_replay_begins_need_room(store: TaskStore) -> None:
    await store.submit(large("a1", 400))
    source = (await loaded(store, "a1")).record
    begun: list[Entry] = [intent(), done(value="y" * 120 * 1024)]
    assert (await store.replay(source, task("a2"), begun)).outcome is SubmitOutcome.CALLER_STORE_FULL
    assert (await store.replay(source, task("a2"), begun[:1])).outcome is SubmitOutcome.CREATED
    await store.submit(large("b1", 500, "bob"))
    assert (await store.replay(source, task("a3"), begun)).outcome is SubmitOutcome.STORE_FULL


async def test_a_signal_takes_no_room_that_a_call_keeps(store: TaskStore) -> None:
    claim = await running(store, large("a1", 400))
    await store.append(claim, 2, [intent(reserved_bytes=80 * 1024)])
    assert await store.signal("a1", "news", "z" * 60 * 1024, "r") is SignalOutcome.CALLER_STORE_FULL
    await store.append(claim, 3, [done()])
    assert await store.signal("a1", "news", "z" * 60 * 1024, "r") is SignalOutcome.KEPT


async def test_workers_write_beyond_the_bytes_where_submissions_stop(store: TaskStore) -> None:
    claims = [await running(store, large(caller, 250, caller)) for caller in ("ann", "bob", "cleo")]
    for claim in claims:
        await store.append(claim, 2, [intent(), done(value="y" * 200 * 1024)])
    assert (await store.submit(task("d1", caller="dan"))).outcome is SubmitOutcome.STORE_FULL
    await store.spawn(claims[0], 4, intent("r", kind=CallKind.SPAWN), "look")
    await store.finish(claims[0], END)
    assert (await loaded(store, "ann")).record.status is TaskStatus.SUCCEEDED


@pytest.mark.holds(
    "tasks.md", "A call for whose result its caller's share has no room waits, or ends its task; others go on"
)
@pytest.mark.attack("One caller's tasks fill Redis with what their calls answer")
async def test_a_call_is_not_begun_if_its_callers_share_has_no_room_for_its_result(store: TaskStore) -> None:
    claim = await running(store, large("a1", 400))
    (refused,) = (await store.append(claim, 2, [intent(reserved_bytes=200 * 1024)])).refused
    assert (refused.limit, refused.call, refused.may_change) == (LimitName.SHARE, "answer/1", False)
    written = await store.append(claim, 2, [intent(reserved_bytes=80 * 1024)])
    assert (written.refused, written.length) == ((), 3)
    (refused,) = (await store.append(claim, 3, [intent("b", reserved_bytes=80 * 1024)])).refused
    assert refused.may_change, "the other call may give back what it keeps"
    assert (await store.submit(large("a2", 60))).outcome is SubmitOutcome.CALLER_STORE_FULL
    bob = await running(store, large("b1", 300, "bob"))
    assert not (await store.append(bob, 2, [intent(reserved_bytes=100 * 1024)])).refused, "others go on"
    assert (await store.append(claim, 3, [done(value="y" * 80 * 1024)])).length == 4
    assert not (await store.append(claim, 4, [intent("b", reserved_bytes=20 * 1024)])).refused
    await store.finish(claim, END)
    assert (await loaded(store, "a1")).record.result == END.result


async def test_a_note_whose_intent_is_refused_is_not_written(store: TaskStore) -> None:
    claim = await running(store, large("a1", 508))
    note: list[Entry] = [intent("now", kind=CallKind.NOW, arguments="x" * 512), done("now", value=1)]
    written = await store.append(claim, 2, note)
    assert ([refused.call for refused in written.refused], written.length) == (["now"], 2)
    assert (await store.append(claim, 2, [intent("b", arguments="x" * 512)])).length == 2
    (refused,) = (await store.spawn(claim, 2, intent("c", kind=CallKind.SPAWN), "x" * 2048)).refused
    assert (refused.call, refused.limit) == ("c", LimitName.SHARE)


@pytest.mark.holds(
    "tasks.md",
    "A call that was made is written in any case, and a result without room ends its task without it",
)
async def test_the_result_of_a_call_that_was_made_is_written_even_beyond_the_share(store: TaskStore) -> None:
    claim = await running(store, large("a1", 400))
    await store.append(claim, 2, [intent(reserved_bytes=1024)])
    written = await store.append(claim, 3, [done(value="y" * 300 * 1024)])
    assert (written.refused, written.length) == ((), 4)


async def test_what_a_spawned_task_found_is_not_copied_beyond_the_share(store: TaskStore) -> None:
    claim = await running(store, large("a1", 200))
    await store.spawn(claim, 2, intent("r", kind=CallKind.SPAWN), "look")
    (child,) = await store.claim("w2", 1)
    await store.finish(child, replace(END, result="y" * 200 * 1024))
    (refused,) = (await store.append(claim, 3, [done("r", value="y" * 200 * 1024)])).refused
    assert (refused.call, refused.limit) == ("r", LimitName.SHARE)
    assert (await store.append(claim, 3, [done("r", value="short")])).length == 4


@pytest.mark.holds(
    "tasks.md",
    "A call that was made is written in any case, and a result without room ends its task without it",
)
@pytest.mark.parametrize("kib", [pytest.param(60, id="in the task"), pytest.param(200, id="apart")])
async def test_a_result_beyond_the_share_ends_its_task_without_it(store: TaskStore, kib: int) -> None:
    claim = await running(store, large("a1", 480))
    finish = replace(END, result="y" * 1024 * kib)
    await store.finish(claim, finish)
    await store.finish(claim, finish)
    ended = (await loaded(store, "a1")).record
    assert (ended.status, ended.reason, ended.result) == (TaskStatus.FAILED, EndReason.INFRASTRUCTURE, None)
    assert "queuePercent" in str(ended.message)


async def test_no_room_is_kept_for_a_task_that_ended_or_was_suspended(store: TaskStore) -> None:
    first, second = [await running(store, task(name)) for name in ("a1", "a2")]
    for claim in (first, second):
        assert not (await store.append(claim, 2, [intent(reserved_bytes=200 * 1024)])).refused
    await store.suspend(first, 3, Waits(kind=WaitKind.EFFECT, call="answer/1"))
    assert not (await store.append(second, 3, [intent("b", reserved_bytes=200 * 1024)])).refused
    await store.finish(second, END)
    assert (await store.submit(large("a3", 450))).outcome is SubmitOutcome.CREATED


async def test_a_word_on_an_effect_needs_room_too(store: TaskStore) -> None:
    claim = await running(store, large("a1", 400))
    await store.append(claim, 2, [intent(effect=Effect.UNSAFE)])
    await store.suspend(claim, 3, Waits(kind=WaitKind.EFFECT, call="answer/1"))
    told = await store.resolve("a1", "answer/1", happened=True, by="ann", result="y" * 200 * 1024)
    assert told is ResolveOutcome.NO_ROOM
    told = await store.resolve("a1", "answer/1", happened=True, by="ann", result="y" * 80 * 1024)
    assert told is ResolveOutcome.RESOLVED


async def test_submissions_stop_at_three_quarters_of_what_redis_may_use(redis_server: Any) -> None:
    store = await with_lines(open_store(redis_server))
    used = int(redis_server.ask("info", "memory").split("used_memory:")[1].split()[0])
    redis_server.ask("config", "set", "maxmemory", str(round(used / 0.7)))
    assert (await store.submit(task("t1"))).outcome is SubmitOutcome.CREATED
    redis_server.ask("config", "set", "maxmemory", str(round(used / 0.8)))
    await asyncio.sleep(1.1)
    assert (await store.submit(task("t2"))).outcome is SubmitOutcome.STORE_FULL
    assert [claim.id for claim in await store.claim("w1", 5)] == ["t1"]
    redis_server.ask("config", "set", "maxmemory", "0")
    await store.close()


async def test_all_bytes_are_given_back(redis_server: Any) -> None:
    store = await with_lines(open_store(redis_server, result_ttl_seconds=0, journal_ttl_seconds=0))
    claim = await running(store, large("t1", 3, "ann"))
    await store.append(claim, 2, [intent(), done()])
    await store.spawn(claim, 4, intent("r", kind=CallKind.SPAWN), "look")
    await store.finish(claim, END)
    assert (await store.figures()).stored_bytes > 3 * 1024
    await asyncio.sleep(0.01)
    assert await store.forget_ended() == 2
    assert (await store.figures()).stored_bytes == 0
    assert redis_server.ask("exists", f"{store.keys.prefix}stored").strip() == "0"
    assert redis_server.ask("exists", f"{store.keys.prefix}places").strip() == "0"
    await store.close()


async def test_the_bytes_that_are_counted_are_about_those_that_redis_uses(redis_server: Any) -> None:
    store = await with_lines(open_store(redis_server))

    def used() -> int:
        return int(redis_server.ask("info", "memory").split("used_memory_dataset:")[1].split()[0])

    before = used()
    for number in range(150):
        await store.submit(task(f"t{number:026}", caller=f"caller {number % 7}"))
    for claim in await store.claim("w1", 150):
        for turn in range(6):
            await store.append(claim, 2 + 2 * turn, [intent(f"a/{turn}"), done(f"a/{turn}", value="y" * 400)])
        await store.finish(claim, END)
    counted = (await store.figures()).stored_bytes
    assert 0.7 < counted / (used() - before) < 1.4
    await store.close()


@pytest.mark.holds("tasks.md", "Journals go before results, those of failed tasks with them")
@pytest.mark.parametrize(
    ("end", "entries"),
    [pytest.param(END, 0, id="succeeded"), pytest.param(FAILED, 3, id="failed, so somebody may look")],
)
async def test_the_journal_of_a_task_that_succeeded_goes_before_its_result(
    redis_server: Any, end: Finish, entries: int
) -> None:
    store = await with_lines(open_store(redis_server, journal_ttl_seconds=0))
    claim = await running(store, task("t1"))
    await store.finish(claim, end)
    await asyncio.sleep(0.01)
    assert await store.forget_ended() == 0
    found = await loaded(store, "t1")
    assert (len(found.entries), found.record.result) == (entries, end.result)
    await store.close()


async def test_the_end_of_a_spawned_task_is_kept_until_its_parent_has_ended(redis_server: Any) -> None:
    store = await with_lines(open_store(redis_server, result_ttl_seconds=0))
    claim = await running(store, task("t1"))
    await store.spawn(claim, 2, intent("r", kind=CallKind.SPAWN), "look")
    (child,) = await store.claim("w2", 1)
    await store.finish(child, END)
    await asyncio.sleep(0.01)
    assert await store.forget_ended() == 0
    assert list(await store.children([child.id])) == [child.id]
    await store.finish(claim, END)
    await asyncio.sleep(0.01)
    assert await store.forget_ended() == 2
    await store.close()


def test_a_caller_may_always_have_one_task() -> None:
    config = QueueConfig(fleet="default/support", max_waiting=1, queue_percent=1)
    assert quota_of(config, 2) == {
        "places": 1,
        "places_each": 1,
        "bytes": 2 * MIB,
        "bytes_each": 2 * MIB // 100,
    }
    assert quota_of(config, None) == {"places": 1, "places_each": 1}
