"""The rules of the engine, one by one: suspension, effects, limits, interruptions, and code that is wrong.

Crashes at every point are in test_replay.py, the built-in agent in test_loop.py.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from itertools import cycle
from typing import Any

import pydantic
import pytest

from agent_support.memory import MemoryStore
from agent_support.running import (
    ScriptedCalls,
    begin,
    failed,
    program_of,
    run,
    said,
    tool_of,
)
from flotilla_runtime.agent.budgets import Amount, Budget
from flotilla_runtime.agent.engine.context import Context, Task
from flotilla_runtime.agent.engine.run import Interrupt, RunOutcome, TaskRun
from flotilla_runtime.agent.failures import (
    ChildFailedError,
    LimitReachedError,
    ModelFailedError,
    TaskFailedError,
    ToolFailedError,
)
from flotilla_runtime.agent.journal import (
    CallOutcome,
    Done,
    EndReason,
    HandedOver,
    Intended,
    Resolved,
    TaskStatus,
    WaitKind,
)
from flotilla_runtime.agent.protocols import (
    Call,
    Certainty,
    ChildEnd,
    Finish,
    Reconciled,
    Reply,
    Session,
    Waits,
)
from flotilla_runtime.contract import Effect, TaskLimits
from router_support.waiting import until

Main = Callable[[Context, Task], Awaitable[Any]]
HOUR_MS = 3_600_000


def new_task(**limits: Any) -> MemoryStore:
    store = MemoryStore()
    store.submit("t1", "go", TaskLimits(**limits))
    return store


async def ended(main: Main, *tools: Any, calls: ScriptedCalls | None = None, **limits: Any) -> Finish:
    """The end of a task that one run brings to it."""
    store = new_task(**limits)
    assert await run(store, program_of(main, *tools), calls or ScriptedCalls()) is RunOutcome.ENDED
    finish = store.tasks["t1"].finish
    assert finish is not None
    return finish


def waits(store: MemoryStore) -> Waits:
    found = store.tasks["t1"].waits
    assert found is not None
    return found


def entries_of(store: MemoryStore, kind: type) -> list[Any]:
    return [entry for entry in store.tasks["t1"].entries if isinstance(entry, kind)]


# What only waits


@pytest.mark.holds("agent-code.md", "A task that only waits is suspended, and its time does not count")
async def test_a_task_that_only_waits_for_a_timer_gives_its_place_up_and_goes_on_when_it_rings() -> None:
    async def patient(ctx: Context, task: Task) -> str:
        await ctx.sleep(3600)
        return "rested"

    store, program = new_task(), program_of(patient)
    rings_at = store.now_ms + HOUR_MS
    assert await run(store, program, ScriptedCalls()) is RunOutcome.SUSPENDED
    assert waits(store) == Waits(kind=WaitKind.TIMER, call="sleep", until=rings_at)
    store.now_ms += 1000
    assert await run(store, program, ScriptedCalls()) is RunOutcome.SUSPENDED
    assert waits(store).until == rings_at, "the timer was set once"
    store.now_ms = rings_at
    assert await run(store, program, ScriptedCalls()) is RunOutcome.ENDED
    assert store.tasks["t1"].finish is not None
    assert store.tasks["t1"].finish.result == "rested"


async def test_a_short_timer_is_waited_for_in_place() -> None:
    async def brief(ctx: Context, task: Task) -> str:
        await ctx.sleep(0.05)
        return "rested"

    assert (await ended(brief)).result == "rested"


@pytest.mark.holds("agent-code.md", "A task that only waits is suspended, and its time does not count")
async def test_a_task_is_not_suspended_while_one_of_its_calls_is_under_way() -> None:
    async def busy(ctx: Context, task: Task) -> str:
        async def rest() -> None:
            with ctx.scope("rest"):
                await ctx.sleep(3600)

        async with asyncio.TaskGroup() as group:
            group.create_task(rest())
            answer = await ctx.llm("why?")
        return answer.text

    store, calls = new_task(), ScriptedCalls(hold=asyncio.Event())
    running = asyncio.create_task(run(store, program_of(busy), calls))
    await until(lambda: calls.made == ["llm/Default"])
    await asyncio.sleep(0.1)
    assert not running.done()
    assert calls.hold is not None
    calls.hold.set()
    assert await running is RunOutcome.SUSPENDED
    assert entries_of(store, Done)[-1].call == "llm/Default"


@pytest.mark.holds("agent-code.md", "A task that only waits is suspended, and its time does not count")
async def test_time_suspended_does_not_count_against_the_wall_limit() -> None:
    async def patient(ctx: Context, task: Task) -> str:
        await ctx.sleep(3600)
        return (await ctx.llm("why?")).text

    store, program = new_task(max_wall_seconds=60), program_of(patient)
    assert await run(store, program, ScriptedCalls()) is RunOutcome.SUSPENDED
    store.now_ms += HOUR_MS
    assert await run(store, program, ScriptedCalls()) is RunOutcome.ENDED
    assert store.tasks["t1"].status is TaskStatus.SUCCEEDED


@pytest.mark.holds("agent-code.md", "A task that only waits is suspended, and its time does not count")
async def test_a_task_that_waits_for_children_and_a_timer_names_both() -> None:
    async def parent(ctx: Context, task: Task) -> Any:
        if task.input != "go":
            return task.input.upper()

        async def part(name: str) -> Any:
            with ctx.scope(name):
                return await ctx.spawn(name)

        async with asyncio.TaskGroup() as group:
            parts = [group.create_task(part(name)) for name in ("a", "b")]
            group.create_task(asyncio.wait_for(ctx.sleep(3600), None))
        return [part.result() for part in parts]

    store, program = new_task(), program_of(parent)
    assert await run(store, program, ScriptedCalls()) is RunOutcome.SUSPENDED
    found = waits(store)
    assert (found.kind, found.call, found.until) == (WaitKind.CHILDREN, "a/spawn", store.now_ms + HOUR_MS)
    assert set(found.children) == set(store.tasks) - {"t1"}
    for child in found.children:
        assert await run(store, program, ScriptedCalls(), child) is RunOutcome.ENDED
    store.now_ms += HOUR_MS
    assert await run(store, program, ScriptedCalls()) is RunOutcome.ENDED
    assert store.tasks["t1"].finish is not None
    assert store.tasks["t1"].finish.result == ["A", "B"]


async def test_a_child_that_ends_while_its_parent_would_be_suspended_is_not_missed() -> None:
    async def parent(ctx: Context, task: Task) -> Any:
        return await ctx.spawn("part") if task.input == "go" else "done"

    class Busy(MemoryStore):
        async def suspend(self, claim: Any, expected: int, waits: Waits) -> bool:
            await run(self, program, ScriptedCalls(), waits.children[0])
            return await super().suspend(claim, expected, waits)

    store, program = Busy(), program_of(parent)
    store.submit("t1", "go")
    assert await run(store, program, ScriptedCalls()) is RunOutcome.HANDED_OVER
    assert await run(store, program, ScriptedCalls()) is RunOutcome.ENDED
    assert store.tasks["t1"].attempts == 1


async def test_a_child_that_has_ended_is_known_also_where_the_store_answers_slowly() -> None:
    async def parent(ctx: Context, task: Task) -> Any:
        return await ctx.spawn("part") if task.input == "go" else "done"

    class Far(MemoryStore):
        async def children(self, ids: Sequence[str]) -> Mapping[str, ChildEnd]:
            await asyncio.sleep(0.02)
            return await super().children(ids)

    store, program = Far(), program_of(parent)
    store.submit("t1", "go")
    assert await run(store, program, ScriptedCalls()) is RunOutcome.SUSPENDED
    assert await run(store, program, ScriptedCalls(), waits(store).children[0]) is RunOutcome.ENDED
    assert await run(store, program, ScriptedCalls()) is RunOutcome.ENDED


async def test_a_child_that_fails_is_an_error_that_the_parent_can_handle() -> None:
    async def parent(ctx: Context, task: Task) -> Any:
        if task.input != "go":
            raise TaskFailedError(EndReason.MODEL_FAILED, "no model")
        try:
            return await ctx.spawn("part")
        except ChildFailedError as problem:
            return [problem.end.reason, problem.problem]

    store, program = new_task(), program_of(parent)
    await run(store, program, ScriptedCalls())
    await run(store, program, ScriptedCalls(), waits(store).children[0])
    await run(store, program, ScriptedCalls())
    assert store.tasks["t1"].finish is not None
    assert store.tasks["t1"].finish.result == ["ModelFailed", "the task ended as ModelFailed: no model"]


@pytest.mark.holds(
    "agent-code.md", "Errors that an agent lets through end its task with the reason that fits"
)
@pytest.mark.parametrize(
    ("limits", "says"),
    [
        pytest.param({"max_depth": 0}, "limits.maxDepth (0)", id="too deep"),
        pytest.param({"max_fan_out": 0}, "limits.maxFanOut (0)", id="too wide"),
    ],
)
async def test_a_tree_that_would_be_too_large_is_refused(limits: dict[str, int], says: str) -> None:
    async def parent(ctx: Context, task: Task) -> Any:
        return await ctx.spawn("part")

    class Final(MemoryStore):
        async def spawn(self, claim: Any, expected: int, intent: Intended, child_input: str) -> Any:
            written = await super().spawn(claim, expected, intent, child_input)
            final = tuple(replace(refusal, may_change=False) for refusal in written.refused)
            return replace(written, refused=final)

    store = Final()
    store.submit("t1", "go", TaskLimits(**limits))
    await run(store, program_of(parent), ScriptedCalls())
    finish = store.tasks["t1"].finish
    assert finish is not None
    assert (finish.reason, says in finish.message) == (EndReason.INVALID, True)


async def test_a_task_whose_children_take_all_places_is_suspended_until_one_ends() -> None:
    async def parent(ctx: Context, task: Task) -> Any:
        if task.input != "go":
            return task.input.upper()

        async def part(name: str) -> Any:
            with ctx.scope(name):
                return await ctx.spawn(name)

        async with asyncio.TaskGroup() as group:
            parts = [group.create_task(part(name)) for name in "abc"]
        return [part.result() for part in parts]

    store, program = new_task(max_fan_out=1), program_of(parent)
    for _ in range(3):
        assert await run(store, program, ScriptedCalls()) is RunOutcome.SUSPENDED
        (child,) = waits(store).children
        assert await run(store, program, ScriptedCalls(), child) is RunOutcome.ENDED
    assert await run(store, program, ScriptedCalls()) is RunOutcome.ENDED
    assert store.tasks["t1"].finish is not None
    assert store.tasks["t1"].finish.result == ["A", "B", "C"]


# Effects


async def payer(ctx: Context, task: Task) -> Any:
    return await ctx.tool("pay", {"euro": 5})


async def crashed_call(effect: Effect, *, is_unsafe_in_journal: bool = True) -> MemoryStore:
    """A task whose worker was lost between a tool's intent and its result."""
    store, calls = new_task(), ScriptedCalls(hold=asyncio.Event())
    running = asyncio.create_task(run(store, program_of(payer, tool_of("pay", effect)), calls))
    await until(lambda: calls.made == ["tool/pay"])
    store.tasks["t1"].token += 1
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    return store


