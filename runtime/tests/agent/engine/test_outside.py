"""Calls that somebody outside answers: approvals and signals, crashed before and after every write.

The store is in memory; test_store_outside.py asks a real Redis the same. Who may decide is the gateway's.
"""

import asyncio
from typing import Any

import pytest

from agent_support.memory import CrashError, CrashPoints, MemoryStore
from agent_support.running import ScriptedCalls, program_of, run, tool_of
from flotilla_runtime.agent.engine.context import Context, Task
from flotilla_runtime.agent.engine.run import RunOutcome
from flotilla_runtime.agent.failures import NoSignalError, ToolFailedError
from flotilla_runtime.agent.journal import CallKind, CallOutcome, Done, EndReason, Intended, WaitKind
from flotilla_runtime.agent.programs import Program
from flotilla_runtime.agent.protocols import Finish
from flotilla_runtime.contract import Approval, Effect
from router_support.waiting import until

PAY = "tool/pay#approval"
DAY_MS = 86_400_000


def asking_tool(approval: Approval = Approval.ALWAYS, effect: Effect = Effect.UNSAFE) -> Any:
    return tool_of("pay", effect, approval=approval)


async def payer(ctx: Context, task: Task) -> Any:
    try:
        return await ctx.tool("pay", {"euro": 5})
    except ToolFailedError as failed:
        return [str(failed.outcome), failed.problem]


def submitted(points: CrashPoints | None = None) -> MemoryStore:
    store = MemoryStore(points)
    store.submit("t1", "go")
    return store


def finish(store: MemoryStore) -> Finish:
    ended = store.tasks["t1"].finish
    assert ended is not None
    return ended


def waits(store: MemoryStore) -> tuple[WaitKind, str]:
    waiting = store.tasks["t1"].waits
    assert waiting is not None
    return waiting.kind, waiting.call


def entries(store: MemoryStore, kind: CallKind) -> tuple[list[Intended], list[Done]]:
    intents = [one for one in store.tasks["t1"].entries if isinstance(one, Intended) and one.kind is kind]
    names = {one.call for one in intents}
    return intents, [one for one in store.tasks["t1"].entries if isinstance(one, Done) and one.call in names]


@pytest.mark.holds(
    "tools.md",
    "A tool with `approval: Always` is called once somebody agrees; a refusal and a passed "
    "deadline are told to the agent",
)
@pytest.mark.parametrize(
    ("approved", "comment", "made", "result"),
    [
        pytest.param(True, None, ["tool/pay"], {"euro": 5}, id="somebody agrees, and the call is made"),
        pytest.param(
            False,
            "too much",
            [],
            ["Refused", "not called: boss refused it: too much"],
            id="somebody refuses, which the agent hears",
        ),
        pytest.param(False, None, [], ["Refused", "not called: boss refused it"], id="without a comment"),
    ],
)
async def test_a_tool_that_asks_is_called_when_somebody_agrees(
    approved: bool, comment: str | None, made: list[str], result: Any
) -> None:
    store, program = submitted(), program_of(payer, asking_tool())
    for _ in range(2):
        calls = ScriptedCalls()
        assert await run(store, program, calls) is RunOutcome.SUSPENDED
        assert waits(store) == (WaitKind.APPROVAL, PAY)
        assert calls.made == []
    assert store.decide("t1", PAY, approved=approved, comment=comment)
    assert not store.decide("t1", PAY, approved=not approved), "the first decision stands"
    assert await run(store, program, calls) is RunOutcome.ENDED
    assert (calls.made, finish(store).result) == (made, result)
    (intent,), (done,) = entries(store, CallKind.APPROVE)
    assert (intent.target, intent.arguments) == ("pay", {"euro": 5})
    assert (done.value["by"], done.value["approved"]) == ("boss", approved)


