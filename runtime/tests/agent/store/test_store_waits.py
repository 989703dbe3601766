"""Tasks that wait without a place, against a real Redis: for spawned tasks, timers, and unknown effects."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from agent_support.stores import END, done, intent, length, loaded, open_store, running, task, with_lines
from flotilla_runtime.agent.budgets import LimitName
from flotilla_runtime.agent.engine.compensations import noted
from flotilla_runtime.agent.engine.endings import Ending
from flotilla_runtime.agent.errors import LeaseLostError
from flotilla_runtime.agent.journal import (
    CallKind,
    Ended,
    EndReason,
    Resolved,
    Resumed,
    Suspended,
    TaskStatus,
    WaitKind,
)
from flotilla_runtime.agent.protocols import Waits
from flotilla_runtime.agent.store.task_store import TaskStore
from flotilla_runtime.agent.tasks import CancelOutcome, Claim, ResolveOutcome, child_id
from flotilla_runtime.contract import Effect, Priority, RevisionTasks, TaskLimits
from flotilla_runtime.gateway.task_ids import is_task_id, task_id

pytestmark = pytest.mark.services

EFFECT = Waits(kind=WaitKind.EFFECT, call="pay")


@pytest.fixture
async def store(redis_server: Any) -> AsyncIterator[TaskStore]:
    opened = await with_lines(open_store(redis_server))
    yield opened
    await opened.close()


def spawning(call: str = "researcher") -> Any:
    return intent(call, kind=CallKind.SPAWN, reserved_tokens=0)


def waits_for(*children: str, **fields: Any) -> Waits:
    return Waits(**{"kind": WaitKind.CHILDREN, "call": "researcher", "children": children, **fields})


def in_ms(store_time: int, milliseconds: int) -> Waits:
    return Waits(kind=WaitKind.TIMER, call="sleep", until=store_time + milliseconds)


async def clock(store: TaskStore) -> int:
    return (await loaded(store, "t1")).read_at


async def suspended(store: TaskStore, claim: Claim, waits: Waits) -> None:
    assert await store.suspend(claim, await length(store, claim.id), waits)


async def test_a_suspended_task_holds_no_place_and_its_worker_may_write_no_more(store: TaskStore) -> None:
    claim = await running(store, task("t1"))
    await suspended(store, claim, EFFECT)
    figures = await store.figures()
    assert (figures.waiting, figures.running, figures.suspended, figures.unknown_effects) == (0, 0, 1, 1)
    assert figures.counts == {"": RevisionTasks(suspended=1)}
    record = (await loaded(store, "t1")).record
    assert (record.status, record.waits_for, record.waits_call) == (
        TaskStatus.SUSPENDED,
        WaitKind.EFFECT,
        "pay",
    )
    with pytest.raises(LeaseLostError):
        await store.append(claim, 3, [intent()])
    assert await store.claim("w2", 1) == []


async def test_a_suspension_whose_answer_was_lost_is_one(store: TaskStore) -> None:
    claim = await running(store, task("t1"))
    assert await store.suspend(claim, 2, EFFECT, "w")
    assert await store.suspend(claim, 2, EFFECT, "w")
    assert await length(store, "t1") == 3
    with pytest.raises(LeaseLostError):
        await store.suspend(claim, 2, EFFECT, "another")


@pytest.mark.parametrize("happened", [True, False])
async def test_somebody_resolves_the_call_that_a_task_waits_for(store: TaskStore, happened: bool) -> None:
    claim = await running(store, task("t1"))
    await suspended(store, claim, EFFECT)

    async def resolve(task: str, call: str, result: Any = None) -> ResolveOutcome:
        return await store.resolve(task, call, happened=happened, by="bob", result=result)

    assert await resolve("t1", "another") is ResolveOutcome.NOTHING_UNKNOWN
    assert await resolve("nobody", "pay") is ResolveOutcome.UNKNOWN
    assert await resolve("t1", "pay", {"receipt": 7}) is ResolveOutcome.RESOLVED
    assert await resolve("t1", "pay", {"receipt": 7}) is ResolveOutcome.RESOLVED, "sent again"
    (again,) = await store.claim("w2", 1)
    entries = (await loaded(store, "t1")).entries
    assert [type(entry) for entry in entries[2:5]] == [Suspended, Resolved, Resumed]
    assert isinstance(entries[3], Resolved)
    assert (entries[3].happened, entries[3].by, entries[3].result) == (happened, "bob", {"receipt": 7})
    assert entries[3].at >= entries[2].at > 0
    assert again.token > claim.token
    figures = await store.figures()
    assert (figures.suspended, figures.unknown_effects) == (0, 0)
    assert await store.resolve("t1", "pay", happened=not happened, by="eve") is ResolveOutcome.NOTHING_UNKNOWN


async def test_a_task_whose_unknown_effect_nobody_resolves_goes_on_at_its_deadline(store: TaskStore) -> None:
    claim = await running(store, task("t1"))
    until = await clock(store) + 100
    await suspended(store, claim, Waits(kind=WaitKind.EFFECT, call="pay", until=until))
    assert (await loaded(store, "t1")).record.waits_until == until
    assert await store.claim("w2", 1) == []
    await asyncio.sleep(0.15)
    assert [claim.id for claim in await store.claim("w2", 1)] == ["t1"]
    assert (await store.figures()).unknown_effects == 0


async def test_a_timer_that_has_rung_makes_its_task_wait_also_where_no_worker_is(store: TaskStore) -> None:
    claim = await running(store, task("t1"))
    await suspended(store, claim, in_ms(await clock(store), 100))
    assert (await store.figures()).waiting == 0
    await asyncio.sleep(0.15)
    figures = await store.figures()
    assert (figures.waiting, figures.suspended) == (1, 0)
    entries = (await loaded(store, "t1")).entries
    assert isinstance(entries[-1], Resumed)
    assert entries[-1].waits_for is WaitKind.TIMER


async def test_a_timer_whose_time_has_come_suspends_nothing(store: TaskStore) -> None:
    claim = await running(store, task("t1"))
    assert not await store.suspend(claim, 2, in_ms(await clock(store), -1))
    assert (await store.append(claim, 2, [intent()])).length == 3


async def test_time_suspended_does_not_count(store: TaskStore) -> None:
    claim = await running(store, task("t1"))
    await suspended(store, claim, in_ms(await clock(store), 300))
    before = (await loaded(store, "t1")).elapsed_seconds
    await asyncio.sleep(0.35)
    assert (await loaded(store, "t1")).elapsed_seconds == before
    await store.figures()
    await asyncio.sleep(0.1)
    assert (await loaded(store, "t1")).elapsed_seconds == before, "nor does the time until it is claimed"
    await store.claim("w1", 1)
    await asyncio.sleep(0.1)
    assert before + 0.09 <= (await loaded(store, "t1")).elapsed_seconds < before + 0.25


async def test_a_resumed_task_goes_before_the_others_of_its_caller(store: TaskStore) -> None:
    claim = await running(store, task("t1"))
    await suspended(store, claim, EFFECT)
    await store.submit(task("t2"))
    await store.resolve("t1", "pay", happened=True, by="bob")
    assert [claim.id for claim in await store.claim("w1", 2)] == ["t1", "t2"]


async def test_a_suspended_task_is_cancelled_at_once(store: TaskStore) -> None:
    claim = await running(store, task("t1"))
    await suspended(store, claim, in_ms(await clock(store), 50))
    assert await store.cancel("t1") is CancelOutcome.CANCELLED
    await asyncio.sleep(0.1)
    figures = await store.figures()
    assert (figures.waiting, figures.suspended, figures.unknown_effects) == (0, 0, 0)
    assert (await loaded(store, "t1")).record.status is TaskStatus.CANCELLED


async def test_a_task_that_is_to_be_cancelled_is_not_suspended(store: TaskStore) -> None:
    claim = await running(store, task("t1"))
    await store.cancel("t1")
    assert not await store.suspend(claim, 2, EFFECT)


async def test_a_spawned_task_is_a_task_of_its_parents_caller(store: TaskStore) -> None:
    parent = task(
        task_id(1, 2),
        tenant="red",
        priority=Priority.BATCH,
        revision="r1",
        limits=TaskLimits(max_wall_seconds=9),
    )
    await store.submit(parent)
    (claim,) = await store.claim("w1", 1, revisions=["r1"])
    written = await store.spawn(claim, 2, spawning(), "look it up")
    assert (written.length, written.refused) == (3, ())
    child = child_id(parent.id, "researcher")
    assert is_task_id(child)
    assert child[:10] == parent.id[:10], "ids sort by time"
    first, record = (await loaded(store, parent.id)).record, (await loaded(store, child)).record
    assert (record.input, record.parent, record.root) == ("look it up", parent.id, parent.id)
    assert (record.priority, record.tenant, record.revision) == (Priority.BATCH, "red", "r1")
    assert record.caller == first.caller
    assert 0 < record.limits.max_wall_seconds <= 9
    assert record.limits.max_tokens == first.limits.max_tokens
    assert [claim.id for claim in await store.claim("w2", 1, revisions=["r1"])] == [child]


@pytest.mark.parametrize(
    ("own", "target", "agent"),
    [
        pytest.param("", "", "", id="of the fleet's own"),
        pytest.param("writer", "", "writer", id="of the same agent"),
        pytest.param("", "writer", "writer", id="of the agent that is named"),
    ],
)
async def test_a_spawned_task_is_done_by_its_agent(
    store: TaskStore, own: str, target: str, agent: str
) -> None:
    claim = await running(store, task("t1", agent=own))
    await store.spawn(claim, 2, replace(spawning(), target=target), "look it up")
    child = (await loaded(store, child_id("t1", "researcher"))).record
    assert (child.agent, child.input) == (agent, "look it up")


async def test_a_spawn_whose_answer_was_lost_spawns_once(store: TaskStore) -> None:
    claim = await running(store, task("t1"))
    first = await store.spawn(claim, 2, spawning(), "look", "w")
    assert await store.spawn(claim, 2, spawning(), "look", "w") == first
    after_a_crash = await store.spawn(claim, 3, spawning(), "look")
    assert after_a_crash.length == 4
    assert await store.queue_lengths() == (1, 1)
    with pytest.raises(LeaseLostError):
        await store.spawn(claim, 2, spawning("other"), "look")


async def test_depth_and_width_of_a_tree_are_limited(store: TaskStore) -> None:
    claim = await running(store, task("t1", limits=TaskLimits(max_depth=1, max_fan_out=2)))
    await store.spawn(claim, 2, spawning("a"), "look")
    await store.spawn(claim, 3, spawning("b"), "look")
    wide = (await store.spawn(claim, 4, spawning("c"), "look")).refused
    assert [(refusal.limit, refusal.most, refusal.committed, refusal.may_change) for refusal in wide] == [
        (LimitName.FAN_OUT, 2, 2, True)
    ]
    (child, other) = await store.claim("w2", 2)
    deep = (await store.spawn(child, 2, spawning("d"), "look")).refused
    assert [(refusal.limit, refusal.may_change) for refusal in deep] == [(LimitName.DEPTH, False)]
    await store.finish(child, END)
    assert (await store.spawn(claim, 4, spawning("c"), "look")).refused == (), "one of two has ended"
    assert await store.queue_lengths() == (1, 2)
    assert other.id


async def test_a_parent_waits_without_a_place_until_one_of_its_children_ends(store: TaskStore) -> None:
    claim = await running(store, task("t1"))
    await store.spawn(claim, 2, spawning("a"), "look")
    await store.spawn(claim, 3, spawning("b"), "look")
    ids = [child_id("t1", "a"), child_id("t1", "b")]
    await suspended(store, claim, waits_for(*ids))
    first, _ = await store.claim("w2", 2)
    assert await store.children(ids) == {}
    await store.finish(first, END)
    ends = await store.children(ids)
    assert {name: (end.status, end.result) for name, end in ends.items()} == {
        first.id: (TaskStatus.SUCCEEDED, {"answer": "so"})
    }
    (again,) = await store.claim("w1", 1)
    assert again.id == "t1"
    assert not await store.suspend(again, await length(store, "t1"), waits_for(*ids)), "one has ended already"


async def test_time_in_which_a_child_ran_for_its_waiting_parent_counts(store: TaskStore) -> None:
    claim = await running(store, task("t1"))
    await store.spawn(claim, 2, spawning(), "look")
    before = (await loaded(store, "t1")).elapsed_seconds
    await suspended(store, claim, waits_for(child_id("t1", "researcher")))
    await asyncio.sleep(0.3)
    (child,) = await store.claim("w2", 1)
    await asyncio.sleep(0.2)
    await store.finish(child, END)
    await store.claim("w1", 1)
    after = (await loaded(store, "t1")).elapsed_seconds
    assert before + 0.19 <= after < before + 0.4, "and that in which the child waited does not"


async def test_time_in_which_a_parent_waits_for_what_it_cancelled_does_not_count(store: TaskStore) -> None:
    claim = await running(store, task("t1"))
    await store.spawn(claim, 2, spawning(), "look")
    (child,) = await store.claim("w2", 1)
    await asyncio.sleep(0.3)
    failed = Ending.without_result(EndReason.TOOL_FAILED, "no room")
    await store.append(claim, 3, noted(failed, 1, 1, 300))
    before = (await loaded(store, "t1")).elapsed_seconds
    await suspended(store, claim, waits_for(child.id))
    await asyncio.sleep(0.3)
    await store.finish(child, END)
    await store.claim("w1", 1)
    after = (await loaded(store, "t1")).elapsed_seconds
    assert before <= after < before + 0.2, "its compensations have a time of their own"


@pytest.mark.parametrize("end", ["finish", "cancel"])
async def test_a_tree_ends_with_its_root(store: TaskStore, end: str) -> None:
    claim = await running(store, task("t1"))
    for place, name in enumerate(("runs", "waits", "sleeps")):
        await store.spawn(claim, 2 + place, spawning(name), "look")
    runs, waits, sleeps = (child_id("t1", name) for name in ("runs", "waits", "sleeps"))
    granted = {granted.id: granted for granted in await store.claim("w2", 3)}
    await store.release(granted[waits], "w2")
    await suspended(store, granted[sleeps], EFFECT)
    grandchild = await store.spawn(granted[runs], 2, spawning("deep"), "look")
    assert grandchild.refused == ()
    if end == "finish":
        await store.finish(claim, END)
    else:
        await suspended(store, claim, waits_for(runs, waits, sleeps))
        assert await store.cancel("t1") is CancelOutcome.CANCELLED
    statuses = {name: (await loaded(store, name)).record.status for name in (runs, waits, sleeps)}
    assert statuses == {
        runs: TaskStatus.RUNNING,
        waits: TaskStatus.CANCELLED,
        sleeps: TaskStatus.CANCELLED,
    }
    assert (await store.append(granted[runs], 3, [intent()])).cancel_requested
    await store.finish(granted[runs], END)
    assert (await loaded(store, child_id(runs, "deep"))).record.status is TaskStatus.CANCELLED
    ends = [entry for entry in (await loaded(store, "t1")).entries if isinstance(entry, Ended)]
    assert len(ends) == 1
    figures = await store.figures()
    assert (figures.waiting, figures.running, figures.suspended, figures.counts) == (0, 0, 0, {})


async def test_an_unsafe_intent_is_written_as_any_other_where_there_is_no_replica(store: TaskStore) -> None:
    claim = await running(store, task("t1"))
    pay = intent("pay", kind=CallKind.TOOL, effect=Effect.UNSAFE)
    assert (await store.append(claim, 2, [pay, done("pay")])).length == 4