@pytest.mark.holds("tools.md", "Pure and Idempotent calls are made again with the same key")
@pytest.mark.holds(
    "tools.md",
    "A call that no executor has begun goes to those of the worker that has its task, or is taken "
    "back where there are none; what runs is waited for",
)
@pytest.mark.parametrize("effect", [Effect.PURE, Effect.IDEMPOTENT])
async def test_a_call_that_may_be_repeated_is_repeated_with_the_same_key(effect: Effect) -> None:
    store = await crashed_call(effect)
    calls = ScriptedCalls()
    assert await run(store, program_of(payer, tool_of("pay", effect)), calls) is RunOutcome.ENDED
    (again,) = calls.asked
    assert again.was_begun, "an executor of before may have it"
    other = ScriptedCalls()
    await run(await crashed_call(effect), program_of(payer, tool_of("pay", effect)), other)
    assert again.key == other.asked[0].key, "the key is made from the task's and the call's id"


PAY = program_of(payer, tool_of("pay"))


@pytest.mark.holds(
    "tools.md",
    "An Unsafe call is never repeated: `reconcile` is asked, then somebody resolves it, or it ends "
    "as UnknownEffect",
)
@pytest.mark.parametrize(
    ("known", "made", "result"),
    [
        pytest.param(
            Reconciled(happened=True, result="receipt 7"),
            [],
            "receipt 7",
            id="its reconcile knows that it happened",
        ),
        pytest.param(
            Reconciled(happened=False),
            ["tool/pay"],
            {"euro": 5},
            id="its reconcile knows that it did not happen",
        ),
    ],
)
async def test_an_unsafe_call_with_an_intent_is_asked_for(
    known: Reconciled, made: list[str], result: Any
) -> None:
    store = await crashed_call(Effect.UNSAFE)
    calls = ScriptedCalls(known=known)
    assert await run(store, PAY, calls) is RunOutcome.ENDED
    assert calls.made == made
    assert store.tasks["t1"].finish is not None
    assert store.tasks["t1"].finish.result == result
    assert [(entry.happened, entry.by) for entry in entries_of(store, Resolved)] == [
        (known.happened, "reconcile")
    ]


