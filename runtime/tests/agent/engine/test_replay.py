"""An agent that is crashed before and after every write and call, and replayed: nothing is done twice.

The store is in memory; test_run.py crashes against a real Redis, test_memory_journal.py compares the two.
Single rules of the engine are in test_engine.py.
"""

import asyncio
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import cycle
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_support.memory import CrashError, CrashPoints, MemoryStore, Stored
from agent_support.running import ScriptedCalls, begin, config_of, program_of, run, said, tool_of
from flotilla_runtime.agent.engine import history as histories
from flotilla_runtime.agent.engine.context import Context, Task
from flotilla_runtime.agent.engine.run import RunOutcome
from flotilla_runtime.agent.failures import ChildFailedError, LimitReachedError, ModelFailedError
from flotilla_runtime.agent.journal import CallKind, CallOutcome, Done, Intended, TaskStatus, WaitKind
from flotilla_runtime.agent.programs import Program
from flotilla_runtime.agent.protocols import Call, Reply, Spent
from flotilla_runtime.contract import Effect, QueueConfig, TaskLimits

CITIES = ("Lisbon", "Porto", "Faro")
LONGEST_STORY = 60  # runs of one task


async def traveller(ctx: Context, task: Task) -> dict[str, Any]:
    """Uses everything that `ctx` has: branches, tools of each effect, time, chance, a timer, a child."""
    if task.input != "Where to?":
        return {"child": (await ctx.llm(task.input)).text}
    started = await ctx.now()

    async def visit(city: str) -> str:
        with ctx.scope(city):
            weather = await ctx.tool("weather", {"city": city})
            seat = await ctx.tool("reserve", {"city": city, "weather": weather})
            return (await ctx.llm(f"{city}: {weather}, {seat}")).text

    async with asyncio.TaskGroup() as group:
        visits = [group.create_task(visit(city)) for city in CITIES]
    await ctx.sleep(3600)
    paid = await ctx.tool("pay", {"cities": list(CITIES)})
    draws = [await ctx.random(), await ctx.random()]
    guide = await ctx.spawn("Who guides?")
    return {
        "started": started.isoformat(),
        "visits": [visit.result() for visit in visits],
        "paid": paid,
        "draws": draws,
        "guide": guide,
    }


PROGRAM = program_of(
    traveller,
    tool_of("weather", Effect.PURE),
    tool_of("reserve", Effect.IDEMPOTENT),
    tool_of("pay", Effect.UNSAFE),
    config=config_of(queue=QueueConfig(fleet="default/support", max_attempts=100)),
)


def answers(delays: Iterator[int]) -> Any:
    """Each call takes some turns of the event loop, so parallel calls end in any order."""

    async def script(call: Call) -> Reply:
        for _ in range(next(delays, 0)):
            await asyncio.sleep(0)
        if call.kind is CallKind.MODEL:
            return said(f"answer to {call.request.messages[0]['content']}")
        return Reply(outcome=CallOutcome.SUCCEEDED, value=f"{call.target} done")

    return script


class Life:
    """A task with its store, through as many runs as it takes."""

    def __init__(self, program: Program = PROGRAM, delays: Iterable[int] = ()) -> None:
        self.store = MemoryStore()
        self.store.submit("t1", "Where to?")
        self.calls = ScriptedCalls(script=answers(iter(delays)), points=self.store.points)
        self.program = program
        self.resolved: list[str] = []

    @property
    def task(self) -> Stored:
        return self.store.tasks["t1"]

    def crash_at(self, point: int | None) -> None:
        self.store.points = CrashPoints(crash_at=point)
        self.calls.points = self.store.points

    async def one_run(self, task_id: str) -> None:
        try:
            await run(self.store, self.program, self.calls, task_id)
        except* CrashError:
            pass
        if self.store.points.has_crashed:
            self.crash_at(None)

    async def to_the_end(self) -> Stored:
        """Run the task, ring its timers, run its children, and say what is known of its effects."""
        for _ in range(LONGEST_STORY):
            for task in list(self.store.tasks.values()):
                if task.finish is None:
                    await self.one_run(task.id)
                    self.wake(task)
            if self.task.finish is not None:
                return self.task
        raise AssertionError("the task does not end")

    def wake(self, task: Stored) -> None:
        waits = task.waits
        if waits is None:
            return
        if waits.kind is WaitKind.TIMER:
            assert waits.until is not None
            self.store.now_ms = max(self.store.now_ms, waits.until)
        elif waits.kind is WaitKind.EFFECT:
            self.resolved.append(waits.call)
            happened = any(
                call.id == waits.call and self.calls.effects.get(call.key) for call in self.calls.asked
            )
            self.store.resolve(task.id, waits.call, happened=happened, result="pay done")


