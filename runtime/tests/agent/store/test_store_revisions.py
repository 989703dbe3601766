"""Grants of tasks to workers by revision, and by the format of the journal, on a real Redis."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from agent_support.stores import END, loaded, open_store, running, task, with_lines
from flotilla_runtime.agent import journal
from flotilla_runtime.agent.errors import BrokenEntryError
from flotilla_runtime.agent.journal import Other, WaitKind
from flotilla_runtime.agent.protocols import Waits
from flotilla_runtime.agent.store.task_store import TaskStore
from flotilla_runtime.agent.tasks import CancelOutcome
from flotilla_runtime.contract import Priority, RevisionTasks

pytestmark = pytest.mark.services


@pytest.fixture
async def store(redis_server: Any) -> AsyncIterator[TaskStore]:
    opened = await with_lines(open_store(redis_server))
    yield opened
    await opened.close()


async def granted(store: TaskStore, *revisions: str, wanted: int = 9) -> list[str]:
    claims = await store.claim("w", wanted, revisions=revisions)
    await store.leave("w", revisions[0] if revisions else "")
    return [claim.id for claim in claims]


async def test_a_worker_takes_tasks_of_its_own_and_of_adopted_revisions(store: TaskStore) -> None:
    for name, revision in (("none", ""), ("old", "r1"), ("new", "r2"), ("other", "r3")):
        await store.submit(task(name, revision=revision))
    figures = await store.figures()
    assert figures.counts == {name: RevisionTasks(waiting=1) for name in ("", "r1", "r2", "r3")}
    assert await granted(store, "r1") == ["none", "old"]
    assert await granted(store, "r2") == ["new"]
    assert await granted(store, "r2") == []
    assert await granted(store, "r4", "r3") == ["other"]
    assert (await store.figures()).counts["r3"] == RevisionTasks(running=1)


async def test_of_two_revisions_that_one_is_first_whose_tenant_waited_longer(store: TaskStore) -> None:
    for number, revision in enumerate(["r1", "r2", "r1", "r2"]):
        await store.submit(task(f"t{number}", revision=revision))
    await store.submit(task("batch", revision="r1", priority=Priority.BATCH))
    assert await granted(store, "r2", "r1") == ["t0", "t1", "t2", "t3", "batch"]


async def test_a_task_that_comes_back_is_for_workers_of_its_revision(
    store: TaskStore, redis_server: Any
) -> None:
    for name in ("handed", "timer", "lost"):
        await store.submit(task(name, revision="r1"))
    handed, timer, lost = await store.claim("w1", 9, revisions=["r1"])
    await store.leave("w1", "r1")
    await store.release(handed, "w1")
    now = (await loaded(store, "timer")).read_at
    await store.suspend(timer, 2, Waits(kind=WaitKind.TIMER, call="sleep", until=now + 60))
    redis_server.ask("zadd", store.keys.leases, "1", lost.id)
    redis_server.ask("zadd", store.keys.workers, "1", "w1")
    await asyncio.sleep(0.1)
    assert await granted(store, "r2") == []
    assert (await store.figures()).counts == {"r1": RevisionTasks(waiting=3)}
    assert await granted(store, "r1") == ["lost"], "it was the last of its worker, so it is alone"
    redis_server.ask("hdel", store.keys.task("lost"), "company")
    assert await granted(store, "r1") == ["handed", "timer"]


async def test_a_worker_is_woken_by_tasks_of_its_revisions_alone(store: TaskStore) -> None:
    await store.submit(task("t1", revision="r1"))
    assert store.keys.calls("r1") != store.keys.calls("r2")
    await store.wait_for_work(5, ["r2", "r1"])


async def test_figures_of_a_revision_go_with_its_last_task(store: TaskStore) -> None:
    await store.submit(task("t1", revision="r1"))
    (claim,) = await store.claim("w1", 1, revisions=["r1"])
    await store.finish(claim, END)
    figures = await store.figures()
    assert (figures.counts, figures.waiting, figures.running) == ({}, 0, 0)


@pytest.mark.holds(
    "tasks.md", "Those that wait for newer workers hide no lost task, and their journals do not grow"
)
async def test_a_task_of_a_newer_version_waits_for_its_worker_and_keeps_its_attempt(
    store: TaskStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers that know no more leave it alone, so its journal does not grow."""
    claim = await running(store, task("t1"))
    await store.release(claim, "w1", is_newer=True)
    before = await loaded(store, "t1")
    for _ in range(3):
        assert await granted(store) == []
    assert (await loaded(store, "t1")).entries == before.entries
    assert (await store.figures()).waiting == 1
    monkeypatch.setattr(journal, "FORMAT", journal.FORMAT + 1)
    (claim,) = await store.claim("newer", 9)
    assert (await loaded(store, "t1")).record.attempts == 1
    await store.release(claim, "newer")
    assert await granted(store) == ["t1"], "it is handed over as any other"


