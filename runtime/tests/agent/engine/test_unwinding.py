"""Tasks with compensations in a real Redis: however they come to nothing, a run makes them before they end.

The rules of compensations are in patterns/test_compensate.py.
"""

import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from agent_support.crashing import CrashingJournal
from agent_support.memory import CrashError, CrashPoints
from agent_support.running import ScriptedCalls, config_of, program_of, tool_of
from agent_support.stores import open_store, task
from flotilla_runtime.agent.engine.context import Context, Task
from flotilla_runtime.agent.engine.run import Clock, Means, RunOutcome, TaskRun
from flotilla_runtime.agent.journal import CallKind, Done, Intended, TaskStatus
from flotilla_runtime.agent.replays import replay_of
from flotilla_runtime.agent.store.task_store import TaskStore
from flotilla_runtime.agent.tasks import CancelOutcome, Claim
from flotilla_runtime.contract import Effect, QueueConfig
from router_support.waiting import until_told

pytestmark = pytest.mark.services

CLOCK = Clock(monotonic_seconds=time.monotonic)
LEASE_SECONDS = 0.05


async def patient(ctx: Context, asked: Task) -> str:
    await ctx.compensate("undo", {"of": asked.input})
    await ctx.tool("do", {"of": asked.input})
    await ctx.sleep(3600)
    return "done"


PROGRAM = program_of(
    patient,
    tool_of("do", Effect.IDEMPOTENT),
    tool_of("undo", Effect.UNSAFE),
    config=config_of(queue=QueueConfig(fleet="default/support", max_attempts=2)),
)


@pytest.fixture
async def store(redis_server: Any) -> AsyncIterator[TaskStore]:
    opened = open_store(redis_server, lease_seconds=LEASE_SECONDS, max_attempts=2)
    yield opened
    await opened.close()


async def one_run(store: TaskStore, calls: ScriptedCalls, points: CrashPoints | None = None) -> Any:
    """Claim the task when its lease has ended, and run it; None after a crash."""
    claims: list[Claim] = []

    async def claimed() -> bool:
        claims.extend(await store.claim("w", 1))
        return bool(claims)

    await until_told(claimed)
    loaded = await store.load(claims[0].id)
    assert loaded is not None
    journal = CrashingJournal(store, points or CrashPoints())
    means = Means(worker="w", journal=journal, calls=calls, clock=CLOCK)
    outcome = None
    try:
        outcome = await TaskRun(claims[0], loaded, PROGRAM, means).run()
    except* CrashError:
        pass
    return outcome


async def journal_of(store: TaskStore) -> list[Any]:
    loaded = await store.load("t1")
    assert loaded is not None
    return list(loaded.entries)


@pytest.mark.holds(
    "agent-code.md",
    "A cancelled task is undone before it ends, also a suspended one and through crashes; a second "
    "cancellation stops nothing",
)
@pytest.mark.once
async def test_a_suspended_task_that_is_cancelled_undoes_what_it_did_through_crashes(
    store: TaskStore,
) -> None:
    calls = ScriptedCalls()
    await store.submit(task("t1"))
    assert await one_run(store, calls) is RunOutcome.SUSPENDED
    assert await store.cancel("t1") is CancelOutcome.REQUESTED
    assert await one_run(store, calls, CrashPoints(crash_at="before release")) is None
    assert await one_run(store, calls, CrashPoints(crash_at="before finish")) is None
    assert await store.cancel("t1") is CancelOutcome.REQUESTED
    assert await one_run(store, calls) is RunOutcome.ENDED
    (record,) = await store.records(["t1"])
    assert (record.status, record.message) == (TaskStatus.CANCELLED, "cancelled by the caller")
    assert calls.made == ["tool/do", "compensate/undo#compensation"]
    done = [entry.call for entry in await journal_of(store) if isinstance(entry, Done)]
    assert len(done) == len(set(done))


async def test_a_task_that_has_not_begun_ends_at_once(store: TaskStore) -> None:
    await store.submit(task("t1"))
    assert await store.cancel("t1") is CancelOutcome.CANCELLED


@pytest.mark.holds(
    "agent-code.md", "A replay that keeps registered compensations makes them if it ends without a result"
)
async def test_a_replay_that_keeps_a_compensation_undoes_what_it_does_anew(store: TaskStore) -> None:
    calls = ScriptedCalls()
    await store.submit(task("t1"))
    assert await one_run(store, calls) is RunOutcome.SUSPENDED
    (source,) = await store.records(["t1"])
    begun = replay_of(await journal_of(store), "tool/do").kept
    assert [entry.call for entry in begun if isinstance(entry, Intended)] == ["compensate/undo"]
    await store.replay(source, task("t2"), begun)
    assert await one_run(store, calls) is RunOutcome.SUSPENDED
    assert await store.cancel("t2") is CancelOutcome.REQUESTED
    assert await one_run(store, calls) is RunOutcome.HANDED_OVER
    assert await one_run(store, calls) is RunOutcome.ENDED
    assert calls.made == ["tool/do", "tool/do", "compensate/undo#compensation"]


@pytest.mark.holds(
    "agent-code.md",
    "Compensations have 600 s and attempts of their own, and are written where the caller's share is full",
)
async def test_a_task_whose_workers_are_lost_is_undone_before_it_is_given_up(store: TaskStore) -> None:
    calls = ScriptedCalls()
    await store.submit(task("t1"))
    for _ in range(2):
        assert await one_run(store, calls, CrashPoints(crash_at="before suspend")) is None
    assert await one_run(store, calls) is RunOutcome.HANDED_OVER
    assert await one_run(store, calls) is RunOutcome.ENDED
    (record,) = await store.records(["t1"])
    assert (record.status, record.reason) == (TaskStatus.FAILED, "Infrastructure")
    assert calls.made == ["tool/do", "compensate/undo#compensation"]


async def test_a_task_that_kills_workers_also_when_it_compensates_is_given_up(store: TaskStore) -> None:
    await store.submit(task("t1"))
    for _ in range(4):
        points = CrashPoints(crash_at=2)
        await one_run(store, ScriptedCalls(), points)
    await until_told(lambda: _ended(store))
    (record,) = await store.records(["t1"])
    assert record.reason == "Infrastructure"
    assert "its compensations were not all made" in (record.message or "")


async def _ended(store: TaskStore) -> bool:
    await store.claim("w", 1)
    (record,) = await store.records(["t1"])
    return record.status.is_final


@pytest.mark.holds(
    "agent-code.md",
    "Compensations have 600 s and attempts of their own, and are written where the caller's share is full",
)
async def test_compensations_are_written_where_the_callers_share_has_no_room(redis_server: Any) -> None:
    roomy = open_store(redis_server, lease_seconds=LEASE_SECONDS)
    calls = ScriptedCalls()
    await roomy.submit(task("t1"))
    assert await one_run(roomy, calls) is RunOutcome.SUSPENDED
    assert await roomy.cancel("t1") is CancelOutcome.REQUESTED
    full = open_store(redis_server, lease_seconds=LEASE_SECONDS)
    full._share = _no_share  # type: ignore[method-assign]
    assert await one_run(full, calls) is RunOutcome.HANDED_OVER
    assert await one_run(full, calls) is RunOutcome.ENDED
    intents = [entry for entry in await journal_of(full) if isinstance(entry, Intended)]
    assert intents[-1].kind is CallKind.TOOL
    assert calls.made[-1] == "compensate/undo#compensation"
    for one in (roomy, full):
        await one.close()


async def _no_share() -> int:
    return 1