async def lived(crash_at: int | None = None) -> Life:
    life = Life()
    life.crash_at(crash_at)
    await life.to_the_end()
    return life


def check(life: Life) -> None:
    """The task ended as if nothing had happened, and nothing was done twice."""
    task = life.task
    assert task.finish is not None
    assert (task.finish.status, task.finish.message) == (TaskStatus.SUCCEEDED, "")
    result = dict(task.finish.result)
    assert result.pop("visits") == [f"answer to {city}: weather done, reserve done" for city in CITIES]
    assert result.pop("paid") == "pay done"
    assert result.pop("guide") == {"child": "answer to Who guides?"}
    assert result.pop("started").startswith("1970-01-01T00:16:40")
    assert len(set(result.pop("draws"))) == 2
    assert result == {}
    entries = task.entries
    done = [entry.call for entry in entries if isinstance(entry, Done)]
    assert len(done) == len(set(done))
    for place, entry in enumerate(entries):
        if isinstance(entry, Done):
            assert entry.call not in [one.call for one in entries[place:] if isinstance(one, Intended)]
    pays = [call for call in life.calls.asked if call.target == "pay"]
    assert len(pays) == 1, "an Unsafe effect is never repeated"
    for city in CITIES:
        keys = {call.key for call in life.calls.asked if call.id == f"{city}/tool/reserve"}
        assert len(keys) == 1, "an Idempotent call is repeated with the same key"
    assert len(life.store.tasks) == 2, "a child is spawned once"


async def test_an_agent_that_meets_no_crash_ends_with_its_result() -> None:
    life = await lived()
    check(life)
    assert life.resolved == []
    assert [entry.call for entry in life.task.entries if isinstance(entry, Intended)] == [
        "now",
        "Lisbon/tool/weather",
        "Porto/tool/weather",
        "Faro/tool/weather",
        "Lisbon/tool/reserve",
        "Porto/tool/reserve",
        "Faro/tool/reserve",
        "Lisbon/llm/Default",
        "Porto/llm/Default",
        "Faro/llm/Default",
        "sleep",
        "tool/pay",
        "random",
        "random#2",
        "spawn",
    ]


@pytest.mark.holds("agent-code.md", "An agent that is crashed anywhere goes on, and repeats no finished call")
async def test_an_agent_that_is_crashed_anywhere_is_resumed_and_does_nothing_twice() -> None:
    rehearsal = Life()
    passed: list[str] = []
    rehearsal.store.points = rehearsal.calls.points = CrashPoints(passed=passed)
    await rehearsal.to_the_end()
    assert len(passed) > 50
    unknown = []
    for crash_at, point in enumerate(passed):
        life = await lived(crash_at)
        check(life)
        if life.resolved:
            unknown.append(point)
    assert unknown == [
        "after Intended tool/pay",
        "before call tool/pay",
        "after call tool/pay",
        "before Done tool/pay",
    ], "an Unsafe call waits for a word wherever it may have happened"


@pytest.mark.holds("agent-code.md", "An agent that is crashed anywhere goes on, and repeats no finished call")
@given(
    crashes=st.lists(st.integers(0, 40), max_size=6),
    delays=st.lists(st.integers(0, 9), max_size=40),
)
def test_crashes_and_any_order_of_parallel_calls_change_nothing(
    crashes: list[int], delays: list[int]
) -> None:
    async def live() -> Life:
        life = Life(delays=delays)
        for crash_at in crashes:
            life.crash_at(crash_at)
            await life.one_run("t1")
            life.wake(life.task)
            if life.task.finish is not None:
                break
        life.crash_at(None)
        await life.to_the_end()
        return life

    check(asyncio.run(live()))


async def spender(ctx: Context, task: Task) -> int:
    """A tree of tasks whose branches ask models at the same time, and take what limits leave."""
    depth = int(task.input)
    asked = 0

    async def ask(name: str) -> None:
        nonlocal asked
        with ctx.scope(name):
            try:
                await ctx.llm(name)
                asked += 1
            except (LimitReachedError, ModelFailedError):
                return

    async def delegate(name: str) -> None:
        nonlocal asked
        with ctx.scope(name):
            try:
                asked += await ctx.spawn(str(depth - 1))
            except (LimitReachedError, ChildFailedError):
                return

    async with asyncio.TaskGroup() as group:
        for number in range(3):
            group.create_task(ask(f"ask-{number}"))
        for number in range(2 if depth else 0):
            group.create_task(delegate(f"part-{number}"))
    return asked