@pytest.mark.holds(
    "tools.md",
    "A tool with `approval: Always` is called once somebody agrees; a refusal and a passed "
    "deadline are told to the agent",
)
async def test_a_call_that_nobody_approves_in_time_is_not_made() -> None:
    store, program, calls = submitted(), program_of(payer, asking_tool()), ScriptedCalls()
    await run(store, program, calls)
    store.now_ms += DAY_MS
    assert not store.decide("t1", PAY), "too late"
    assert await run(store, program, calls) is RunOutcome.ENDED
    assert calls.made == []
    assert finish(store).result == ["TimedOut", "not called: nobody decided in time"]


@pytest.mark.holds(
    "tools.md",
    "A tool with `approval: Always` is called once somebody agrees; a refusal and a passed "
    "deadline are told to the agent",
)
async def test_time_in_which_nobody_decides_does_not_count() -> None:
    store, program, calls = submitted(), program_of(payer, asking_tool()), ScriptedCalls()
    await run(store, program, calls)
    store.now_ms += DAY_MS - 1000
    store.decide("t1", PAY)
    await run(store, program, calls)
    assert finish(store).reason is EndReason.COMPLETED


async def test_wrong_arguments_are_not_shown_to_anybody() -> None:
    async def agent(ctx: Context, task: Task) -> Any:
        try:
            await ctx.tool("pay", {"euro": "much"})
        except ToolFailedError as failed:
            return str(failed.outcome)

    schema = {"type": "object", "properties": {"euro": {"type": "number"}}}
    store = submitted()
    tool = tool_of("pay", schema=schema, approval=Approval.ALWAYS)
    assert await run(store, program_of(agent, tool), ScriptedCalls()) is RunOutcome.ENDED
    assert finish(store).result == "Invalid"


@pytest.mark.holds(
    "agent-code.md", "`ctx.approve` returns what was decided, also while the task works on something else"
)
async def test_an_agent_asks_by_itself_and_hears_what_was_decided() -> None:
    async def agent(ctx: Context, task: Task) -> Any:
        plan = await ctx.approve("plan", {"steps": 3}, deadline_seconds=60)
        rest = await ctx.approve("rest", deadline_seconds=60)
        return [plan.approved, plan.by, plan.comment, rest.approved, rest.by]

    store, program = submitted(), program_of(agent)
    await run(store, program, ScriptedCalls())
    assert waits(store) == (WaitKind.APPROVAL, "approve/plan")
    store.decide("t1", "approve/plan", comment="fine")
    await run(store, program, ScriptedCalls())
    store.now_ms += 60_000
    await run(store, program, ScriptedCalls())
    assert finish(store).result == [True, "boss", "fine", False, None]


@pytest.mark.holds(
    "agent-code.md", "`ctx.approve` returns what was decided, also while the task works on something else"
)
async def test_a_decision_is_heard_while_the_task_works_on_something_else() -> None:
    async def agent(ctx: Context, task: Task) -> Any:
        async def asked() -> Any:
            with ctx.scope("asked"):
                return (await ctx.approve("plan")).approved

        async def busy() -> Any:
            with ctx.scope("busy"):
                return (await ctx.llm("long")).text

        async with asyncio.TaskGroup() as group:
            both = [group.create_task(asked()), group.create_task(busy())]
        return [one.result() for one in both]

    store, calls = submitted(), ScriptedCalls(hold=asyncio.Event())
    running = asyncio.create_task(run(store, program_of(agent), calls))
    await until(lambda: bool(calls.made) and "asked/approve/plan" in store.tasks["t1"].open)
    store.decide("t1", "asked/approve/plan")
    await until(lambda: "asked/approve/plan" not in store.tasks["t1"].open)
    assert calls.hold is not None
    calls.hold.set()
    assert await running is RunOutcome.ENDED
    assert finish(store).result == [True, "So it is."]