@pytest.mark.holds(
    "tools.md", "When a worker is lost, its functions go on and the next worker gets their replies"
)
@pytest.mark.once
@pytest.mark.parametrize(
    ("reply", "result"),
    [
        (Reply(outcome=CallOutcome.SUCCEEDED, value="receipt 7"), "receipt 7"),
        (Reply(outcome=CallOutcome.FAILED, problem="no money"), "no money"),
    ],
)
async def test_an_unsafe_call_whose_executor_has_kept_its_reply_is_as_if_it_stood_in_the_journal(
    reply: Reply, result: str
) -> None:
    async def careful(ctx: Context, task: Task) -> Any:
        try:
            return await ctx.tool("pay", {"euro": 5})
        except ToolFailedError as error:
            return error.problem

    store = await crashed_call(Effect.UNSAFE)
    happened = reply.outcome is CallOutcome.SUCCEEDED
    calls = ScriptedCalls(known=Reconciled(happened=happened, reply=reply))
    assert await run(store, program_of(careful, tool_of("pay")), calls) is RunOutcome.ENDED
    assert store.tasks["t1"].finish is not None
    assert (store.tasks["t1"].finish.result, calls.made) == (result, [])
    assert entries_of(store, Resolved) == []


@pytest.mark.holds(
    "tools.md",
    "An Unsafe call is never repeated: `reconcile` is asked, then somebody resolves it, or it ends "
    "as UnknownEffect",
)
@pytest.mark.parametrize(
    ("happened", "made", "result"),
    [
        pytest.param(True, [], "receipt 7", id="it happened, and this is its result"),
        pytest.param(False, ["tool/pay"], {"euro": 5}, id="it did not happen, so it is made"),
    ],
)
async def test_an_unknown_effect_suspends_the_task_until_somebody_resolves_it(
    happened: bool, made: list[str], result: Any
) -> None:
    store = await crashed_call(Effect.UNSAFE)
    for _ in range(2):
        calls = ScriptedCalls()
        assert await run(store, PAY, calls) is RunOutcome.SUSPENDED
        assert (waits(store).kind, waits(store).call) == (WaitKind.EFFECT, "tool/pay")
        assert calls.made == []
    store.resolve("t1", "tool/pay", happened=happened, result="receipt 7" if happened else None)
    calls = ScriptedCalls()
    assert await run(store, PAY, calls) is RunOutcome.ENDED
    assert calls.made == made
    assert store.tasks["t1"].finish is not None
    assert store.tasks["t1"].finish.result == result
    assert len(entries_of(store, Done)) == 1


@pytest.mark.holds(
    "tools.md", "A run keeps the declarations with which it began; a call is checked by those of now"
)
@pytest.mark.parametrize("change", ["gone", "other arguments"])
async def test_a_tool_that_changed_meanwhile_leaves_what_became_of_its_call_unknown(change: str) -> None:
    """The declarations of an MCP server may change while a task runs; its journal does not."""
    store = await crashed_call(Effect.UNSAFE)
    tool = replace(tool_of("pay"), problem_of=lambda _: "wrong arguments")
    program = program_of(payer) if change == "gone" else program_of(payer, tool)
    assert await run(store, program, ScriptedCalls()) is RunOutcome.SUSPENDED
    assert (waits(store).kind, waits(store).call) == (WaitKind.EFFECT, "tool/pay")
    assert entries_of(store, Done) == []