@pytest.mark.holds(
    "tasks.md", "Those that wait for newer workers hide no lost task, and their journals do not grow"
)
async def test_tasks_of_a_newer_version_do_not_hide_those_that_were_lost(
    store: TaskStore, redis_server: Any
) -> None:
    many = [f"newer-{number:03}" for number in range(300)]  # a claim looks at 256
    for name in many:
        await store.submit(task(name))
    for claim in await store.claim("w1", 500):
        await store.release(claim, "w1", is_newer=True)
    await running(store, task("lost"), "w2")
    for key, member in ((store.keys.leases, "lost"), (store.keys.workers, "w2")):
        redis_server.ask("zadd", key, "1", member)
    assert await granted(store) == ["lost"]


async def test_tasks_of_a_newer_version_are_no_part_of_a_workers_share(store: TaskStore) -> None:
    for name in ("newer-1", "newer-2", "newer-3", "newer-4"):
        await store.release(await running(store, task(name)), "w1", is_newer=True)
    assert await store.claim("w2", 0) == []
    for name in ("a", "b"):
        await store.submit(task(name))
    assert len(await store.claim("w3", 9)) == 1


async def test_a_task_of_a_newer_version_can_be_cancelled(store: TaskStore) -> None:
    await store.release(await running(store, task("t1")), "w1", is_newer=True)
    assert await store.cancel("t1") is CancelOutcome.CANCELLED
    figures = await store.figures()
    assert (figures.waiting, figures.counts) == (0, {})


@pytest.mark.parametrize(
    "text",
    [
        pytest.param('{"type":"Dreamt","at":7}', id="an unknown type"),
        pytest.param(
            '{"type":"Intended","at":7,"call":"a","kind":"Telepathy","target":"x"}', id="an unknown kind"
        ),
        pytest.param(
            '{"type":"Done","at":7,"call":"a","outcome":"Postponed","took_ms":1}', id="an unknown outcome"
        ),
    ],
)
async def test_an_entry_of_a_newer_version_is_kept_as_it_is(
    store: TaskStore, redis_server: Any, text: str
) -> None:
    await store.submit(task("t1"))
    redis_server.ask("rpush", store.keys.journal("t1"), text)
    entry = (await loaded(store, "t1")).entries[-1]
    assert isinstance(entry, Other)
    assert entry.at == 7


@pytest.mark.holds(
    "tasks.md", "A broken entry ends its task; one of a newer version waits for a newer worker"
)
@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "7", '{"type":"Done","at":7}', '{"type":"Claimed","attempt":1}', "\x01"],
)
async def test_an_entry_that_cannot_be_read_is_an_error_of_its_own(
    store: TaskStore, redis_server: Any, text: str
) -> None:
    await store.submit(task("t1"))
    redis_server.ask("rpush", store.keys.journal("t1"), text)
    with pytest.raises(BrokenEntryError, match="an entry of the task's journal cannot be read"):
        await store.load("t1")
