"""Lost workers, against a real Redis: a worker's loss is laid to the task that killed it and to no other.

Time passes by moving the ends of leases. What a worker process makes of it is in the benchmark of recovery.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from redis import Redis

from agent_support.stores import END, done, intent, length, loaded, open_store, running, task, with_lines
from flotilla_runtime.agent.errors import LeaseLostError
from flotilla_runtime.agent.journal import CallKind, Claimed, EndReason, HandedOver, TaskStatus
from flotilla_runtime.agent.store.task_store import TaskStore
from flotilla_runtime.agent.tasks import Claim
from flotilla_runtime.contract import Priority
from redis_servers import ADMIN

pytestmark = pytest.mark.services

LEASE_SECONDS = 600


@pytest.fixture
async def store(redis_server: Any) -> AsyncIterator[TaskStore]:
    opened = await with_lines(open_store(redis_server, lease_seconds=LEASE_SECONDS, max_attempts=2))
    yield opened
    await opened.close()


@dataclass(slots=True)
class Leases:
    """Lets time pass for some tasks and workers."""

    redis: "Redis"
    keys: Any

    def pass_for(
        self, *, tasks: Iterable[str] = (), workers: Iterable[str] = (), leases: float = 1.01
    ) -> None:
        """Their leases were renewed so many leases ago."""
        back = LEASE_SECONDS * 1000 * leases
        for key, members in ((self.keys.leases, tasks), (self.keys.workers, workers)):
            for member in members:
                self.redis.zincrby(key, -back, member)

    def lose(self, worker: str) -> None:
        """The worker is killed, and its leases end."""
        self.pass_for(tasks=map(str, self.redis.smembers(self.keys.held_by(worker))), workers=[worker])


@pytest.fixture
def leases(redis_server: Any, store: TaskStore) -> Iterator[Leases]:
    with Redis(
        port=redis_server.port, username=ADMIN, password=redis_server.password, decode_responses=True
    ) as client:
        yield Leases(client, store.keys)


async def submitted(store: TaskStore, count: int) -> list[str]:
    names = [f"t{number:03}" for number in range(count)]
    for name in names:
        await store.submit(task(name))
    return names


async def claimed(store: TaskStore, worker: str, wanted: int = 500) -> list[Claim]:
    """The claims of a worker that is the only one to take tasks."""
    claims = await store.claim(worker, wanted)
    await store.leave(worker)
    return claims


async def attempts(store: TaskStore, names: Iterable[str]) -> list[int]:
    return [(await loaded(store, name)).record.attempts for name in names]


async def ended(store: TaskStore, claims: Iterable[Claim]) -> None:
    for claim in claims:
        await store.finish(claim, END)


async def unended(store: TaskStore, names: Iterable[str]) -> list[str]:
    return [name for name in names if not (await loaded(store, name)).record.status.is_final]


async def under_suspicion(store: TaskStore, leases: Leases, count: int) -> None:
    """These tasks were lost with two workers, one after the other."""
    await submitted(store, count)
    for worker in ("x1", "x2"):
        assert len(await claimed(store, worker)) == count
        leases.lose(worker)


@pytest.mark.holds(
    "tasks.md",
    "A task that kills its workers is found in smaller and smaller groups and given up; no other "
    "loses an attempt",
)
async def test_of_forty_tasks_the_one_that_kills_runs_in_ever_smaller_company(
    store: TaskStore, leases: Leases
) -> None:
    """Each worker that has the killer is lost before any of its tasks has made a call."""
    names = await submitted(store, 40)
    killer, companies, worker = names[17], [], 0
    while await unended(store, names):
        worker += 1
        assert worker < 60
        claims = await claimed(store, f"w{worker}")
        if killer in {claim.id for claim in claims}:
            companies.append(len(claims))
            leases.lose(f"w{worker}")
        else:
            await ended(store, claims)
    assert companies == [40, 40, 10, 2, 1, 1, 1], "and with two attempts it is given up in its third"
    record = (await loaded(store, killer)).record
    assert (record.status, record.reason) == (TaskStatus.FAILED, EndReason.INFRASTRUCTURE)
    assert record.message == "the task was given up, because 2 workers were lost while they ran it alone"
    others = [name for name in names if name != killer]
    assert {(await loaded(store, name)).record.reason for name in others} == {"Completed"}
    assert set(await attempts(store, others)) == {1}


@pytest.mark.holds(
    "tasks.md",
    "A task that kills its workers is found in smaller and smaller groups and given up; no other "
    "loses an attempt",
)
@pytest.mark.holds("recovery.md", "A task that kills its workers ends, and takes no other with it")
async def test_a_poisoned_task_among_two_hundred_good_ones_ends_and_they_do_not(
    store: TaskStore, leases: Leases
) -> None:
    """Three workers take and end tasks; whichever has the poison is lost, and another one comes."""
    names = await submitted(store, 201)
    poison, turn = names[99], 0
    held: dict[str, list[Claim]] = {f"w{number}": [] for number in range(3)}
    while await unended(store, names):
        turn += 1
        assert turn < 200
        for worker in list(held):
            held[worker].extend(await store.claim(worker, 70))
            if any(claim.id == poison for claim in held[worker]):
                del held[worker]
                held[f"x{turn}"] = []
                await store.leave(worker)
                leases.lose(worker)
            else:
                await ended(store, held[worker][:10])
                del held[worker][:10]
    assert (await loaded(store, poison)).record.reason == EndReason.INFRASTRUCTURE
    others = [name for name in names if name != poison]
    assert {(await loaded(store, name)).record.reason for name in others} == {"Completed"}
    assert set(await attempts(store, others)) == {1}


@pytest.mark.holds("tasks.md", "A worker's tasks all go on at once after its loss")
async def test_tasks_that_were_lost_once_all_go_on_at_once(store: TaskStore, leases: Leases) -> None:
    """Most workers are killed by something else than their tasks, and nobody waits for that."""
    await submitted(store, 40)
    await claimed(store, "w1")
    leases.lose("w1")
    assert len(await store.claim("w2", 16)) == 16
    assert len(await store.claim("w3", 40)) == 20, "its share"
    assert len(await store.claim("w2", 16)) == 4


@pytest.mark.holds(
    "tasks.md",
    "A task that kills its workers is found in smaller and smaller groups and given up; no other "
    "loses an attempt",
)
async def test_a_task_that_was_alone_with_its_worker_loses_an_attempt(
    store: TaskStore, leases: Leases
) -> None:
    await submitted(store, 1)
    await claimed(store, "w1")
    leases.lose("w1")
    (again,) = await claimed(store, "w2")
    found = await loaded(store, again.id)
    assert found.record.attempts == 2
    assert [entry.attempt for entry in found.entries if isinstance(entry, Claimed)] == [1, 2]


async def test_a_task_handed_over_keeps_its_attempt(store: TaskStore) -> None:
    await submitted(store, 1)
    for worker in range(5):
        (claim,) = await claimed(store, f"w{worker}#mark")
        await store.release(claim, f"w{worker}#mark")
        await store.release(claim, f"w{worker}#mark")  # sent again
    assert await attempts(store, ["t000"]) == [1]
    entries = (await loaded(store, "t000")).entries
    workers = [entry.worker for entry in entries if isinstance(entry, HandedOver)]
    assert workers == [f"w{number}" for number in range(5)]
    assert await store.queue_lengths() == (1, 0)


@pytest.mark.holds("tasks.md", "A task whose next call ends is above suspicion")
@pytest.mark.parametrize("kind", [CallKind.MODEL, CallKind.TOOL, CallKind.RETRIEVE])
async def test_a_suspect_that_gets_further_is_none_any_more(
    store: TaskStore, leases: Leases, kind: CallKind
) -> None:
    await under_suspicion(store, leases, 8)
    (first, second) = await claimed(store, "w2")
    assert await claimed(store, "w2") == [], "of eight at most two are together"
    written = await store.append(first, await length(store, first.id), [intent("a", kind=kind)])
    assert await claimed(store, "w2") == []
    await store.append(first, written.length, [done("a")])
    assert len(await claimed(store, "w2")) == 1, "the first is none of the two any more"
    leases.lose("w2")
    await store.claim("w3", 0)
    companies = {name: leases.redis.hget(store.keys.task(name), "company") for name in (first.id, second.id)}
    assert companies == {first.id: "3", second.id: "1"}, "the first is lost as if for the first time"
    assert await attempts(store, [first.id, second.id]) == [1, 1]


async def test_the_news_that_a_suspect_got_further_wakes_a_worker(store: TaskStore, leases: Leases) -> None:
    await under_suspicion(store, leases, 2)
    (first,) = await store.claim("w2", 9)
    for _ in range(6):  # what submissions and losses have called
        await store.wait_for_work(0.01)
    waiting = asyncio.create_task(store.wait_for_work(5))
    await asyncio.sleep(0.05)
    await store.append(first, await length(store, first.id), [intent("a"), done("a")])
    await asyncio.wait_for(waiting, 2)


@pytest.mark.holds("tasks.md", "A worker that was cut off has its tasks again that nobody took")
async def test_a_worker_that_was_cut_off_has_its_tasks_again_and_they_are_no_suspects(
    store: TaskStore, leases: Leases
) -> None:
    await submitted(store, 8)
    claims = await claimed(store, "w1", 8)
    leases.lose("w1")
    taken = await claimed(store, "w2", 2)
    assert len(taken) == 2
    renewal = await store.renew(claims)
    assert renewal.lost == {claim.id for claim in taken}
    kept = [claim for claim in claims if claim.id not in renewal.lost]
    assert (await store.append(kept[0], 2, [intent()])).length == 3
    assert await store.queue_lengths() == (0, 8)
    await ended(store, taken)
    assert set(await attempts(store, [claim.id for claim in kept])) == {1}
    leases.lose("w1")
    assert len(await claimed(store, "w3")) == 6, "none was a suspect before"
    stale = next(claim for claim in claims if claim.id in renewal.lost)
    with pytest.raises(LeaseLostError):
        await store.append(stale, 3, [intent()])


@pytest.mark.holds("tasks.md", "A worker that was cut off has its tasks again that nobody took")
async def test_a_lone_task_of_a_worker_that_was_cut_off_keeps_its_attempt(
    store: TaskStore, leases: Leases
) -> None:
    await submitted(store, 1)
    (claim,) = await claimed(store, "w1", 1)
    leases.lose("w1")
    assert (await store.claim("w2", 0)) == [], "this finds that the lease has ended"
    assert await attempts(store, ["t000"]) == [2]
    assert await store.queue_lengths() == (1, 0)
    assert (await store.append(claim, 2, [intent()])).length == 3
    assert await attempts(store, ["t000"]) == [1]
    assert await store.queue_lengths() == (0, 1)


@pytest.mark.holds(
    "tasks.md",
    "A task that kills its workers is found in smaller and smaller groups and given up; no other "
    "loses an attempt",
)
async def test_a_run_that_stops_while_its_worker_lives_is_laid_to_its_task(
    store: TaskStore, leases: Leases
) -> None:
    await submitted(store, 3)
    await claimed(store, "w1", 3)
    leases.pass_for(tasks=["t000"])
    assert await claimed(store, "w2") == [], "it may yet be found that the worker is lost"
    leases.pass_for(tasks=["t000"])
    assert [claim.id for claim in await claimed(store, "w2")] == ["t000"]
    assert await attempts(store, ["t000", "t001", "t002"]) == [2, 1, 1]


async def test_leases_of_one_worker_that_end_one_after_another_are_one_loss(
    store: TaskStore, leases: Leases
) -> None:
    await submitted(store, 8)
    claims = await claimed(store, "w1", 8)
    leases.pass_for(tasks=[claim.id for claim in claims[:7]])
    assert await claimed(store, "w2") == [], "the worker was heard of a moment ago"
    leases.pass_for(tasks=[claims[7].id], workers=["w1"])
    claims = await claimed(store, "w3")
    assert len(claims) == 8
    leases.pass_for(tasks=[claim.id for claim in claims], workers=["w3"])
    assert len(await claimed(store, "w4")) == 2, "eight were lost together"
    assert set(await attempts(store, [claim.id for claim in claims])) == {1}


def waits_long(leases: Leases, name: str, shares: float) -> None:
    """The task has waited for so many leases."""
    leases.redis.zincrby(leases.keys.waiting(Priority.INTERACTIVE), -1000 * LEASE_SECONDS * shares, name)


@pytest.mark.holds("tasks.md", "Suspects do not wait for ever behind busy workers")
async def test_a_suspect_that_should_be_the_only_one_does_not_wait_long_for_a_worker_without_tasks(
    store: TaskStore, leases: Leases
) -> None:
    for worker, name in (("x1", "a"), ("x1", "b")):
        await running(store, task(name), worker)
    leases.lose("x1")
    assert len(await claimed(store, "w0")) == 2
    await running(store, task("busy"), "w1")
    leases.lose("w0")
    assert await claimed(store, "w1") == [], "first a worker without tasks may take it"
    for name in "ab":
        waits_long(leases, name, 0.5)
    assert [claim.id for claim in await claimed(store, "w1")] == ["a"]
    await store.submit(task("new"))
    assert [claim.id for claim in await claimed(store, "w1")] == ["new"], "one suspect at a time"
    leases.lose("w1")
    assert [claim.id for claim in await claimed(store, "w2")] == ["b"]
    assert await attempts(store, ["a", "b", "busy", "new"]) == [1, 1, 1, 1]
    waits_long(leases, "a", 0.5)
    leases.redis.hdel(store.keys.task("b"), "company")
    assert [claim.id for claim in await claimed(store, "w2")] == ["busy"], "now it must be alone"
    assert [claim.id for claim in await claimed(store, "w3")] == ["a"]
    assert [claim.id for claim in await claimed(store, "w2")] == ["new"]


@pytest.mark.holds("tasks.md", "Suspects do not wait for ever behind busy workers")
async def test_one_of_busy_workers_takes_no_more_until_it_is_empty_for_a_task_that_must_be_alone(
    store: TaskStore, leases: Leases
) -> None:
    await running(store, task("suspect"), "w0")
    busy = await running(store, task("busy1"), "w1")
    await running(store, task("busy2"), "w2")
    leases.redis.hset(store.keys.task("suspect"), "company", "1")
    leases.lose("w0")
    assert await store.claim("w1", 9) == [], "found, but it must be alone"
    waits_long(leases, "suspect", 0.41)
    assert await store.claim("w1", 9) == [], "it has waited long, so this worker empties"
    await store.submit(task("new"))
    assert await store.claim("w1", 9) == []
    assert [claim.id for claim in await store.claim("w2", 9)] == ["new"], "and the other goes on"
    await store.finish(busy, END)
    assert [claim.id for claim in await store.claim("w1", 9)] == ["suspect"]
    await store.submit(task("newer"))
    assert await store.claim("w1", 9) == [], "it stays alone"


@pytest.mark.holds("tasks.md", "Workers share what waits")
async def test_the_share_of_a_worker_is_what_waits_and_runs_by_those_who_take(store: TaskStore) -> None:
    await submitted(store, 100)
    assert await store.claim("w2", 0) == []
    assert len(await store.claim("w1", 80)) == 50
    assert len(await store.claim("w1", 80)) == 0
    assert len(await store.claim("w2", 20)) == 20
    assert len(await store.claim("w2", 80)) == 30
    figures = await store.figures()
    assert figures.workers == {"w1": 50, "w2": 50}


async def test_a_worker_that_has_its_share_passes_the_call_on(store: TaskStore) -> None:
    await submitted(store, 4)
    assert len(await store.claim("w1", 9)) == 4
    assert await store.claim("w2", 0) == []
    await store.submit(task("new"))
    await store.wait_for_work(5)
    assert await store.claim("w1", 9) == [], "it has more than its share"
    await asyncio.wait_for(store.wait_for_work(5), 2)
    assert [claim.id for claim in await store.claim("w2", 9)] == ["new"]