async def test_a_call_resolved_as_not_happened_whose_worker_is_lost_again_is_asked_for_again() -> None:
    store = await crashed_call(Effect.UNSAFE)
    await run(store, PAY, ScriptedCalls())
    store.resolve("t1", "tool/pay", happened=False)
    calls = ScriptedCalls(hold=asyncio.Event())
    running = asyncio.create_task(run(store, PAY, calls))
    await until(lambda: calls.made == ["tool/pay"])
    store.tasks["t1"].token += 1
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    calls = ScriptedCalls()
    assert await run(store, PAY, calls) is RunOutcome.SUSPENDED
    assert calls.made == []


@pytest.mark.holds(
    "tools.md",
    "An Unsafe call is never repeated: `reconcile` is asked, then somebody resolves it, or it ends "
    "as UnknownEffect",
)
@pytest.mark.parametrize(
    ("hours", "reason"), [pytest.param(24, EndReason.UNKNOWN_EFFECT, id="nobody resolves it in time")]
)
async def test_an_effect_that_stays_unknown_ends_the_task(hours: int, reason: EndReason) -> None:
    store = await crashed_call(Effect.UNSAFE)
    assert await run(store, PAY, ScriptedCalls()) is RunOutcome.SUSPENDED
    until_ms = waits(store).until
    assert until_ms == store.now_ms + hours * HOUR_MS
    store.now_ms = until_ms
    assert await run(store, PAY, ScriptedCalls()) is RunOutcome.ENDED
    finish = store.tasks["t1"].finish
    assert finish is not None
    assert (finish.status, finish.reason) == (TaskStatus.FAILED, reason)
    assert "tool/pay" in finish.message


async def test_a_tool_that_was_unsafe_when_it_was_called_is_not_repeated_because_it_no_longer_is() -> None:
    store = await crashed_call(Effect.UNSAFE)
    calls = ScriptedCalls()
    assert await run(store, program_of(payer, tool_of("pay", Effect.PURE)), calls) is RunOutcome.SUSPENDED
    assert calls.made == []


# Calls that were sent and not answered, and calls that were not begun


def of_certainty(certainty: Certainty) -> Callable[[Call], Reply]:
    def script(call: Call) -> Reply:
        return Reply(outcome=CallOutcome.TIMED_OUT, problem="no answer", certainty=certainty)

    return script


@pytest.mark.holds(
    "tools.md",
    "An Unsafe call that was sent and not answered is an unknown effect; any other failure is a "
    "result, with words",
)
async def test_an_unsafe_call_without_an_answer_is_an_unknown_effect_and_not_made_again() -> None:
    store = new_task()
    calls = ScriptedCalls(script=of_certainty(Certainty.UNKNOWN))
    assert await run(store, PAY, calls) is RunOutcome.SUSPENDED
    assert (waits(store).kind, waits(store).call, calls.made) == (WaitKind.EFFECT, "tool/pay", ["tool/pay"])
    assert entries_of(store, Done) == []
    again = ScriptedCalls()
    assert await run(store, PAY, again) is RunOutcome.SUSPENDED
    store.resolve("t1", "tool/pay", happened=True, result="receipt 7")
    assert await run(store, PAY, again) is RunOutcome.ENDED
    assert again.made == []
    assert store.tasks["t1"].finish is not None
    assert store.tasks["t1"].finish.result == "receipt 7"


@pytest.mark.holds(
    "tools.md",
    "An Unsafe call that was sent and not answered is an unknown effect; any other failure is a "
    "result, with words",
)
@pytest.mark.parametrize(
    ("known", "result"),
    [
        pytest.param(Reconciled(happened=True, result="receipt 7"), "receipt 7", id="it happened"),
        pytest.param(
            Reconciled(happened=False),
            ["TimedOut", "no answer; the tool's reconcile says that it did not happen"],
            id="it did not, so the agent may call it again",
        ),
    ],
)
async def test_an_unsafe_call_without_an_answer_is_asked_for_at_once(known: Reconciled, result: Any) -> None:
    async def careful(ctx: Context, task: Task) -> Any:
        try:
            return await ctx.tool("pay", {"euro": 5})
        except ToolFailedError as error:
            return [error.outcome, error.problem]

    store, program = new_task(), program_of(careful, tool_of("pay"))
    calls = ScriptedCalls(script=of_certainty(Certainty.UNKNOWN), known=known)
    assert await run(store, program, calls) is RunOutcome.ENDED
    assert store.tasks["t1"].finish is not None
    assert (store.tasks["t1"].finish.result, calls.made) == (result, ["tool/pay"])
    assert [(one.happened, one.by) for one in entries_of(store, Resolved)] == [(known.happened, "reconcile")]


@pytest.mark.parametrize("effect", [Effect.PURE, Effect.IDEMPOTENT])
async def test_a_call_without_an_answer_that_may_be_repeated_has_failed(effect: Effect) -> None:
    store = new_task()
    calls = ScriptedCalls(script=of_certainty(Certainty.UNKNOWN))
    assert await run(store, program_of(payer, tool_of("pay", effect)), calls) is RunOutcome.ENDED
    assert store.tasks["t1"].finish is not None
    assert store.tasks["t1"].finish.reason is EndReason.TOOL_FAILED


async def test_other_calls_end_before_an_unknown_effect_suspends_the_task() -> None:
    async def two(ctx: Context, task: Task) -> Any:
        return await asyncio.gather(ctx.tool("pay", {}), ctx.tool("look", {}))

    finish = asyncio.Event()

    async def script(call: Call) -> Reply:
        if call.target == "look":
            await finish.wait()
            return said("seen")
        return of_certainty(Certainty.UNKNOWN)(call)

    store, calls = new_task(), ScriptedCalls(script=script)
    program = program_of(two, tool_of("pay"), tool_of("look", Effect.PURE))
    running = asyncio.create_task(run(store, program, calls))
    await until(lambda: len(calls.made) == 2)
    await asyncio.sleep(0.05)
    assert not running.done()
    finish.set()
    assert await running is RunOutcome.SUSPENDED
    assert [done.call for done in entries_of(store, Done)] == ["tool/look"]


