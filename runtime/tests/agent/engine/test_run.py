"""A run against a real Redis, stopped before and after every write and every call, and then resumed.

What next follows from a journal is in test_loop.py; whole worker processes are in test_worker.py.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from agent_support.crashing import CrashingJournal
from agent_support.memory import CrashError, CrashPoints
from agent_support.running import ScriptedCalls, config_of, program_of, tool_of
from flotilla_runtime.agent.builtin.loop import built_in
from flotilla_runtime.agent.engine.context import Context, Task
from flotilla_runtime.agent.engine.run import Clock, Interrupt, Means, RunOutcome, TaskRun
from flotilla_runtime.agent.journal import CallKind, Done, Ended, HandedOver, Intended, TaskStatus, WaitKind
from flotilla_runtime.agent.store.connections import connect
from flotilla_runtime.agent.store.task_store import TaskStore
from flotilla_runtime.agent.tasks import Decision, LoadedTask, NewTask
from flotilla_runtime.contract import Approval, Effect, QueueConfig, TaskLimits
from router_support.waiting import until

pytestmark = pytest.mark.services

CLOCK = Clock(monotonic_seconds=time.monotonic)


PROGRAM = program_of(built_in, config=config_of(indexes=("a", "b")))


@pytest.fixture
async def store(redis_server: Any) -> AsyncIterator[TaskStore]:
    config = QueueConfig(
        fleet="default/support",
        url=redis_server.url,
        password_path=redis_server.password_path,
        lease_seconds=0.05,
    )
    opened = TaskStore(connect(config), config)
    yield opened
    await opened.close()


async def submitted(store: TaskStore, **limits: Any) -> None:
    limit = TaskLimits(**limits)
    await store.submit(NewTask(id="t1", input="Is it so?", caller="ann", limits=limit))


async def begin(store: TaskStore, journal: Any, calls: Any, worker: str = "w") -> TaskRun:
    """Claim the one task, waiting for the lease of whoever held it before."""
    claims = await store.claim(worker, 1)
    async with asyncio.timeout(30):
        while not claims:
            await asyncio.sleep(0.01)
            claims = await store.claim(worker, 1)
    task = await store.load("t1")
    assert task is not None
    means = Means(worker=worker, journal=journal, calls=calls, clock=CLOCK)
    return TaskRun(claims[0], task, PROGRAM, means)


async def loaded(store: TaskStore) -> LoadedTask:
    task = await store.load("t1")
    assert task is not None
    return task


async def crash_once(store: TaskStore, points: CrashPoints) -> list[str]:
    """Run the task until the crash; the calls that were made."""
    calls = ScriptedCalls(points=points)
    run = await begin(store, CrashingJournal(store, points), calls, "first")
    try:
        await run.run()
    except* CrashError:
        points.crash_at = None
    return calls.made


async def every_point(redis_server: Any) -> list[str]:
    points = CrashPoints()
    config = QueueConfig(
        fleet="default/rehearsal", url=redis_server.url, password_path=redis_server.password_path
    )
    store = TaskStore(connect(config), config)
    await submitted(store)
    await crash_once(store, points)
    await store.close()
    return points.passed


@pytest.mark.holds(
    "tasks.md", "A lost worker is replaced after the lease, and no finished call is made again"
)
async def test_a_run_that_is_stopped_anywhere_is_resumed_and_repeats_nothing_that_was_done(
    redis_server: Any,
) -> None:
    points = await every_point(redis_server)
    assert len(points) == 16, points
    for crash_at, point in enumerate(points):
        config = QueueConfig(
            fleet=f"default/crash-{crash_at}",
            url=redis_server.url,
            password_path=redis_server.password_path,
            lease_seconds=0.05,
        )
        store = TaskStore(connect(config), config)
        await submitted(store)
        await crash_once(store, CrashPoints(crash_at=crash_at))
        known = {entry.call for entry in (await loaded(store)).entries if isinstance(entry, Done)}

        if point != "after finish":
            calls = ScriptedCalls()
            run = await begin(store, store, calls, "second")
            assert await run.run() is RunOutcome.ENDED
            assert not known & set(calls.made), point

        task = await loaded(store)
        assert task.record.status is TaskStatus.SUCCEEDED, point
        assert task.record.result["answer"] == "So it is.", point
        done = [entry.call for entry in task.entries if isinstance(entry, Done)]
        assert sorted(done) == ["answer/1", "retrieve/a", "retrieve/b"], point
        assert sum(isinstance(entry, Ended) for entry in task.entries) == 1, point
        assert await store.queue_lengths() == (0, 0), point
        await store.close()


@pytest.mark.holds("tasks.md", "A worker that hangs and comes back changes nothing")
@pytest.mark.holds("recovery.md", "A worker that hangs and comes back changes nothing")
async def test_a_worker_that_was_paused_past_its_lease_writes_nothing(store: TaskStore) -> None:
    await submitted(store)
    hold = asyncio.Event()
    held = ScriptedCalls(hold=hold)
    slow = await begin(store, store, held, "paused")
    running = asyncio.create_task(slow.run())
    await until(lambda: len(held.made) == 2)
    other = await begin(store, store, ScriptedCalls(), "other")
    assert await other.run() is RunOutcome.ENDED
    before = await loaded(store)
    hold.set()
    assert await running is RunOutcome.LOST
    after = await loaded(store)
    assert (after.record, after.entries) == (before.record, before.entries)


async def test_a_cancelled_task_stops_its_calls_and_ends_cancelled(store: TaskStore) -> None:
    await submitted(store)
    calls = ScriptedCalls(hold=asyncio.Event())
    run = await begin(store, store, calls)
    running = asyncio.create_task(run.run())
    await until(lambda: len(calls.made) == 2)
    run.interrupt(Interrupt.CANCEL)
    assert await running is RunOutcome.ENDED
    assert sorted(calls.stopped) == ["retrieve/a", "retrieve/b"]
    assert (await loaded(store)).record.reason == "Cancelled"


async def test_a_cancel_that_comes_with_a_write_ends_the_task(store: TaskStore) -> None:
    await submitted(store)
    calls = ScriptedCalls()
    run = await begin(store, store, calls)
    await store.cancel("t1")
    assert await run.run() is RunOutcome.ENDED
    assert calls.made == []
    assert (await loaded(store)).record.status is TaskStatus.CANCELLED


async def test_a_task_whose_time_is_up_ends_with_what_it_has(store: TaskStore) -> None:
    await submitted(store, max_wall_seconds=3)
    calls = ScriptedCalls(hold=asyncio.Event())
    run = await begin(store, store, calls)
    assert await run.run() is RunOutcome.ENDED
    task = await loaded(store)
    assert task.record.reason == "Timeout"
    assert sum(isinstance(entry, Intended) for entry in task.entries) == 2


async def test_a_worker_that_leaves_hands_the_task_over_between_two_turns(store: TaskStore) -> None:
    await submitted(store)
    hold = asyncio.Event()
    first = ScriptedCalls(hold=hold)
    run = await begin(store, store, first)
    running = asyncio.create_task(run.run())
    await until(lambda: len(first.made) == 2)
    run.leave()
    hold.set()
    assert await running is RunOutcome.HANDED_OVER
    second = ScriptedCalls()
    again = await begin(store, store, second)
    assert await again.run() is RunOutcome.ENDED
    assert second.made == ["answer/1"]
    task = await loaded(store)
    assert task.record.attempts == 1
    assert any(isinstance(entry, HandedOver) for entry in task.entries)


@pytest.mark.holds("tasks.md", "A worker that is asked to leave hands its tasks over")
async def test_a_worker_that_must_leave_now_gives_up_its_calls_and_the_task_is_done_elsewhere(
    store: TaskStore,
) -> None:
    await submitted(store)
    calls = ScriptedCalls(hold=asyncio.Event())
    run = await begin(store, store, calls)
    running = asyncio.create_task(run.run())
    await until(lambda: len(calls.made) == 2)
    run.interrupt(Interrupt.LEAVE)
    assert await running is RunOutcome.HANDED_OVER
    again = await begin(store, store, ScriptedCalls())
    assert await again.run() is RunOutcome.ENDED
    assert (await loaded(store)).record.status is TaskStatus.SUCCEEDED


async def traveller(ctx: Context, task: Task) -> Any:
    """Waits for a timer, a child and a payment, of which it may not be known whether it happened."""
    if task.input != "Is it so?":
        return (await ctx.llm(task.input)).text
    started = await ctx.now()
    guide = await ctx.spawn("Who guides?")
    paid = await ctx.tool("pay", {"euro": 5})
    await ctx.sleep(1.2)
    return {"guide": guide, "paid": paid, "started": started.isoformat(), "drawn": await ctx.random()}


TRAVELLER = program_of(
    traveller,
    tool_of("pay", Effect.UNSAFE),
    config=config_of(queue=QueueConfig(fleet="default/support", max_attempts=100)),
)


UNKNOWN_AFTER = {
    "after Intended tool/pay",
    "before call tool/pay",
    "after call tool/pay",
    "before Done tool/pay",
}


async def travelled(store: TaskStore, points: CrashPoints) -> tuple[LoadedTask, ScriptedCalls, bool]:
    """The task at its end, after a crash at most; whether somebody had to resolve its payment."""
    calls = ScriptedCalls(points=points)
    was_unknown = False
    async with asyncio.timeout(60):
        while True:
            for claim in await store.claim("w", 1):
                task = await store.load(claim.id)
                assert task is not None
                journal = CrashingJournal(store, points)
                means = Means(worker="w", journal=journal, calls=calls, clock=CLOCK)
                try:
                    await TaskRun(claim, task, TRAVELLER, means).run()
                except* CrashError:
                    calls.points = points = CrashPoints()
            record = (await loaded(store)).record
            if record.status.is_final:
                return await loaded(store), calls, was_unknown
            if record.waits_for is WaitKind.EFFECT:
                was_unknown = True
                happened = "tool/pay" in calls.made
                await store.resolve("t1", "tool/pay", happened=happened, by="ann", result={"euro": 5})
            await asyncio.sleep(0.01)


@pytest.mark.holds("agent-code.md", "An agent that is crashed anywhere goes on, and repeats no finished call")
@pytest.mark.once
async def test_an_agent_that_waits_is_suspended_and_woken_through_crashes(redis_server: Any) -> None:
    unknown = []

    async def life(fleet: str, points: CrashPoints) -> None:
        config = QueueConfig(
            fleet=f"default/{fleet}",
            url=redis_server.url,
            password_path=redis_server.password_path,
            lease_seconds=0.5,
            max_attempts=100,
        )
        store = TaskStore(connect(config), config)
        await submitted(store)
        task, calls, was_unknown = await travelled(store, points)
        assert task.record.status is TaskStatus.SUCCEEDED, task.record.message
        assert (task.record.result["guide"], task.record.result["paid"]) == ("So it is.", {"euro": 5})
        assert calls.made.count("tool/pay") == 1
        done = [entry.call for entry in task.entries if isinstance(entry, Done)]
        assert sorted(done) == ["now", "random", "sleep", "spawn", "tool/pay"]
        if was_unknown and points.has_crashed:
            unknown.append(points.passed[-1])
        await store.close()

    rehearsed = CrashPoints()
    await life("rehearsal", rehearsed)
    crashes: list[int | str] = [*range(len(rehearsed.passed)), *UNKNOWN_AFTER]
    lives = (life(f"crash-{number}", CrashPoints(crash_at=crash)) for number, crash in enumerate(crashes))
    await asyncio.gather(*lives)
    assert set(unknown) >= UNKNOWN_AFTER, "and perhaps where a slow machine let a lease end"


async def asker(ctx: Context, task: Task) -> Any:
    """Does all that somebody outside answers, and notes it in the state."""
    paid = await ctx.tool("pay", {"euro": 5})
    news = await ctx.signal("news")
    noted = await ctx.state.compare_and_swap("paid", None, paid)
    return [paid, news, noted]


ASKER = program_of(
    asker,
    tool_of("pay", Effect.IDEMPOTENT, approval=Approval.ALWAYS),
    config=config_of(queue=QueueConfig(fleet="default/support", max_attempts=100)),
)


async def answered(store: TaskStore, points: CrashPoints) -> LoadedTask:
    """The task at its end, after a crash at most; somebody answers whatever it waits for."""
    calls = ScriptedCalls(points=points)
    async with asyncio.timeout(60):
        while True:
            for claim in await store.claim("w", 1):
                task = await store.load(claim.id)
                assert task is not None
                means = Means(worker="w", journal=CrashingJournal(store, points), calls=calls, clock=CLOCK)
                try:
                    await TaskRun(claim, task, ASKER, means).run()
                except* CrashError:
                    calls.points = points = CrashPoints()
            record = (await loaded(store)).record
            if record.status.is_final:
                return await loaded(store)
            if record.waits_for is WaitKind.APPROVAL:
                await store.approve("t1", record.waits_call or "", Decision(approved=True, by="boss"))
            elif record.waits_for is WaitKind.SIGNAL:
                await store.signal("t1", "news", 7, "s1")
            await asyncio.sleep(0.01)


@pytest.mark.holds(
    "agent-code.md", "No approval is asked for twice and no signal taken twice, wherever the worker is lost"
)
@pytest.mark.once
async def test_nobody_is_asked_twice_through_crashes(redis_server: Any) -> None:
    async def life(fleet: str, points: CrashPoints) -> None:
        config = QueueConfig(
            fleet=f"default/{fleet}",
            url=redis_server.url,
            password_path=redis_server.password_path,
            lease_seconds=0.5,
            max_attempts=100,
        )
        store = TaskStore(connect(config), config)
        await submitted(store)
        task = await answered(store, points)
        assert task.record.result == [{"euro": 5}, 7, True], points.passed[-1:]
        for kind in (CallKind.APPROVE, CallKind.SIGNAL, CallKind.STATE):
            asked = [entry for entry in task.entries if isinstance(entry, Intended) and entry.kind is kind]
            ended = {entry.call for entry in task.entries if isinstance(entry, Done)}
            assert [entry.call in ended for entry in asked] == [True], (kind, points.passed[-1:])
        await store.close()

    rehearsed = CrashPoints()
    await life("rehearsal", rehearsed)
    lives = (life(f"crash-{point}", CrashPoints(crash_at=point)) for point in range(len(rehearsed.passed)))
    await asyncio.gather(*lives)