@pytest.mark.parametrize(
    ("before", "after", "made"),
    [
        pytest.param(Approval.NEVER, Approval.ALWAYS, [], id="it has a result, and nobody is asked for it"),
        pytest.param(Approval.ALWAYS, Approval.NEVER, [], id="a refusal stands"),
    ],
)
async def test_what_the_journal_knows_counts_when_the_fleet_has_changed(
    before: Approval, after: Approval, made: list[str]
) -> None:
    async def agent(ctx: Context, task: Task) -> Any:
        first = await payer(ctx, task)
        await ctx.sleep(3600)
        return first

    store = submitted()
    await run(store, program_of(agent, asking_tool(before)), ScriptedCalls())
    if before is Approval.ALWAYS:
        store.decide("t1", PAY, approved=False)
        await run(store, program_of(agent, asking_tool(before)), ScriptedCalls())
    store.now_ms += 3_600_000
    calls = ScriptedCalls()
    assert await run(store, program_of(agent, asking_tool(after)), calls) is RunOutcome.ENDED
    assert calls.made == made


@pytest.mark.holds("agent-code.md", "A task that waits for an approval and a child is woken by both")
async def test_a_task_that_waits_for_an_approval_and_a_child_is_woken_by_both() -> None:
    async def agent(ctx: Context, task: Task) -> Any:
        if task.input == "child":
            return "grown"

        async def asked() -> Any:
            with ctx.scope("asked"):
                return (await ctx.approve("plan")).approved

        async def spawned() -> Any:
            with ctx.scope("spawned"):
                return await ctx.spawn("child")

        async with asyncio.TaskGroup() as group:
            both = [group.create_task(asked()), group.create_task(spawned())]
        return [one.result() for one in both]

    store, program = submitted(), program_of(agent)
    await run(store, program, ScriptedCalls())
    assert waits(store) == (WaitKind.APPROVAL, "asked/approve/plan")
    (child,) = [name for name in store.tasks if name != "t1"]
    await run(store, program, ScriptedCalls(), child)
    assert store.tasks["t1"].waits is None
    await run(store, program, ScriptedCalls())
    assert waits(store) == (WaitKind.APPROVAL, "asked/approve/plan")
    store.decide("t1", "asked/approve/plan")
    await run(store, program, ScriptedCalls())
    assert finish(store).result == [True, "grown"]


# Signals


async def listener(ctx: Context, task: Task) -> Any:
    heard = []
    for _ in range(2):
        try:
            heard.append(await ctx.signal("news", 60))
        except NoSignalError as nothing:
            heard.append(nothing.problem)
    return heard


@pytest.mark.holds(
    "agent-code.md", "`ctx.signal` takes signals in their order, each by one call, or raises NoSignalError"
)
async def test_signals_are_taken_in_order_also_those_that_came_before() -> None:
    store, program = submitted(), program_of(listener)
    store.signal("t1", "news", 1)
    store.signal("t1", "other", "nobody waits for it")
    assert await run(store, program, ScriptedCalls()) is RunOutcome.SUSPENDED
    assert waits(store) == (WaitKind.SIGNAL, "signal/news#2")
    store.signal("t1", "other", "still nobody")
    assert store.tasks["t1"].waits is not None
    store.signal("t1", "news", {"two": 2})
    store.signal("t1", "news", 3)
    assert await run(store, program, ScriptedCalls()) is RunOutcome.ENDED
    assert finish(store).result == [1, {"two": 2}]
    assert list(store.tasks["t1"].signals.values()) == [
        ("other", "nobody waits for it"),
        ("other", "still nobody"),
        ("news", 3),
    ]


@pytest.mark.holds(
    "agent-code.md", "`ctx.signal` takes signals in their order, each by one call, or raises NoSignalError"
)
async def test_a_signal_that_does_not_come_is_an_error_that_the_agent_can_handle() -> None:
    store, program = submitted(), program_of(listener)
    await run(store, program, ScriptedCalls())
    store.now_ms += 60_000
    assert await run(store, program, ScriptedCalls()) is RunOutcome.SUSPENDED
    store.signal("t1", "news", "late")
    await run(store, program, ScriptedCalls())
    assert finish(store).result == ["no such signal came in time", "late"]


async def test_an_agent_that_lets_it_through_ends_as_timeout() -> None:
    async def agent(ctx: Context, task: Task) -> Any:
        return await ctx.signal("news", 0)

    store = submitted()
    await run(store, program_of(agent), ScriptedCalls())
    assert (finish(store).reason, finish(store).message) == (
        EndReason.TIMEOUT,
        "news: no such signal came in time",
    )