@pytest.mark.holds(
    "tools.md",
    "A function that found no thread was not begun, and another worker makes the call; a worker "
    "without threads is replaced",
)
@pytest.mark.parametrize("effect", list(Effect))
async def test_a_call_that_was_not_begun_is_made_by_the_next_worker(effect: Effect) -> None:
    store, program = new_task(), program_of(payer, tool_of("pay", effect))
    stuck = ScriptedCalls(script=of_certainty(Certainty.NOT_BEGUN))
    assert await run(store, program, stuck) is RunOutcome.HANDED_OVER
    other = ScriptedCalls()
    assert await run(store, program, other) is RunOutcome.ENDED
    assert (stuck.made, other.made) == (["tool/pay"], ["tool/pay"])
    assert store.tasks["t1"].finish is not None
    assert store.tasks["t1"].finish.result == {"euro": 5}
    said_so = [("worker", False)] if effect is Effect.UNSAFE else []
    assert [(one.by, one.happened) for one in entries_of(store, Resolved)] == said_so
    assert store.tasks["t1"].attempts == 1


# Limits


@pytest.mark.holds("agent-code.md", "A refused call waits for others to settle")
async def test_a_refused_call_waits_for_others_to_settle_and_then_goes_on() -> None:
    async def asking(ctx: Context, task: Task) -> list[str]:
        async def ask(name: str) -> str:
            with ctx.scope(name):
                return (await ctx.llm(name)).text

        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(ask(name)) for name in "abcdef"]
        return [one.result() for one in asked]

    class InTurn(ScriptedCalls):
        turns = 0

        async def reservation(self, call: Call, session: Session, budget: Budget) -> tuple[Call, Amount]:
            self.turns += call.waited_ms is None
            return await super().reservation(replace(call, waited_ms=5), session, budget)

    calls = InTurn(reserved_tokens=500)
    end = await ended(asking, calls=calls, max_tokens=1000)
    assert end.status is TaskStatus.SUCCEEDED
    assert len(calls.made) == 6
    assert calls.turns == 6, "a call that waits keeps its turn at a rate limit"


async def test_parallel_calls_are_cut_to_what_the_first_of_them_leaves_instead_of_waiting() -> None:
    class Greedy(ScriptedCalls):
        async def reservation(self, call: Any, session: Any, budget: Any) -> Any:
            cut, amount = await super().reservation(call, session, budget)
            return cut, replace(amount, tokens=max(100, min(700, budget.left_tokens)))

    store, calls = new_task(max_tokens=1000), Greedy(hold=asyncio.Event())
    running = asyncio.create_task(run(store, program_of(two_branches), calls))
    await until(lambda: len(calls.made) == 2)
    assert [entry.reserved_tokens for entry in entries_of(store, Intended)] == [700, 300]
    assert calls.hold is not None
    calls.hold.set()
    assert await running is RunOutcome.ENDED


async def test_a_limit_that_nothing_can_change_is_an_error_that_the_agent_can_handle() -> None:
    async def thrifty(ctx: Context, task: Task) -> Any:
        said = 0
        try:
            while True:
                await ctx.llm(f"more {said}")
                said += 1
        except LimitReachedError as problem:
            return [said, str(problem.limit), problem.refusal.most]

    calls = ScriptedCalls(reserved_tokens=100)
    assert (await ended(thrifty, calls=calls, max_tokens=200)).result == [3, "maxTokens", 200]
    assert (await ended(thrifty, max_steps=2)).result == [2, "maxSteps", 2]


async def test_a_call_that_was_refused_is_refused_in_every_replay_although_there_is_room_by_then() -> None:
    async def thrifty(ctx: Context, task: Task) -> Any:
        try:
            await ctx.llm("much")
        except LimitReachedError as problem:
            await ctx.sleep(3600)
            return [str(problem.limit), problem.refusal.wanted]

    store, program = new_task(max_tokens=100), program_of(thrifty)
    assert await run(store, program, ScriptedCalls(reserved_tokens=101)) is RunOutcome.SUSPENDED
    store.now_ms += HOUR_MS
    calls = ScriptedCalls(reserved_tokens=1)
    assert await run(store, program, calls) is RunOutcome.ENDED
    assert store.tasks["t1"].finish is not None
    assert (store.tasks["t1"].finish.result, calls.made) == (["maxTokens", 101], [])
    assert store.tasks["t1"].tree.used.steps == 0


@pytest.mark.holds(
    "agent-code.md", "Errors that an agent lets through end its task with the reason that fits"
)
@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        pytest.param({"max_steps": 3}, EndReason.MAX_STEPS, id="steps"),
        pytest.param({"max_tokens": 150}, EndReason.MAX_TOKENS, id="tokens"),
        pytest.param({"max_cost_usd": 0.0000001}, EndReason.MAX_COST, id="money"),
    ],
)
async def test_an_agent_that_lets_a_limit_through_ends_with_its_reason(
    limits: dict[str, Any], reason: EndReason
) -> None:
    async def spender(ctx: Context, task: Task) -> None:
        ctx.partial = {"asked": 0}
        for number in range(9):
            await ctx.llm("more")
            ctx.partial = {"asked": number + 1}

    class Priced(ScriptedCalls):
        async def reservation(self, call: Any, session: Any, budget: Any) -> Any:
            cut, amount = await super().reservation(call, session, budget)
            return cut, replace(amount, nano_usd=60)

    calls = Priced(reserved_tokens=100, script=lambda _: said("so", nano_usd=50))
    end = await ended(spender, calls=calls, **limits)
    assert (end.status, end.reason) == (TaskStatus.FAILED, reason)
    assert end.partial == {"asked": len(calls.made)}
    assert next(iter(limits)).replace("_usd", "") in _snake(end.message)


