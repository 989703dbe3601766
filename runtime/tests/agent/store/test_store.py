"""The scripts against a real Redis: submission, claims, fencing, hand-over, forgetting.

What a worker makes of them is in test_worker.py; the HTTP side is in the gateway's tests.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import redis.exceptions
from redis import Redis

from flotilla_runtime.agent.errors import LeaseLostError, StoreUnavailableError, UncertainError
from flotilla_runtime.agent.journal import (
    CallKind,
    CallOutcome,
    Claimed,
    Done,
    Ended,
    EndReason,
    HandedOver,
    Intended,
    Submitted,
    TaskStatus,
    WaitKind,
)
from flotilla_runtime.agent.protocols import Finish, Waits
from flotilla_runtime.agent.store.connections import connect
from flotilla_runtime.agent.store.task_store import TaskStore
from flotilla_runtime.agent.tasks import CancelOutcome, NewTask, SubmitOutcome
from flotilla_runtime.contract import Priority, QueueConfig, TaskLimits
from redis_servers import ADMIN
from redis_topologies import paused
from router_support.waiting import until

pytestmark = pytest.mark.services


def queue(server: Any, **settings: Any) -> QueueConfig:
    return QueueConfig(
        fleet="default/support",
        url=server.url,
        password_path=server.password_path,
        **{"lease_seconds": 30, **settings},
    )


def open_store(server: Any, **settings: Any) -> TaskStore:
    config = queue(server, **settings)
    return TaskStore(connect(config), config)


@pytest.fixture
async def store(redis_server: Any) -> AsyncIterator[TaskStore]:
    opened = open_store(redis_server)
    assert await opened.claim("w0", 1) == [], "a worker has come, so tasks wait in lines"
    await opened.leave("w0")
    yield opened
    await opened.close()


def task(task_id: str, **fields: Any) -> NewTask:
    return NewTask(id=task_id, input="why?", caller="ann", limits=TaskLimits(), **fields)


def intent(call: str = "answer/1") -> Intended:
    return Intended(at=1, call=call, kind=CallKind.MODEL, target="llama", step=1, reserved_tokens=10)


def done(input_tokens: int = 0, output_tokens: int = 0, call: str = "answer/1") -> Done:
    return Done(
        at=2,
        call=call,
        outcome=CallOutcome.SUCCEEDED,
        took_ms=1,
        value="so",
        input_tokens=input_tokens,
        output_tokens=output_tokens,
    )


END = Finish(
    status=TaskStatus.SUCCEEDED, reason=EndReason.COMPLETED, result={"answer": "so"}, busy_ms={}, calls={}
)


async def test_a_submitted_task_is_stored_whole_and_waits(store: TaskStore) -> None:
    submitted = await store.submit(task("t1", metadata={"team": "docs"}))
    assert (submitted.outcome, submitted.id) == (SubmitOutcome.CREATED, "t1")
    loaded = await store.load("t1")
    assert loaded is not None
    assert (loaded.record.status, loaded.record.input) == (TaskStatus.WAITING, "why?")
    assert loaded.record.metadata == {"team": "docs"}
    assert [type(entry) for entry in loaded.entries] == [Submitted]
    assert await store.queue_lengths() == (1, 0)


@pytest.mark.holds("tasks.md", "The same idempotency key of the same caller is the same task with 200")
async def test_the_same_idempotency_key_of_the_same_caller_is_the_same_task(store: TaskStore) -> None:
    await store.submit(task("t1", idempotency_key="k"))
    again = await store.submit(task("t2", idempotency_key="k"))
    assert (again.outcome, again.id) == (SubmitOutcome.EXISTS, "t1")
    other = NewTask(id="t3", input="why?", caller="bob", limits=TaskLimits(), idempotency_key="k")
    assert (await store.submit(other)).outcome is SubmitOutcome.CREATED
    assert await store.queue_lengths() == (2, 0)


async def test_a_full_queue_takes_nothing_and_keeps_nothing(redis_server: Any) -> None:
    store = open_store(redis_server, max_waiting=2, queue_percent=100)
    outcomes = [(await store.submit(task(f"t{number}"))).outcome for number in range(3)]
    assert outcomes == [SubmitOutcome.CREATED, SubmitOutcome.CREATED, SubmitOutcome.FULL]
    assert await store.load("t2") is None
    await store.close()


@pytest.mark.holds("tasks.md", "Interactive tasks are taken before Batch tasks")
async def test_interactive_tasks_are_claimed_before_batch_tasks_and_each_once(store: TaskStore) -> None:
    await store.submit(task("slow", priority=Priority.BATCH))
    await store.submit(task("soon"))
    await store.submit(task("next"))
    first = await store.claim("w1", 2)
    second = await store.claim("w2", 5)
    assert [claim.id for claim in first] == ["soon", "next"]
    assert [claim.id for claim in second] == ["slow"]
    assert await store.queue_lengths() == (0, 3)


@pytest.mark.holds("tasks.md", "One of ten tasks that workers take is a Batch task if one waits")
async def test_each_tenth_task_is_a_batch_task_where_one_waits(store: TaskStore) -> None:
    for number in range(25):
        await store.submit(task(f"i{number:02}"))
    for number in range(5):
        await store.submit(task(f"b{number}", priority=Priority.BATCH))
    granted = "".join([claim.id[0] for _ in range(10) for claim in await store.claim("w1", 3)])
    assert granted == "iiiiiiiiib" + "iiiiiiiiib" + "iiiiiii" + "bbb"


@pytest.mark.holds("tasks.md", "Tenants take turns, and in a tenant's turn its callers")
async def test_tenants_take_turns_and_in_them_their_callers(store: TaskStore) -> None:
    async def submit(task_id: str, tenant: str, caller: str) -> None:
        await store.submit(
            NewTask(id=task_id, input="why?", caller=caller, tenant=tenant, limits=TaskLimits())
        )

    for number in range(4):
        await submit(f"flood{number}", "red", "ann")
    await submit("bob", "red", "bob")
    await submit("cleo", "blue", "cleo")
    first = [claim.id for _ in range(3) for claim in await store.claim("w1", 1)]
    await submit("dan", "green", "dan")
    then = [claim.id for claim in await store.claim("w1", 10)]
    assert (first, then) == (["flood0", "cleo", "bob"], ["flood1", "dan", "flood2", "flood3"])


@pytest.mark.holds(
    "tasks.md", "Tasks wait where workers of the release before find them, until a newer worker has come"
)
async def test_tasks_wait_where_workers_of_the_release_before_find_them_until_a_newer_one_comes(
    redis_server: Any,
) -> None:
    store = open_store(redis_server)
    for number in range(3):
        await store.submit(task(f"old{number}"))
    stream = redis_server.ask("xrange", store.keys.stream(Priority.INTERACTIVE), "-", "+").split()
    assert [word for word in stream if word.startswith("old")] == ["old0", "old1", "old2"]
    await asyncio.sleep(0.1)
    oldest = await store.oldest_waiting_ms()
    assert oldest is not None
    assert oldest >= 100
    assert await store.cancel("old1") is CancelOutcome.CANCELLED
    assert [claim.id for claim in await store.claim("w1", 1)] == ["old0"]
    await store.submit(task("new"))
    assert await store.queue_lengths() == (2, 1)
    assert [claim.id for claim in await store.claim("w1", 5)] == ["old2", "new"]
    assert await store.queue_lengths() == (0, 3)
    await store.close()


async def test_the_oldest_task_of_both_priorities_says_how_long_tasks_wait(store: TaskStore) -> None:
    assert await store.oldest_waiting_ms() is None
    await store.submit(task("batch", priority=Priority.BATCH))
    await asyncio.sleep(0.2)
    await store.submit(task("now"))
    oldest = await store.oldest_waiting_ms()
    assert oldest is not None
    assert oldest >= 200
    await store.cancel("batch")
    newest = await store.oldest_waiting_ms()
    assert newest is not None
    assert newest < oldest


async def test_a_hundred_tasks_and_five_workers_at_once_give_each_task_to_one(store: TaskStore) -> None:
    for number in range(100):
        await store.submit(task(f"t{number:03}"))
    granted = await asyncio.gather(*(store.claim(f"w{worker}", 30) for worker in range(5)))
    ids = [claim.id for claims in granted for claim in claims]
    assert sorted(ids) == [f"t{number:03}" for number in range(100)]


@pytest.mark.holds("tasks.md", "A worker that hangs and comes back changes nothing")
@pytest.mark.holds("decisions/0003-redis-for-tasks.md", "A worker that lost its lease can change nothing")
async def test_an_ended_lease_is_claimed_first_and_the_old_token_writes_nothing(redis_server: Any) -> None:
    store = open_store(redis_server, lease_seconds=0.3)
    await store.submit(task("t1"))
    (old,) = await store.claim("w1", 1)
    assert (await store.append(old, 2, [intent()])).length == 3
    await store.submit(task("t2"))
    await asyncio.sleep(0.35)
    (new,) = await store.claim("w2", 1)
    assert (new.id, new.token > old.token) == ("t1", True)
    before = await store.load("t1")
    with pytest.raises(LeaseLostError):
        await store.append(old, 4, [intent("answer/9")])
    with pytest.raises(LeaseLostError):
        await store.finish(old, END)
    with pytest.raises(LeaseLostError):
        await store.release(old, "w1")
    assert (await store.renew([old])).lost == {"t1"}
    after = await store.load("t1")
    assert before is not None
    assert after is not None
    assert (after.record, after.entries) == (before.record, before.entries)
    assert [entry.attempt for entry in after.entries if isinstance(entry, Claimed)] == [1, 2]
    await store.close()


@pytest.mark.holds(
    "tasks.md", "No fencing token is granted twice, also after a failover of Redis that has lost writes"
)
@pytest.mark.holds("recovery.md", "A token that a failover has lost is not granted again")
async def test_a_token_that_a_failover_has_lost_is_not_granted_again(
    store: TaskStore, redis_server: Any
) -> None:
    """A replica becomes the primary without the last writes: here, what stood before the claim comes back."""
    await store.submit(task("t1"))
    with Redis(port=redis_server.port, username=ADMIN, password=redis_server.password) as server:
        before = {key: server.dump(key) for key in server.scan_iter()}
        (lost,) = await store.claim("w1", 1)
        server.flushall()
        for key, content in before.items():
            server.restore(key, 0, content)
    (granted,) = await store.claim("w2", 1)
    assert granted.token != lost.token
    with pytest.raises(LeaseLostError):
        await store.append(lost, 2, [intent()])
    assert (await store.append(granted, 2, [intent()])).length == 3


@pytest.mark.holds(
    "tasks.md", "A worker that does not hear which tasks it was granted asks again, and is granted the same"
)
async def test_a_claim_whose_answer_was_lost_gets_the_same_tasks(redis_server: Any) -> None:
    store = open_store(redis_server, lease_seconds=0.3)
    for name in ("t1", "t2", "t3"):
        await store.submit(task(name))
    first = await store.claim("w1", 2, "r1")
    assert await store.claim("w1", 2, "r1") == first
    assert [claim.id for claim in first] == ["t1", "t2"]
    await store.finish(first[0], END)
    assert await store.claim("w1", 2, "r1") == first[1:], "what has ended is not granted again"
    await asyncio.sleep(0.35)
    assert await store.claim("w1", 2, "r1") == first[1:], "its lease has ended, and nobody has taken it"
    assert [claim.id for claim in await store.claim("w2", 2)] == ["t3"], "now it has a lease again"
    loaded = await store.load("t2")
    assert loaded is not None
    assert loaded.record.attempts == 1
    await asyncio.sleep(0.35)
    others = await store.claim("w2", 1)
    assert [claim.id for claim in others] == ["t2"]
    anew = await store.claim("w1", 2, "r1")
    assert [claim.id for claim in anew] == ["t3"], "another worker has t2, so the request asks anew"
    await store.close()


async def test_a_renewed_lease_is_not_claimed(redis_server: Any) -> None:
    store = open_store(redis_server, lease_seconds=3)
    await store.submit(task("t1"))
    claims = await store.claim("w1", 1)
    first_end = lease_end(redis_server, store)
    while redis_clock(redis_server) <= first_end:
        assert (await store.renew(claims)).lost == frozenset()
        await asyncio.sleep(0.1)
    assert await store.claim("w2", 1) == []
    await store.close()


def lease_end(server: Any, store: TaskStore) -> float:
    return float(server.ask("zscore", store.keys.leases, "t1")) / 1000


def redis_clock(server: Any) -> float:
    seconds, microseconds = server.ask("time").split()
    return int(seconds) + int(microseconds) / 1_000_000


async def test_an_append_whose_answer_was_lost_is_not_doubled(store: TaskStore) -> None:
    await store.submit(task("t1"))
    (claim,) = await store.claim("w1", 1)
    first = await store.append(claim, 2, [intent(), done()], "w1")
    assert await store.append(claim, 2, [intent(), done()], "w1") == first
    loaded = await store.load("t1")
    assert loaded is not None
    assert list(loaded.entries[2:]) == [intent(), done()]
    with pytest.raises(LeaseLostError):
        await store.append(claim, 2, [intent("answer/2")])


async def test_a_finish_whose_answer_was_lost_is_not_doubled(store: TaskStore) -> None:
    await store.submit(task("t1"))
    (claim,) = await store.claim("w1", 1)
    await store.append(claim, 2, [intent(), done(40, 10)])
    await store.finish(claim, END)
    await store.finish(claim, END)
    loaded = await store.load("t1")
    assert loaded is not None
    assert (loaded.record.status, loaded.record.reason) == (TaskStatus.SUCCEEDED, "Completed")
    assert loaded.record.result == {"answer": "so"}
    assert [type(entry) for entry in loaded.entries] == [Submitted, Claimed, Intended, Done, Ended]
    minute = (loaded.record.ended_at or 0) // 60_000
    (window,) = await store.windows([minute])
    assert (window["reason:Completed"], window["tokens"]) == (1, 50)


async def test_a_released_task_is_claimed_at_once_and_its_attempt_is_not_counted(store: TaskStore) -> None:
    await store.submit(task("t1"))
    (claim,) = await store.claim("w1", 1)
    await store.release(claim, "w1")
    (again,) = await store.claim("w2", 1)
    loaded = await store.load("t1")
    assert loaded is not None
    assert (again.id, loaded.record.attempts) == ("t1", 1)
    assert any(isinstance(entry, HandedOver) for entry in loaded.entries)
    with pytest.raises(LeaseLostError):
        await store.append(claim, 3, [intent()])


async def test_a_waiting_task_is_cancelled_at_once_and_a_running_one_is_asked_to_end(
    store: TaskStore,
) -> None:
    await store.submit(task("waiting", priority=Priority.BATCH))
    await store.submit(task("running"))
    (claim,) = await store.claim("w1", 1)
    assert await store.cancel("waiting") is CancelOutcome.CANCELLED
    assert await store.cancel("waiting") is CancelOutcome.ENDED
    assert await store.cancel("running") is CancelOutcome.REQUESTED
    assert await store.cancel("nobody") is CancelOutcome.UNKNOWN
    assert await store.queue_lengths() == (0, 1)
    assert (await store.renew([claim])).cancelled == {"running"}
    assert (await store.append(claim, 2, [intent()])).cancel_requested
    loaded = await store.load("waiting")
    assert loaded is not None
    assert isinstance(loaded.entries[-1], Ended)


async def test_waiting_for_work_ends_when_a_task_comes(store: TaskStore) -> None:
    clock = asyncio.get_running_loop().time
    waiting = asyncio.create_task(store.wait_for_work(4))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    started = clock()
    await store.submit(task("t1"))
    await waiting
    assert clock() - started < 3.5, "it waited on after the task had come"
    await store.claim("w1", 1)
    started = clock()
    await store.wait_for_work(0.2)
    assert clock() - started >= 0.15


@pytest.mark.holds(
    "tasks.md", "A Redis that is nearly full answers 429, and results that lived their time make room"
)
async def test_results_are_forgotten_whole_after_their_time(redis_server: Any) -> None:
    store = open_store(redis_server, result_ttl_seconds=0)
    await store.submit(task("t1", idempotency_key="k"))
    await store.submit(task("t2"))
    (claim,) = await store.claim("w1", 1)
    await store.finish(claim, END)
    await asyncio.sleep(0.01)
    assert await store.forget_ended() == 1
    assert await store.load("t1") is None
    assert await store.ids(None, None, 10) == ["t2"]
    assert await store.ids("ann", None, 10) == ["t2"]
    assert (await store.submit(task("t3", idempotency_key="k"))).outcome is SubmitOutcome.CREATED
    await store.close()


async def test_ids_come_newest_first_and_page_by_page(store: TaskStore) -> None:
    for number in range(5):
        await store.submit(task(f"t{number}"))
    assert await store.ids(None, None, 2) == ["t4", "t3"]
    assert await store.ids("ann", "t3", 10) == ["t2", "t1", "t0"]
    assert await store.ids("bob", None, 10) == []


async def test_a_redis_that_is_away_is_said_to_be_away(redis_server: Any) -> None:
    store = open_store(redis_server)
    await store.submit(task("t1"))
    redis_server.stop()
    with pytest.raises(UncertainError, match="does not answer: ConnectionError"):
        await store.submit(task("t2"))
    with pytest.raises(StoreUnavailableError) as problem:
        await store.submit(task("t2"))
    assert not isinstance(problem.value, UncertainError), "without a connection nothing was sent"
    redis_server.start()
    await store.close()
    loaded = await store.load("t1")
    assert loaded is not None
    assert loaded.record.status is TaskStatus.WAITING
    await store.close()


@pytest.mark.holds(
    "tasks.md",
    "A submission or replay without a key that may be kept is a 503 that is not to be repeated and "
    "names the task, so OpenAI's client makes one task",
)
async def test_a_submission_whose_answer_does_not_come_may_be_stored(redis_server: Any) -> None:
    store = open_store(redis_server)
    await store.submit(task("t1"))
    with paused(redis_server), pytest.raises(UncertainError):
        await store.submit(task("t2"))
    await until(lambda: "t2" in redis_server.ask("zrange", store.keys.tasks, "0", "-1"))
    await store.close()


@asynccontextmanager
async def full(server: Any) -> AsyncIterator[str]:
    server.ask("config", "set", "maxmemory", "1")
    yield "OutOfMemory"
    server.ask("config", "set", "maxmemory", "0")


@asynccontextmanager
async def too_few_replicas(server: Any) -> AsyncIterator[str]:
    server.ask("config", "set", "min-replicas-to-write", "1")
    yield "NOREPLICAS"
    server.ask("config", "set", "min-replicas-to-write", "0")


@asynccontextmanager
async def unable_to_save(server: Any) -> AsyncIterator[str]:
    in_the_way = Path(server.password_path).with_name("dump.rdb")
    in_the_way.mkdir()
    server.ask("config", "set", "save", "3600 1")
    server.ask("bgsave")
    await until(lambda: "rdb_last_bgsave_status:err" in server.ask("info", "persistence"))
    yield "MISCONF"
    server.ask("config", "set", "save", "")
    in_the_way.rmdir()


@asynccontextmanager
async def busy(server: Any) -> AsyncIterator[str]:
    server.ask("config", "set", "busy-reply-threshold", "10")
    running = asyncio.create_task(asyncio.to_thread(server.ask, "eval", "while true do end", "0"))
    await until(lambda: server.ask("ping").startswith("BUSY"))
    yield "BUSY"
    server.ask("script", "kill")
    await running


@pytest.mark.parametrize("trouble", [full, too_few_replicas, unable_to_save, busy])
async def test_a_redis_that_answers_with_a_trouble_of_its_own_is_away_and_comes_back(
    redis_server: Any, trouble: Any
) -> None:
    store = open_store(redis_server)
    await store.submit(task("t1"))
    async with trouble(redis_server) as said:
        with pytest.raises(StoreUnavailableError, match=said) as problem:
            await store.submit(task("t2"))
        assert not isinstance(problem.value, UncertainError), "Redis has refused it"
        if trouble is not full:  # a claim begins by taking the task off the queue, so Redis lets it
            with pytest.raises(StoreUnavailableError, match=said):
                await store.claim("w1", 1)
        if trouble is busy:
            with pytest.raises(StoreUnavailableError, match=said):
                await store.load("t1")
    assert [claim.id for claim in await store.claim("w1", 5)] == ["t1"]
    await store.close()


@pytest.mark.holds(
    "tasks.md", "A Redis that is nearly full answers 429, and results that lived their time make room"
)
async def test_a_full_redis_can_still_forget(redis_server: Any) -> None:
    store = open_store(redis_server, result_ttl_seconds=0)
    await store.submit(task("t1"))
    await store.cancel("t1")
    async with full(redis_server):
        await asyncio.sleep(0.01)
        assert await store.forget_ended() == 1
    await store.close()


async def test_an_error_of_ours_is_not_taken_for_a_redis_that_is_away(redis_server: Any) -> None:
    store = open_store(redis_server)
    redis_server.ask("set", store.keys.task("t1"), "no hash")
    with pytest.raises(redis.exceptions.ResponseError, match="WRONGTYPE"):
        await store.load("t1")
    await store.close()


@pytest.mark.holds("tasks.md", "A Redis Cluster works")
async def test_all_scripts_work_on_a_redis_cluster(redis_cluster: Any) -> None:
    store = open_store(redis_cluster, result_ttl_seconds=0)
    await store.submit(task("t1", idempotency_key="k"))
    await store.submit(task("t2"))
    first, second = await store.claim("w1", 2)
    await store.append(first, 2, [intent()])
    await store.renew([first])
    spawned = Intended(at=1, call="s", kind=CallKind.SPAWN, target="agent")
    assert (await store.spawn(first, 3, spawned, "look")).length == 4
    (child,) = await store.claim("w1", 1)
    await store.crashed(child)
    await store.leave("w1")
    assert (await store.figures()).waiting == 1
    assert await store.suspend(first, 4, Waits(kind=WaitKind.EFFECT, call="answer/1"))
    await store.resolve("t1", "answer/1", happened=True, by="ann")
    await store.cancel(child.id)
    (first,) = await store.claim("w1", 1)
    await store.finish(first, END)
    await store.release(second, "w1")
    await store.submit(task("t3"))
    await store.cancel("t3")
    assert await store.queue_lengths() == (1, 0)
    await asyncio.sleep(0.01)
    assert await store.forget_ended() == 3
    await store.close()