@pytest.mark.holds(
    "agent-code.md", "`ctx.signal` takes signals in their order, each by one call, or raises NoSignalError"
)
async def test_two_branches_that_wait_for_one_name_take_one_signal_each() -> None:
    async def agent(ctx: Context, task: Task) -> Any:
        async def heard(name: str) -> Any:
            with ctx.scope(name):
                return await ctx.signal("news")

        async with asyncio.TaskGroup() as group:
            both = [group.create_task(heard("a")), group.create_task(heard("b"))]
        return sorted(one.result() for one in both)

    store = submitted()
    for value in (1, 2, 3):
        store.signal("t1", "news", value)
    assert await run(store, program_of(agent), ScriptedCalls()) is RunOutcome.ENDED
    assert finish(store).result == [1, 2]
    assert list(store.tasks["t1"].signals) == ["s2"]


async def test_a_call_that_its_agent_gives_up_takes_no_signal_and_wakes_nobody() -> None:
    async def agent(ctx: Context, task: Task) -> Any:
        try:
            async with asyncio.timeout(0.05):
                with ctx.scope("busy"):
                    async with asyncio.TaskGroup() as group:
                        group.create_task(waiting(ctx))
                        await ctx.llm("long")
        except TimeoutError:
            pass
        await ctx.sleep(3600)
        return "slept"

    async def waiting(ctx: Context) -> None:
        with ctx.scope("news"):
            await ctx.signal("news")

    store, program = submitted(), program_of(agent)
    calls = ScriptedCalls(hold=asyncio.Event())
    assert await run(store, program, calls) is RunOutcome.SUSPENDED
    store.signal("t1", "news", 1)
    assert waits(store) == (WaitKind.TIMER, "sleep")
    (_,), (done,) = entries(store, CallKind.SIGNAL)
    assert done.outcome is CallOutcome.CANCELLED


# Crashes


async def everything(ctx: Context, task: Task) -> Any:
    plan = await ctx.approve("plan", {"pay": 5})
    paid = await ctx.tool("pay", {"euro": 5})
    news = [await ctx.signal("news"), await ctx.signal("news")]
    return [plan.approved, paid, news]


ALL = program_of(everything, asking_tool(effect=Effect.IDEMPOTENT))


async def lived(crash_at: int | None, program: Program = ALL) -> tuple[MemoryStore, ScriptedCalls]:
    """The task to its end, by as many runs as it takes; people outside answer whenever it waits."""
    store = submitted(CrashPoints(crash_at=crash_at))
    store.signal("t1", "news", 1)
    store.signal("t1", "news", 2)
    calls = ScriptedCalls(points=store.points)
    for _ in range(20):
        try:
            outcome = await run(store, program, calls)
        except* CrashError:
            outcome = RunOutcome.LOST
        if outcome is RunOutcome.ENDED or store.tasks["t1"].finish is not None:
            return store, calls
        if store.points.has_crashed:
            store.points = calls.points = CrashPoints()
        for call in ("approve/plan", PAY):
            if store.tasks["t1"].waits is not None and waits(store)[1] == call:
                assert store.decide("t1", call)
    raise AssertionError("the task does not end")


@pytest.mark.holds(
    "agent-code.md", "No approval is asked for twice and no signal taken twice, wherever the worker is lost"
)
async def test_after_a_crash_at_any_point_nothing_is_asked_or_taken_twice() -> None:
    whole, _ = await lived(None)
    assert finish(whole).result == [True, {"euro": 5}, [1, 2]]
    for point in range(len(whole.points.passed)):
        store, calls = await lived(point)
        assert finish(store).result == finish(whole).result, whole.points.passed[point]
        for kind, count in ((CallKind.APPROVE, 2), (CallKind.SIGNAL, 2)):
            intents, results = entries(store, kind)
            assert len(intents) == len(results) == count, whole.points.passed[point]
        assert store.tasks["t1"].signals == {}
        assert len(calls.effects) == 1