def _snake(text: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in text)


async def test_a_call_is_cut_to_what_is_left_before_it_is_refused_for_good() -> None:
    class Cutting(ScriptedCalls):
        async def reservation(self, call: Any, session: Any, budget: Any) -> Any:
            cut, amount = await super().reservation(call, session, budget)
            return cut, replace(amount, tokens=max(100, min(900, budget.left_tokens)))

    async def asking(ctx: Context, task: Task) -> None:
        await ctx.llm("a")

    class Elsewhere(MemoryStore):
        """Another task of the tree has used tokens, which only a write tells."""

        async def append(self, claim: Any, expected: int, entries: Any) -> Any:
            written = await super().append(claim, expected, entries)
            return replace(written, budget=None)

    store = Elsewhere()
    store.submit("t1", "go", TaskLimits(max_tokens=1000))
    store.tasks["t1"].tree.used = replace(store.tasks["t1"].tree.used, tokens=600)
    assert await run(store, program_of(asking), Cutting()) is RunOutcome.ENDED
    assert store.tasks["t1"].status is TaskStatus.SUCCEEDED
    assert [entry.reserved_tokens for entry in entries_of(store, Intended)] == [400]


# Interruptions


async def two_branches(ctx: Context, task: Task) -> list[str]:
    async def ask(name: str) -> str:
        with ctx.scope(name):
            return (await ctx.llm(name)).text

    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(ask(name)) for name in "ab"]
    return [one.result() for one in asked] + [(await ctx.llm("more")).text]


async def test_parallel_calls_share_their_writes() -> None:
    store = new_task()
    await run(store, program_of(two_branches), ScriptedCalls())
    shared = [[(type(entry).__name__, entry.call) for entry in write] for write in store.writes]  # type: ignore[union-attr]
    assert shared[:2] == [
        [("Intended", "a/llm/Default"), ("Intended", "b/llm/Default")],
        [("Done", "a/llm/Default"), ("Done", "b/llm/Default")],
    ]


async def interrupted(how: Callable[[TaskRun], None]) -> tuple[MemoryStore, ScriptedCalls, RunOutcome]:
    """A run that is interrupted while both of its calls are under way."""
    store, calls = new_task(), ScriptedCalls(hold=asyncio.Event())
    taken = begin(store, program_of(two_branches), calls)
    running = asyncio.create_task(taken.run())
    await until(lambda: len(calls.made) == 2)
    how(taken)
    return store, calls, await running


async def test_a_cancelled_task_stops_its_calls() -> None:
    store, calls, outcome = await interrupted(lambda taken: taken.interrupt(Interrupt.CANCEL))
    assert outcome is RunOutcome.ENDED
    assert sorted(calls.stopped) == ["a/llm/Default", "b/llm/Default"]
    finish = store.tasks["t1"].finish
    assert finish is not None
    assert (finish.status, finish.reason) == (TaskStatus.CANCELLED, EndReason.CANCELLED)
    assert store.tasks["t1"].tree.reserved.tokens == 0


async def test_a_worker_that_must_leave_now_gives_its_calls_up() -> None:
    store, _, outcome = await interrupted(lambda taken: taken.interrupt(Interrupt.LEAVE))
    assert outcome is RunOutcome.HANDED_OVER
    assert entries_of(store, HandedOver)
    again = ScriptedCalls()
    assert await run(store, program_of(two_branches), again) is RunOutcome.ENDED
    assert again.made == ["a/llm/Default", "b/llm/Default", "llm/Default"]


async def test_a_lost_lease_stops_the_calls_and_writes_nothing() -> None:
    store, calls, outcome = await interrupted(lambda taken: taken.interrupt(Interrupt.LOST))
    assert (outcome, len(calls.stopped)) == (RunOutcome.LOST, 2)
    assert entries_of(store, Done) == []


async def test_a_result_with_a_stale_token_ends_the_run_as_lost() -> None:
    store, calls = new_task(), ScriptedCalls(hold=asyncio.Event())
    running = asyncio.create_task(run(store, program_of(two_branches), calls))
    await until(lambda: len(calls.made) == 2)
    store.claim("t1", "another")
    before = list(store.tasks["t1"].texts)
    assert calls.hold is not None
    calls.hold.set()
    assert await running is RunOutcome.LOST
    assert store.tasks["t1"].texts == before


async def test_a_task_whose_time_is_up_ends_with_what_it_has() -> None:
    async def slow(ctx: Context, task: Task) -> None:
        ctx.partial = {"found": 1}
        await ctx.llm("why?")

    calls = ScriptedCalls(hold=asyncio.Event())
    end = await ended(slow, calls=calls, max_wall_seconds=0.05)
    assert (end.reason, end.partial, calls.stopped) == (
        EndReason.TIMEOUT,
        {"found": 1},
        ["llm/Default"],
    )


async def test_a_clock_that_jumps_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async def timely(ctx: Context, task: Task) -> str:
        await ctx.sleep(60)
        return (await ctx.now()).isoformat()

    store = new_task()
    jumps = cycle([10**10, 0, -(10**10)])
    monkeypatch.setattr(time, "time", lambda: next(jumps))
    monkeypatch.setattr(time, "time_ns", lambda: next(jumps) * 10**9)
    for _ in range(2):
        await run(store, program_of(timely), ScriptedCalls())
        store.now_ms += 60_000
    finish = store.tasks["t1"].finish
    assert finish is not None
    assert finish.result == "1970-01-01T00:17:40+00:00"


