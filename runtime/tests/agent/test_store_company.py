"""Lost workers, against a real Redis: a worker's loss is laid to the task that killed it and to no other.

What a worker process makes of it is in the benchmark of recovery.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

import pytest

from agent_support.stores import END, done, intent, length, loaded, open_store, running, task, with_lines
from flotilla_runtime.agent.errors import LeaseLostError
from flotilla_runtime.agent.journal import CallKind, Claimed, EndReason, HandedOver, TaskStatus
from flotilla_runtime.agent.store import TaskStore
from flotilla_runtime.agent.tasks import Claim
from flotilla_runtime.contract import TaskLimits

pytestmark = pytest.mark.services

LEASE = 0.2


@pytest.fixture
async def store(redis_server: Any) -> AsyncIterator[TaskStore]:
    opened = await with_lines(open_store(redis_server, lease_seconds=LEASE, max_attempts=2))
    yield opened
    await opened.close()


async def submitted(store: TaskStore, count: int) -> list[str]:
    names = [f"t{number:03}" for number in range(count)]
    for name in names:
        await store.submit(task(name))
    return names


async def claimed(store: TaskStore, worker: str, wanted: int = 500) -> list[Claim]:
    """What a worker that is the only one is granted; it is lost or done before another one comes."""
    claims = await store.claim(worker, wanted)
    await store.leave(worker)
    return claims


async def leases_end() -> None:
    await asyncio.sleep(1.2 * LEASE)


async def attempts(store: TaskStore, names: Iterable[str]) -> list[int]:
    return [(await loaded(store, name)).record.attempts for name in names]


async def ended(store: TaskStore, claims: Iterable[Claim]) -> None:
    for claim in claims:
        await store.finish(claim, END)


async def test_of_forty_tasks_the_one_that_kills_runs_in_ever_smaller_company(store: TaskStore) -> None:
    """Each worker that has the killer is lost before any of its tasks has made a call."""
    names = await submitted(store, 40)
    killer, companies, worker = names[17], [], 0
    while not all([(await loaded(store, name)).record.status.is_final for name in names]):
        worker += 1
        assert worker < 60
        claims = await claimed(store, f"w{worker}")
        if killer in {claim.id for claim in claims}:
            companies.append(len(claims))
            await leases_end()
        else:
            await ended(store, claims)
    assert companies == [40, 10, 2, 1, 1, 1], "and with two attempts it is given up in its third"
    record = (await loaded(store, killer)).record
    assert (record.status, record.reason) == (TaskStatus.FAILED, EndReason.INFRASTRUCTURE)
    others = [name for name in names if name != killer]
    assert {(await loaded(store, name)).record.reason for name in others} == {"Completed"}
    assert set(await attempts(store, others)) == {1}


async def test_a_poisoned_task_among_two_hundred_good_ones_ends_and_they_do_not(store: TaskStore) -> None:
    """Three workers take and end tasks; whichever has the poison is lost, and another one comes."""
    names = await submitted(store, 201)
    poison = names[99]
    held: dict[str, list[Claim]] = {f"w{number}": [] for number in range(3)}
    for turn in range(200):
        for worker in list(held):
            held[worker].extend(await store.claim(worker, 70))
            if any(claim.id == poison for claim in held[worker]):
                del held[worker]
                held[f"x{turn}"] = []
                await store.leave(worker)
            else:
                await ended(store, held[worker][:10])
                del held[worker][:10]
        for claims in held.values():
            assert not (await store.renew(claims)).lost
        if not [name for name in names if not (await loaded(store, name)).record.status.is_final]:
            break
        await asyncio.sleep(LEASE / 10)
    assert (await loaded(store, poison)).record.reason == EndReason.INFRASTRUCTURE
    others = [name for name in names if name != poison]
    assert {(await loaded(store, name)).record.reason for name in others} == {"Completed"}
    assert set(await attempts(store, others)) == {1}


async def test_a_task_that_was_alone_with_its_worker_loses_an_attempt(store: TaskStore) -> None:
    await submitted(store, 1)
    await claimed(store, "w1")
    await leases_end()
    (again,) = await claimed(store, "w2")
    record = (await loaded(store, again.id)).record
    assert record.attempts == 2
    entries = (await loaded(store, again.id)).entries
    assert [entry.attempt for entry in entries if isinstance(entry, Claimed)] == [1, 2]


async def test_a_task_handed_over_keeps_its_attempt(store: TaskStore) -> None:
    await submitted(store, 1)
    for worker in range(5):
        (claim,) = await claimed(store, f"w{worker}#mark")
        await store.release(claim, f"w{worker}#mark")
    assert await attempts(store, ["t000"]) == [1]
    entries = (await loaded(store, "t000")).entries
    assert {entry.worker for entry in entries if isinstance(entry, HandedOver)} == {f"w{n}" for n in range(5)}
    assert await store.queue_lengths() == (1, 0)


@pytest.mark.parametrize("kind", [CallKind.MODEL, CallKind.TOOL, CallKind.RETRIEVE])
async def test_a_suspect_that_gets_further_is_none_any_more(store: TaskStore, kind: CallKind) -> None:
    await submitted(store, 2)
    await claimed(store, "w1")
    await leases_end()
    (first,) = await store.claim("w2", 9)
    assert await store.claim("w2", 9) == [], "each of two is alone"
    call = intent("a", kind=kind)
    written = await store.append(first, await length(store, first.id), [call])
    assert await store.claim("w2", 9) == []
    await store.append(first, written.length, [done("a")])
    assert len(await store.claim("w2", 9)) == 0, "this worker holds a task, and the other must be alone"
    await store.finish(first, END)
    assert len(await store.claim("w2", 9)) == 1


async def test_the_news_that_a_suspect_got_further_wakes_a_worker(store: TaskStore) -> None:
    await submitted(store, 2)
    await claimed(store, "w1")
    await leases_end()
    (first,) = await store.claim("w2", 9)
    for _ in range(4):  # what submissions and losses have called
        await store.wait_for_work(0.01)
    waiting = asyncio.create_task(store.wait_for_work(5))
    await asyncio.sleep(0.05)
    await store.append(first, await length(store, first.id), [intent("a"), done("a")])
    await asyncio.wait_for(waiting, 2)


async def test_a_worker_that_was_cut_off_has_its_tasks_again_and_they_are_no_suspects(
    store: TaskStore,
) -> None:
    await submitted(store, 8)
    claims = await claimed(store, "w1", 8)
    await leases_end()
    (taken, *_) = taken_all = await claimed(store, "w2", 2)
    assert len(taken_all) == 2
    renewal = await store.renew(claims)
    assert renewal.lost == {claim.id for claim in taken_all}
    kept = [claim for claim in claims if claim.id not in renewal.lost]
    assert (await store.append(kept[0], 2, [intent()])).length == 3
    assert await store.queue_lengths() == (0, 8)
    await store.finish(taken, END)
    assert set(await attempts(store, [claim.id for claim in kept])) == {1}
    await leases_end()
    assert len(await claimed(store, "w3")) in (1, 2), "lost again, they are suspects for the first time"
    with pytest.raises(LeaseLostError):
        await store.append(taken, 3, [intent()])


async def test_a_lone_task_of_a_worker_that_was_cut_off_keeps_its_attempt(store: TaskStore) -> None:
    await submitted(store, 1)
    (claim,) = await store.claim("w1", 1)
    await leases_end()
    await store.submit(task("other", limits=TaskLimits()))
    await store.cancel("other")
    assert (await store.claim("w2", 0)) == [], "this finds that the lease has ended"
    assert await attempts(store, ["t000"]) == [2]
    assert (await store.append(claim, 2, [intent()])).length == 3
    assert await attempts(store, ["t000"]) == [1]
    assert await store.queue_lengths() == (0, 1)


async def test_a_run_that_stops_while_its_worker_lives_is_laid_to_its_task(store: TaskStore) -> None:
    await submitted(store, 3)
    _, *others = await store.claim("w1", 3)
    await asyncio.sleep(LEASE / 2)
    await store.renew(others)
    for _ in range(5):
        await store.renew(others)
        assert await store.claim("w2", 1) == [], "it may yet be found that the worker is lost"
        await asyncio.sleep(LEASE / 5)
    for _ in range(4):
        await store.renew(others)
        await asyncio.sleep(LEASE / 5)
    assert [claim.id for claim in await store.claim("w2", 1)] == ["t000"]
    assert await attempts(store, ["t000", "t001", "t002"]) == [2, 1, 1]


async def test_one_of_busy_workers_takes_no_more_until_it_is_empty_for_a_suspect(store: TaskStore) -> None:
    suspect = await running(store, task("suspect"), "w0")
    busy = await running(store, task("busy1"), "w1")
    other = await running(store, task("busy2"), "w2")
    await asyncio.sleep(LEASE * 0.9)
    await store.renew([busy, other])
    await asyncio.sleep(LEASE * 0.3)
    assert await store.claim("w1", 9) == [], "found, but it must be alone"
    for _ in range(8):
        await store.renew([busy, other])
        await asyncio.sleep(LEASE / 5)
    assert await store.claim("w1", 9) == [], "now this worker empties"
    await store.submit(task("new"))
    assert await store.claim("w1", 9) == []
    assert [claim.id for claim in await store.claim("w2", 9)] == ["new"], "and the other goes on"
    await store.finish(busy, END)
    assert [claim.id for claim in await store.claim("w1", 9)] == ["suspect"]
    await store.submit(task("newer"))
    assert await store.claim("w1", 9) == [], "it stays alone"
    assert suspect.id == "suspect"


async def test_leases_of_one_worker_that_end_one_after_another_are_one_loss(store: TaskStore) -> None:
    await submitted(store, 8)
    claims = await claimed(store, "w1", 8)
    await asyncio.sleep(LEASE / 2)
    await store.append(claims[7], 2, [intent()])
    await asyncio.sleep(LEASE * 0.7)
    first = await claimed(store, "w2", 100)
    assert first == [], "the worker was heard of a moment ago"
    await asyncio.sleep(LEASE / 2)
    assert len(await claimed(store, "w3", 100)) == 2
    assert set(await attempts(store, [claim.id for claim in claims])) == {1}


async def test_the_share_of_a_worker_is_what_waits_and_runs_by_those_who_take(store: TaskStore) -> None:
    await submitted(store, 100)
    assert await store.claim("w2", 0) == []
    assert len(await store.claim("w1", 80)) == 50
    assert len(await store.claim("w1", 80)) == 0
    assert len(await store.claim("w2", 20)) == 20
    assert len(await store.claim("w2", 80)) == 30
    figures = await store.figures()
    assert figures.workers == {"w1": 50, "w2": 50}
