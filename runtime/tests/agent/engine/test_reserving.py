"""Calls that go on after their tries have spent what they reserved: settled once, reserved anew, one step.

What a model's client makes of it is in the tests of the models; how limits refuse, in test_engine.py.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from agent_support.lives import never_answers
from agent_support.memory import MemoryStore
from agent_support.running import ScriptedCalls, begin, program_of, run, said
from flotilla_runtime.agent.budgets import Amount
from flotilla_runtime.agent.engine import reserving
from flotilla_runtime.agent.engine.context import Context, Task
from flotilla_runtime.agent.engine.figures import CallFigures
from flotilla_runtime.agent.engine.history import read
from flotilla_runtime.agent.engine.run import Interrupt, RunOutcome
from flotilla_runtime.agent.failures import ModelFailedError
from flotilla_runtime.agent.journal import CallOutcome, Done, Intended
from flotilla_runtime.agent.protocols import Call, Reply, Spent
from flotilla_runtime.contract import TaskLimits

Script = Callable[[Call], Awaitable[Reply]]
FAR = 10**9
SPENT = Reply(outcome=CallOutcome.FAILED, problem="two replicas died", input_tokens=70)


async def asks_once(ctx: Context, task: Task) -> str:
    try:
        return (await ctx.llm("why?")).text
    except ModelFailedError as problem:
        return f"failed: {problem}"


def spent(tokens: int, *, nano_usd: int | None = 0, waits_until: float = FAR) -> Spent:
    return Spent(tokens=tokens, nano_usd=nano_usd, waits_until=waits_until)


def going_on(times: int, tokens: int = 70) -> Script:
    """Replicas die until the call has reserved anew so often."""

    async def script(call: Call) -> Reply:
        for _ in range(times):
            assert call.more is not None
            more = await call.more(call, spent(tokens))
            if more is None:
                return SPENT
            call = more
        return said("So it is.", input_tokens=40, output_tokens=4)

    return script


def store_of(max_tokens: int) -> MemoryStore:
    store = MemoryStore()
    store.submit("t1", "go", TaskLimits(max_tokens=max_tokens))
    return store


def entries_of(store: MemoryStore, kind: type) -> list[Any]:
    return [entry for entry in store.tasks["t1"].entries if isinstance(entry, kind)]


def result(store: MemoryStore) -> Any:
    finish = store.tasks["t1"].finish
    assert finish is not None
    return finish.result


@pytest.mark.holds(
    "decisions/0018-model-calls.md",
    "A call whose tries have spent what it reserved settles that, reserves anew, and goes on as "
    "the same step",
)
async def test_a_call_goes_on_as_the_same_step_and_what_was_spent_is_settled_once() -> None:
    store = store_of(1000)
    calls = ScriptedCalls(script=going_on(2), reserved_tokens=90)
    assert await run(store, program_of(asks_once), calls) is RunOutcome.ENDED
    assert result(store) == "So it is."
    intents = entries_of(store, Intended)
    assert [(one.call, one.step, one.reserved_tokens, one.spent_tokens) for one in intents] == [
        ("llm/Default", 1, 90, None),
        ("llm/Default", 1, 90, 70),
        ("llm/Default", 1, 90, 70),
    ]
    tree = store.tasks["t1"].tree
    assert (tree.used, tree.reserved) == (Amount(steps=1, tokens=70 + 70 + 44), Amount())


@pytest.mark.holds("agents.md", "A call that goes to another model is counted there")
@pytest.mark.parametrize("is_given_up", [False, True])
async def test_a_call_that_goes_to_another_model_is_counted_there(is_given_up: bool) -> None:
    async def agent(ctx: Context, task: Task) -> str:
        with suppress(TimeoutError):
            async with asyncio.timeout(0.05):
                await ctx.llm("why?")
        return "done"

    async def overflowing(call: Call) -> Reply:
        assert call.more is not None
        moved = await call.more(replace(call, target="small"), spent(0))
        assert moved is not None
        if is_given_up:
            return await never_answers(moved)
        return replace(said("So it is."), answered_by=moved.target)

    store = store_of(1000)
    calls = ScriptedCalls(script=overflowing, reserved_tokens=90)
    assert await run(store, program_of(agent), calls) is RunOutcome.ENDED
    asked = [(one.target, one.asks) for one in entries_of(store, Intended)]
    assert asked == [("smollm2", None), ("smollm2", "small")]
    finish = store.tasks["t1"].finish
    assert finish is not None
    again = CallFigures(read(store.tasks["t1"].entries).calls.values())
    assert finish.calls == again.counts == {"Model/small": 1}
    assert finish.busy_ms == again.busy_ms


@pytest.mark.holds(
    "decisions/0018-model-calls.md",
    "Where the limits leave no room for more, it fails, and keeps what it holds until then",
)
@pytest.mark.parametrize(("max_tokens", "spends"), [(159, 70), (90, 90)])
async def test_a_call_for_which_the_limits_leave_no_room_ends_and_used_what_its_tries_did(
    max_tokens: int, spends: int
) -> None:
    store = store_of(max_tokens)
    calls = ScriptedCalls(script=going_on(1, spends), reserved_tokens=90)
    assert await run(store, program_of(asks_once), calls) is RunOutcome.ENDED
    assert result(store).startswith("failed: ")
    assert len(entries_of(store, Intended)) == 1
    tree = store.tasks["t1"].tree
    assert (tree.used, tree.reserved) == (Amount(steps=1, tokens=70), Amount())


async def both(ctx: Context, task: Task) -> list[str]:
    async def ask(name: str) -> str:
        with ctx.scope(name):
            return await asks_once(ctx, task)

    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(ask(name)) for name in "ab"]
    return [one.result() for one in asked]


async def test_a_call_waits_for_others_to_settle_before_it_goes_on() -> None:
    released = asyncio.Event()

    async def script(call: Call) -> Reply:
        if call.id.startswith("b/"):
            await released.wait()
            return said("late", input_tokens=10, output_tokens=0)
        asyncio.get_running_loop().call_later(0.05, released.set)
        return await going_on(1)(call)

    store = store_of(200)
    calls = ScriptedCalls(script=script, reserved_tokens=90)
    assert await run(store, program_of(both), calls) is RunOutcome.ENDED
    assert result(store) == ["So it is.", "late"]


async def test_calls_that_all_wait_for_more_do_not_wait_long_for_each_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reserving, "MORE_WITHIN_SECONDS", 0.1)
    store = store_of(200)
    calls = ScriptedCalls(script=going_on(1), reserved_tokens=90)
    async with asyncio.timeout(5):
        assert await run(store, program_of(both), calls) is RunOutcome.ENDED
    assert all(text.startswith("failed: ") for text in result(store))


@pytest.mark.holds(
    "decisions/0018-model-calls.md",
    "When too little of it is left, more is reserved, up to the call's tries and time",
)
async def test_a_call_does_not_wait_longer_than_its_own_time() -> None:
    async def script(call: Call) -> Reply:
        assert call.more is not None
        assert await call.more(call, spent(70, waits_until=asyncio.get_running_loop().time())) is None
        return SPENT

    calls = ScriptedCalls(script=script, reserved_tokens=90)
    store = store_of(200)
    async with asyncio.timeout(2):
        assert await run(store, program_of(both), calls) is RunOutcome.ENDED


async def test_a_call_whose_worker_is_lost_after_it_reserved_anew_is_made_again() -> None:
    async def dies(call: Call) -> Reply:
        assert call.more is not None
        assert await call.more(call, spent(70)) is not None
        taken.interrupt(Interrupt.LOST)
        return await asyncio.Event().wait()  # type: ignore[return-value]

    store = store_of(1000)
    taken = begin(store, program_of(asks_once), ScriptedCalls(script=dies, reserved_tokens=90))
    assert await taken.run() is RunOutcome.LOST
    again = ScriptedCalls(reserved_tokens=90)
    assert await run(store, program_of(asks_once), again) is RunOutcome.ENDED
    tree = store.tasks["t1"].tree
    assert (tree.used, tree.reserved) == (Amount(steps=1, tokens=70 + 90 + 44), Amount())


@pytest.mark.parametrize(
    ("max_tokens", "used"),
    [
        pytest.param(1000, 70 + 50, id="it may have used what it reserved anew"),
        pytest.param(100, 90, id="or all that it held, since there is no room for more"),
    ],
)
async def test_a_call_that_is_given_up_while_it_reserves_anew_has_used_what_it_then_holds(
    max_tokens: int, used: int
) -> None:
    """The second reserve is smaller than the first, so the first may not be counted as its use."""
    writing, written = asyncio.Event(), asyncio.Event()

    class SlowStore(MemoryStore):
        async def append(self, claim: Any, expected: int, entries: Any) -> Any:
            if isinstance(entries[0], Intended) and entries[0].spent_tokens is not None:
                writing.set()
                await written.wait()
            return await super().append(claim, expected, entries)

    class Smaller(ScriptedCalls):
        async def reservation(self, call: Call, session: Any, budget: Any) -> Any:
            cut, amount = await super().reservation(call, session, budget)
            return cut, replace(amount, tokens=50 if call.more else 90)

    async def hasty(ctx: Context, task: Task) -> str:
        asked = asyncio.ensure_future(ctx.llm("why?"))
        await writing.wait()
        asked.cancel()
        await asyncio.wait({asked})
        written.set()
        await ctx.sleep(0.05)
        return "gave up"

    store = SlowStore()
    store.submit("t1", "go", TaskLimits(max_tokens=max_tokens))
    assert await run(store, program_of(hasty), Smaller(script=going_on(1))) is RunOutcome.ENDED
    (given_up,) = [one for one in entries_of(store, Done) if one.call == "llm/Default"]
    assert given_up.outcome is CallOutcome.CANCELLED
    tree = store.tasks["t1"].tree
    assert (tree.used.tokens, tree.reserved.tokens) == (used, 0)