@pytest.mark.holds("agent-code.md", "A call that the agent gives up is given up in every replay")
async def test_a_call_that_its_agent_gives_up_is_given_up_in_every_replay() -> None:
    async def hasty(ctx: Context, task: Task) -> list[str]:
        try:
            async with asyncio.timeout(0.05):
                await ctx.tool("pay")
        except TimeoutError:
            pass
        return ["late", (await ctx.llm("why?")).text]

    class Slow(ScriptedCalls):
        async def make(self, call: Any, session: Any) -> Any:
            if call.target == "pay":
                self.made.append(call.id)
                await asyncio.Event().wait()
            return await super().make(call, session)

    store, program = new_task(), program_of(hasty, tool_of("pay"))
    calls = Slow(hold=asyncio.Event())
    taken = begin(store, program, calls)
    running = asyncio.create_task(taken.run())
    await until(lambda: len(calls.made) == 2)
    taken.interrupt(Interrupt.LEAVE)
    assert await running is RunOutcome.HANDED_OVER
    assert [(entry.call, entry.outcome) for entry in entries_of(store, Done)] == [
        ("tool/pay", CallOutcome.CANCELLED)
    ]
    again = Slow()
    assert await run(store, program, again) is RunOutcome.ENDED
    assert again.made == ["llm/Default"]
    assert store.tasks["t1"].finish is not None
    assert store.tasks["t1"].finish.result == ["late", "So it is."]


# Failures of calls, and of the agent


async def test_failures_are_errors_that_the_agent_can_handle() -> None:
    async def careful(ctx: Context, task: Task) -> list[str]:
        problems = []
        for call in (
            ctx.llm("why?"),
            ctx.tool("look"),
            ctx.tool("gone"),
            ctx.tool("look", {"x": 1}),
            ctx.tool("look", {"x": "x" * 2**19}),
            ctx.tool("look", {"x": object()}),
        ):
            try:
                await call
            except (ModelFailedError, ToolFailedError) as problem:
                problems.append(f"{problem.outcome} {problem}"[:90])
        return problems

    closed = {"type": "object", "additionalProperties": False}
    calls = ScriptedCalls(script=lambda call: failed("503", CallOutcome.TIMED_OUT))
    end = await ended(careful, tool_of("look", schema=closed), calls=calls)
    assert end.result == [
        "TimedOut smollm2: 503",
        "TimedOut look: 503",
        "Invalid gone: there is no tool gone",
        "Invalid look: $: Additional properties are not allowed ('x' was unexpected)",
        "Invalid look: what is given to look has 524297 bytes, and at most 262144 are stored",
        "Invalid look: what is given to look cannot be written as JSON: Unable to serialize unknown",
    ]
    assert calls.made == ["llm/Default", "tool/look"], "what is wrong is not called"


class Report(pydantic.BaseModel):
    pages_read: int


@pytest.mark.holds("agent-code.md", "What an agent returns is JSON of at most 4 MiB, or pydantic models")
@pytest.mark.parametrize(
    ("returned", "result"),
    [
        pytest.param("text", "text", id="a text"),
        pytest.param(None, None, id="nothing"),
        pytest.param(Report(pages_read=3), {"pages_read": 3}, id="a pydantic model"),
        pytest.param([{"report": Report(pages_read=3)}], [{"report": {"pages_read": 3}}], id="one within"),
    ],
)
async def test_what_an_agent_returns_is_the_result(returned: Any, result: Any) -> None:
    async def agent(ctx: Context, task: Task) -> Any:
        return returned

    end = await ended(agent)
    assert (end.status, end.reason, end.result) == (TaskStatus.SUCCEEDED, EndReason.COMPLETED, result)


def raising(error: BaseException) -> Main:
    async def agent(ctx: Context, task: Task) -> Any:
        raise error

    return agent


def returning(value: Any) -> Main:
    async def agent(ctx: Context, task: Task) -> Any:
        return value

    return agent


def spawning(asked: str) -> Main:
    async def agent(ctx: Context, task: Task) -> Any:
        return await ctx.spawn(asked)

    return agent


async def calling_a_failing_model(ctx: Context, task: Task) -> Any:
    await ctx.llm("why?")


async def calling_a_failing_tool(ctx: Context, task: Task) -> Any:
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.sleep(60))
        await ctx.tool("gone")


async def naming_badly(ctx: Context, task: Task) -> Any:
    await ctx.llm("why?", name="a#2")


async def cancelling_itself(ctx: Context, task: Task) -> Any:
    raise asyncio.CancelledError


async def calling_without_a_scope(ctx: Context, task: Task) -> Any:
    async def ask() -> None:
        await ctx.llm("why?")

    await asyncio.gather(ask(), ask())


