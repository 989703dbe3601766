"""A limit for the tasks at work over the whole fleet: all workers obey it, and it stops nothing for good."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from agent_support.stores import END, open_store, task, with_lines
from flotilla_runtime.agent.journal import WaitKind
from flotilla_runtime.agent.protocols import Waits
from flotilla_runtime.agent.store.task_store import TaskStore

pytestmark = pytest.mark.services

HOLDS_SECONDS = 30.0


@pytest.fixture
async def store(redis_server: Any) -> AsyncIterator[TaskStore]:
    opened = await with_lines(open_store(redis_server))
    for number in range(10):
        await opened.submit(task(f"t{number}"))
    yield opened
    await opened.close()


@pytest.mark.holds(
    "tasks.md",
    "All workers together run no more tasks than are admitted, and share them; an end or a "
    "suspension frees a place at once",
)
async def test_the_workers_together_hold_no_more_than_is_admitted(store: TaskStore) -> None:
    await store.admit(3, HOLDS_SECONDS)
    first = [*await store.claim("w1", 10), *await store.claim("w2", 10)]
    assert len(first) == 3
    assert await store.claim("w1", 10) == [] == await store.claim("w2", 10), "what goes beyond waits"
    await store.finish(first[0], END)
    assert len([*await store.claim("w2", 10), *await store.claim("w1", 10)]) == 1, "an end frees a place"
    suspended = first[1]
    length = len((await store.load(suspended.id)).entries)  # type: ignore[union-attr]
    waits = Waits(kind=WaitKind.SIGNAL, call="c", children=())
    assert await store.suspend(suspended, length, waits)
    assert len([*await store.claim("w1", 10), *await store.claim("w2", 10)]) == 1, "so does a suspension"
    await store.admit(None, HOLDS_SECONDS)
    assert len(await store.claim("w1", 10)) > 0


@pytest.mark.holds(
    "tasks.md",
    "All workers together run no more tasks than are admitted, and share them; an end or a "
    "suspension frees a place at once",
)
async def test_workers_share_what_is_admitted_and_not_what_waits(store: TaskStore) -> None:
    await store.admit(4, HOLDS_SECONDS)
    assert await store.claim("w1", 0) == [] == await store.claim("w2", 0), "both take tasks"
    assert [len(await store.claim(worker, 10)) for worker in ("w1", "w2")] == [2, 2]


@pytest.mark.holds(
    "tasks.md",
    "What runs goes on when fewer tasks are admitted; what was suspended waits for a place again, "
    "before the other tasks of its caller",
)
async def test_what_has_begun_goes_on_when_fewer_are_admitted(store: TaskStore) -> None:
    claims = await store.claim("w1", 10)
    assert len(claims) == 10
    await store.admit(2, HOLDS_SECONDS)
    for claim in claims[:5]:
        await store.release(claim, "w1")
    assert len(await store.claim("w2", 10)) == 5, "tasks that were handed over are not held back"
    await store.submit(task("later"))
    assert await store.claim("w2", 10) == []


@pytest.mark.holds(
    "tasks.md",
    "What runs goes on when fewer tasks are admitted; what was suspended waits for a place again, "
    "before the other tasks of its caller",
)
async def test_a_task_that_was_suspended_waits_for_a_place_before_the_others(store: TaskStore) -> None:
    await store.admit(1, HOLDS_SECONDS)
    (suspended,) = await store.claim("w1", 10)
    length = len((await store.load(suspended.id)).entries)  # type: ignore[union-attr]
    rings_at = int(time.time() * 1000) + 400
    assert await store.suspend(suspended, length, Waits(kind=WaitKind.TIMER, call="c", until=rings_at))
    (other,) = await store.claim("w1", 10)
    await asyncio.sleep(0.41)
    assert await store.claim("w1", 10) == [], "it gave its place up"
    await store.finish(other, END)
    assert [one.id for one in await store.claim("w1", 10)] == [suspended.id]


@pytest.mark.holds(
    "tasks.md", "What gateways say ends by itself, and a file that cannot be read changes nothing"
)
async def test_what_nobody_repeats_ends(store: TaskStore) -> None:
    await store.admit(1, 0.05)
    assert len(await store.claim("w1", 10)) == 1
    await asyncio.sleep(0.06)
    assert len(await store.claim("w1", 10)) == 9, "gateways that are stuck stop no fleet"


@pytest.mark.holds(
    "tasks.md",
    "All workers together run no more tasks than are admitted, and share them; an end or a "
    "suspension frees a place at once",
)
async def test_a_worker_that_waits_hears_of_a_free_place(store: TaskStore) -> None:
    await store.admit(1, HOLDS_SECONDS)
    (claim,) = await store.claim("w1", 10)
    waiting = asyncio.create_task(store.wait_for_work(10))
    await asyncio.sleep(0.05)
    assert not waiting.done(), "the tasks that wait call nobody while there is no place"
    await store.finish(claim, END)
    await asyncio.wait_for(waiting, 2)


async def test_the_time_at_work_is_counted_without_that_of_a_suspension(store: TaskStore) -> None:
    (claim, *_) = await store.claim("w1", 1)
    await asyncio.sleep(0.1)
    await store.finish(claim, END)
    found = await store.load(claim.id)
    assert found is not None
    minute = found.entries[-1].at // 60_000
    (window,) = await store.windows([minute])
    assert 100 <= window["work"] < 2000