@settings(max_examples=30)
@given(
    limits=st.fixed_dictionaries(
        {
            "max_steps": st.integers(1, 30),
            "max_tokens": st.integers(100, 3000),
            "max_depth": st.integers(0, 2),
        }
    ),
    used=st.lists(st.integers(0, 90), min_size=1, max_size=20),
    crashes=st.lists(st.integers(0, 30), max_size=4),
)
def test_no_tree_of_tasks_overspends_or_leaks(
    limits: dict[str, int], used: list[int], crashes: list[int]
) -> None:
    uses = cycle(used)

    async def script(call: Call) -> Reply:
        tokens = next(uses)
        for _ in range(tokens % 3):  # its tries spend what it reserved
            asked = Spent(tokens=next(uses), nano_usd=0, waits_until=0)
            if call.more is None or (more := await call.more(call, asked)) is None:
                return Reply(outcome=CallOutcome.FAILED, problem="spent", output_tokens=asked.tokens)
            call = more
        if tokens % 7 == 0:
            return Reply(outcome=CallOutcome.FAILED, problem="503", output_tokens=tokens)
        return said("so", input_tokens=tokens // 2, output_tokens=tokens - tokens // 2)

    async def live() -> Life:
        config = config_of(queue=QueueConfig(fleet="default/support", max_attempts=1000))
        life = Life(program_of(spender, config=config))
        life.store = MemoryStore()
        life.store.submit("t1", "2", TaskLimits(max_fan_out=1, **limits))
        life.calls = ScriptedCalls(script=script, points=life.store.points, reserved_tokens=90)
        for crash_at in crashes:
            life.crash_at(crash_at)
            await life.one_run("t1")
            if life.task.finish is not None:
                break
        life.crash_at(None)
        await life.to_the_end()
        return life

    life = asyncio.run(live())
    tree = life.task.tree
    assert (tree.reserved.steps, tree.reserved.tokens) == (0, 0), "nothing leaks"
    told = histories.read([])
    for task in life.store.tasks.values():
        assert task.finish is not None
        told = replace(told, used=told.used + histories.read(task.entries).used)
    assert tree.used.tokens == told.used.tokens, "what the journals say is what was counted"
    assert life.task.finish is not None
    assert life.task.finish.status is TaskStatus.SUCCEEDED


@pytest.mark.parametrize("hand_over_after", range(12))
async def test_a_task_that_is_handed_over_after_any_call_loses_nothing(hand_over_after: int) -> None:
    life = Life()
    taken = begin(life.store, PROGRAM, life.calls)
    made = answers(iter(()))

    async def leaving(call: Call) -> Reply:
        if len(life.calls.made) > hand_over_after:
            taken.leave()
        return await made(call)  # type: ignore[no-any-return]

    life.calls.script = leaving
    outcome = await taken.run()
    assert outcome in (RunOutcome.HANDED_OVER, RunOutcome.SUSPENDED)
    life.calls.script = made
    check_attempts = life.task.attempts
    life.wake(life.task)
    await life.to_the_end()
    check(life)
    assert len(life.calls.made) == len(set(life.calls.made)), "no call was given up"
    assert check_attempts == 1


def calls_of_a_replay(count: int) -> int:
    """How many Python functions are called to replay an agent that has made so many calls."""

    async def sequential(ctx: Context, task: Task) -> int:
        for number in range(count):
            await ctx.tool("weather", {"number": number})
        return count

    async def lives() -> int:
        program = program_of(sequential, tool_of("weather", Effect.PURE))
        store = MemoryStore()
        store.submit("t1", "go")
        await run(store, program, ScriptedCalls())
        task = store.tasks["t1"]
        task.texts.pop()
        task.finish, task.status = None, TaskStatus.RUNNING
        again = begin(store, program, ScriptedCalls())
        called = 0

        def count_call(_frame: Any, event: str, _argument: Any) -> None:
            nonlocal called
            called += event == "call"

        sys.setprofile(count_call)
        try:
            assert await again.run() is RunOutcome.ENDED
        finally:
            sys.setprofile(None)
        return called

    return asyncio.run(lives())


@pytest.mark.holds("agent-code.md", "The work of a replay is linear in calls")
def test_a_replay_is_linear_in_calls() -> None:
    assert calls_of_a_replay(1000) < 11 * calls_of_a_replay(100)