@pytest.mark.holds("agent-code.md", "What an agent returns is JSON of at most 4 MiB, or pydantic models")
@pytest.mark.holds(
    "agent-code.md", "A call in the scope of another branch, and a name that is none, are errors"
)
@pytest.mark.holds(
    "agent-code.md", "Errors that an agent lets through end its task with the reason that fits"
)
@pytest.mark.parametrize(
    ("agent", "reason", "says"),
    [
        pytest.param(raising(ValueError("no")), EndReason.INVALID, "ValueError: no", id="any error"),
        pytest.param(raising(SystemExit(3)), EndReason.INVALID, "SystemExit(3)", id="it leaves the process"),
        pytest.param(
            raising(TaskFailedError(EndReason.TOOL_FAILED, "no map")),
            EndReason.TOOL_FAILED,
            "no map",
            id="a reason of its own",
        ),
        pytest.param(
            raising(ExceptionGroup("", [ValueError("no"), TaskFailedError(EndReason.MAX_STEPS, "enough")])),
            EndReason.MAX_STEPS,
            "enough",
            id="of several branches, the one that says most",
        ),
        pytest.param(calling_a_failing_model, EndReason.MODEL_FAILED, "smollm2: 503", id="a model"),
        pytest.param(calling_a_failing_tool, EndReason.TOOL_FAILED, "no tool gone", id="a tool"),
        pytest.param(naming_badly, EndReason.INVALID, "'a#2' cannot be the name", id="a bad name"),
        pytest.param(calling_without_a_scope, EndReason.INVALID, "ctx.scope(NAME)", id="no scope"),
        pytest.param(cancelling_itself, EndReason.INVALID, "cancelled itself", id="it cancels itself"),
        pytest.param(returning(object()), EndReason.INVALID, "cannot be written as JSON", id="no JSON"),
        pytest.param(returning(float("nan")), EndReason.INVALID, "not JSON compliant", id="no number"),
        pytest.param(returning("\ud800"), EndReason.INVALID, "surrogates not allowed", id="half a character"),
        pytest.param(raising(ValueError("a\ud800b")), EndReason.INVALID, "a?b", id="half a character told"),
        pytest.param(spawning("\ud800"), EndReason.INVALID, "surrogates not allowed", id="half one asked"),
        pytest.param(returning("x" * 2**23), EndReason.INVALID, "at most 4194304 are stored", id="too long"),
    ],
)
async def test_an_agent_that_goes_wrong_ends_its_task_with_a_reason(
    agent: Main, reason: EndReason, says: str
) -> None:
    end = await ended(agent, calls=ScriptedCalls(script=lambda call: failed("503")))
    assert (end.status, end.reason) == (TaskStatus.FAILED, reason)
    assert says in end.message
    assert "Traceback" not in end.message


async def test_a_partial_that_is_no_json_is_named_and_spoils_nothing() -> None:
    async def agent(ctx: Context, task: Task) -> None:
        ctx.partial = {"open": object()}
        raise TaskFailedError(EndReason.TOOL_FAILED, "no map")

    end = await ended(agent)
    assert (end.reason, end.message) == (EndReason.TOOL_FAILED, "no map")
    assert "ctx.partial cannot be written as JSON" in end.partial["problem"]


class Moody:
    """An agent that asks something else when it is resumed."""

    def __init__(self, first: Main, then: Main) -> None:
        self.mains = iter([first, then])

    async def __call__(self, ctx: Context, task: Task) -> Any:
        return await next(self.mains)(ctx, task)


async def asks_why(ctx: Context, task: Task) -> Any:
    await ctx.tool("look", {"at": "a"}, name="first")
    await ctx.sleep(3600)


async def asks_elsewhere(ctx: Context, task: Task) -> Any:
    await ctx.tool("look", {"at": "b"}, name="first")


async def asks_a_model(ctx: Context, task: Task) -> Any:
    try:
        await ctx.llm("why?", name="first")
    except BaseException:
        return "hidden"


@pytest.mark.holds("agent-code.md", "Code that asks something else under a known id ends the task as Invalid")
@pytest.mark.parametrize("then", [asks_elsewhere, asks_a_model])
async def test_code_that_is_not_deterministic_ends_the_task_and_names_the_call(then: Main) -> None:
    store = new_task()
    program = program_of(Moody(asks_why, then), tool_of("look"))
    assert await run(store, program, ScriptedCalls()) is RunOutcome.SUSPENDED
    calls = ScriptedCalls()
    assert await run(store, program, calls) is RunOutcome.ENDED
    finish = store.tasks["t1"].finish
    assert finish is not None
    assert finish.reason is EndReason.INVALID
    assert "not deterministic" in finish.message
    assert "the call first" in finish.message
    assert calls.made == []


async def test_an_agent_that_ignores_its_cancellation_holds_nobody_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flotilla_runtime.agent.engine.run.LAST_WORDS_SECONDS", 0.05)
    hold = asyncio.Event()

    async def stubborn(ctx: Context, task: Task) -> Any:
        while not hold.is_set():
            try:
                await hold.wait()
            except asyncio.CancelledError:
                continue

    end = await ended(stubborn, max_wall_seconds=0.05)
    assert end.reason is EndReason.TIMEOUT
    hold.set()


async def test_a_background_call_that_the_agent_forgot_is_stopped_with_it() -> None:
    async def forgetful(ctx: Context, task: Task) -> str:
        async def ask() -> None:
            with ctx.scope("later"):
                await ctx.llm("why?")

        tasks.append(asyncio.create_task(ask()))
        await until(lambda: bool(calls.made))
        return "done"

    tasks: list[asyncio.Task[None]] = []
    calls = ScriptedCalls(hold=asyncio.Event())
    assert (await ended(forgetful, calls=calls)).result == "done"
    assert calls.stopped == ["later/llm/Default"]


async def test_what_the_journal_says_was_the_result_is_the_result_even_if_the_fleet_changed() -> None:
    async def asking(ctx: Context, task: Task) -> list[Any]:
        look = await ctx.tool("look")
        await ctx.sleep(3600)
        return [look]

    store = new_task()
    assert await run(store, program_of(asking, tool_of("look")), ScriptedCalls()) is RunOutcome.SUSPENDED
    store.now_ms += HOUR_MS
    assert await run(store, program_of(asking), ScriptedCalls()) is RunOutcome.ENDED, "the tool has gone"
    assert store.tasks["t1"].finish is not None
    assert store.tasks["t1"].finish.result == [{}]


async def test_a_role_that_the_fleet_lacks_stands_for_default() -> None:
    async def asking(ctx: Context, task: Task) -> str:
        return (await ctx.llm("why?", role="Routine")).text

    store, calls = new_task(), ScriptedCalls()
    await run(store, program_of(asking), calls)
    assert calls.asked[0].target == "smollm2"
    assert calls.made == ["llm/Routine"]
