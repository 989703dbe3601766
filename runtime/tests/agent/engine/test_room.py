"""Runs whose caller's share of the store has no room, and runs with values that are kept apart."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from agent_support.memory import MemoryStore
from agent_support.running import ScriptedCalls, begin, program_of, run, said, tool_of
from flotilla_runtime.agent.budgets import LimitName, Refusal
from flotilla_runtime.agent.engine.context import Context, Task
from flotilla_runtime.agent.engine.run import Interrupt, RunOutcome
from flotilla_runtime.agent.errors import BrokenEntryError
from flotilla_runtime.agent.journal import (
    CallKind,
    CallOutcome,
    Done,
    EndReason,
    Entry,
    Intended,
    Resolved,
    TaskStatus,
)
from flotilla_runtime.agent.protocols import Call, Finish, OneEntry, Reply, StateRequest, Written
from flotilla_runtime.agent.store.payloads import json_text, payload_of
from flotilla_runtime.agent.tasks import Claim, LoadedTask
from flotilla_runtime.contract import Effect
from router_support.waiting import until

PAY, LOOK = tool_of("pay"), tool_of("look", Effect.PURE)


class Narrow(MemoryStore):
    """A store whose caller has no room for this call, as often as `may_change` says."""

    def __init__(self, call: str, *may_change: bool) -> None:
        super().__init__()
        self.submit("t1", "go")
        self.call = call
        self.left = list(may_change)

    async def append(self, claim: Claim, expected: int, entries: Sequence[Entry]) -> Written:
        refused = self._no_share(entries)
        if refused is None:
            return await super().append(claim, expected, entries)
        kept = [entry for entry in entries if getattr(entry, "call", "") != self.call]
        return replace(await super().append(claim, expected, kept), refused=(refused,))

    async def spawn(self, claim: Claim, expected: int, intent: Intended, child_input: str) -> Written:
        refused = self._no_share([intent])
        if refused is None:
            return await super().spawn(claim, expected, intent, child_input)
        return Written(length=expected, refused=(refused,))

    async def state(self, claim: Claim, expected: int, intent: Intended, request: StateRequest) -> Written:
        refused = self._no_share([intent])
        if refused is None:
            return await super().state(claim, expected, intent, request)
        return Written(length=expected, refused=(refused,))

    def _no_share(self, entries: Sequence[Entry]) -> Refusal | None:
        if not self.left or self.call not in [getattr(entry, "call", "") for entry in entries]:
            return None
        return Refusal(
            call=self.call,
            limit=LimitName.SHARE,
            most=1000,
            committed=900,
            wanted=200,
            may_change=self.left.pop(0),
        )


def finish_of(store: MemoryStore) -> Finish:
    finish = store.tasks["t1"].finish
    assert finish is not None
    return finish


async def pays(ctx: Context, task: Task) -> Any:
    ctx.partial = "so far"
    try:
        return await ctx.tool("pay", {"to": "ann"})
    except Exception:
        return "handled"


@pytest.mark.holds(
    "tasks.md", "A call for whose result its caller's share has no room waits, or ends its task; others go on"
)
async def test_a_call_waits_until_others_of_its_caller_give_room_back() -> None:
    store, calls = Narrow("tool/pay", True, True), ScriptedCalls()
    assert await run(store, program_of(pays, PAY), calls) is RunOutcome.ENDED
    assert (finish_of(store).result, calls.made) == ({"to": "ann"}, ["tool/pay"])


async def test_an_access_to_the_state_waits_for_room_too() -> None:
    async def main(ctx: Context, task: Task) -> Any:
        await ctx.state.put("seen", 1)
        return await ctx.state.get("seen")

    store = Narrow("state/seen", True, True)
    assert await run(store, program_of(main), ScriptedCalls()) is RunOutcome.ENDED
    assert (finish_of(store).result, store.state_writes) == (1, ["1"])


@pytest.mark.holds(
    "tasks.md", "A call for whose result its caller's share has no room waits, or ends its task; others go on"
)
async def test_a_call_for_which_there_is_no_room_is_not_made_and_ends_the_task() -> None:
    store, calls = Narrow("tool/pay", True, False), ScriptedCalls()
    assert await run(store, program_of(pays, PAY), calls) is RunOutcome.ENDED
    finish = finish_of(store)
    assert (finish.status, finish.reason, finish.partial) == (
        TaskStatus.FAILED,
        EndReason.INFRASTRUCTURE,
        "so far",
    )
    assert "hold 900 bytes of the 1000 that are their share" in finish.message
    assert calls.made == [], "no agent can go on by handling it, for what it writes takes room too"


@pytest.mark.parametrize(
    ("call", "wanted"),
    [
        pytest.param("now", lambda ctx: ctx.now(), id="the time"),
        pytest.param("sleep", lambda ctx: ctx.sleep(0), id="a timer"),
        pytest.param("state/seen", lambda ctx: ctx.state.get("seen"), id="the state"),
        pytest.param("spawn", lambda ctx: ctx.spawn("look"), id="a spawned task"),
        pytest.param("llm/Default", lambda ctx: ctx.llm("why?"), id="a model"),
    ],
)
async def test_every_kind_of_call_needs_room(call: str, wanted: Any) -> None:
    async def main(ctx: Context, task: Task) -> Any:
        return await wanted(ctx)

    store = Narrow(call, False)
    assert await run(store, program_of(main), ScriptedCalls()) is RunOutcome.ENDED
    assert finish_of(store).reason is EndReason.INFRASTRUCTURE
    assert call in finish_of(store).message
    assert not [entry for entry in store.tasks["t1"].entries if isinstance(entry, Intended | Done)]


async def races(ctx: Context, task: Task) -> Any:
    ctx.partial = "so far"
    try:
        raced = await ctx.race({"slow": lambda: ctx.llm("why?"), "quick": lambda: ctx.tool("look")})
    except Exception:
        return "handled"
    await ctx.tool("pay")
    return raced.winner


async def quick_wins(call: Call) -> Reply:
    if call.kind is CallKind.MODEL:
        await asyncio.Event().wait()
    return Reply(outcome=CallOutcome.SUCCEEDED)


@pytest.mark.holds(
    "tasks.md", "A call for whose result its caller's share has no room waits, or ends its task; others go on"
)
async def test_a_choice_for_which_there_is_no_room_ends_the_task() -> None:
    store, calls = Narrow("race/chosen", False), ScriptedCalls(script=quick_wins)
    assert await run(store, program_of(races, PAY, LOOK), calls) is RunOutcome.ENDED
    finish = finish_of(store)
    assert (finish.reason, finish.partial) == (EndReason.INFRASTRUCTURE, "so far")
    assert "no room for the call race/chosen" in finish.message
    assert calls.stopped == ["race/slow/llm/Default"], "the loser is given up all the same"
    results = {entry.call: entry.outcome for entry in store.tasks["t1"].entries if isinstance(entry, Done)}
    assert results == {
        "race/quick/tool/look": CallOutcome.SUCCEEDED,
        "race/slow/llm/Default": CallOutcome.CANCELLED,
    }, "what nobody can read again is acted on by nobody"


@pytest.mark.holds(
    "tasks.md", "A call for whose result its caller's share has no room waits, or ends its task; others go on"
)
async def test_a_choice_waits_until_others_of_its_caller_give_room_back() -> None:
    store, calls = Narrow("race/chosen", True), ScriptedCalls(script=quick_wins)
    assert await run(store, program_of(races, PAY, LOOK), calls) is RunOutcome.ENDED
    assert (finish_of(store).result, calls.made[-1]) == ("quick", "tool/pay")
    order = [entry.call for entry in store.tasks["t1"].entries if isinstance(entry, Done)]
    loser, choice = order.index("race/slow/llm/Default"), order.index("race/chosen")
    assert loser < choice, "the room that the loser kept is given back first"


async def test_calls_keep_room_for_their_results() -> None:
    async def main(ctx: Context, task: Task) -> Any:
        await ctx.tool("look")
        await ctx.retrieve("handbook", "why?")
        return await ctx.llm("why?")

    store = MemoryStore()
    store.submit("t1", "go")
    await run(store, program_of(main, LOOK), ScriptedCalls())
    room = {
        entry.call: entry.reserved_bytes for entry in store.tasks["t1"].entries if isinstance(entry, Intended)
    }
    assert (room["tool/look"], room["retrieve/handbook"]) == (256 * 1024, 64 * 1024)


class Apart(MemoryStore):
    """A store that gives each result without its value, which is kept apart."""

    def __init__(self) -> None:
        super().__init__()
        self.submit("t1", "go")
        self.kept: dict[str, Entry] = {}
        self.fetched: list[str] = []

    def load(self, task_id: str) -> LoadedTask:
        task = super().load(task_id)
        return replace(task, entries=tuple(map(self._without, task.entries)))

    async def whole(self, task_id: str, entry: OneEntry) -> OneEntry:
        assert isinstance(entry, Done | Resolved)
        self.fetched.append(entry.call)
        if entry.call not in self.kept:
            raise BrokenEntryError("its payload is gone")
        return self.kept[entry.call]  # type: ignore[return-value]

    def _without(self, entry: Entry) -> Entry:
        if isinstance(entry, Done):
            self.kept[entry.call] = entry
            return replace(entry, value=None, payload=payload_of(json_text(entry.value)))
        if isinstance(entry, Resolved):
            self.kept[entry.call] = entry
            return replace(entry, result=None, payload=payload_of(json_text(entry.result)))
        return entry


async def asks_twice(ctx: Context, task: Task) -> Any:
    first = await ctx.llm("why?", name="first")
    second = await ctx.llm("and?", name="second")
    return [first.text, second.text]


async def listens(ctx: Context, task: Task) -> Any:
    heard = await ctx.signal("news")
    return [heard, (await ctx.llm("and?", name="second")).text]


async def half_done(main: Any = asks_twice) -> Apart:
    """A task that lost its worker in its second call."""

    async def answer(call: Call) -> Reply:
        if call.id == "second":
            await asyncio.Event().wait()
        return said(f"to {call.id}")

    store, calls = Apart(), ScriptedCalls(script=answer)
    store.signal("t1", "news", "to all")
    lost = begin(store, program_of(main), calls)
    running = asyncio.create_task(lost.run())
    await until(lambda: "second" in calls.made, seconds=5)
    lost.interrupt(Interrupt.LOST)
    assert await running is RunOutcome.LOST
    return store


@pytest.mark.holds("tasks.md", "A resumed task fetches a large text when its agent comes to it")
@pytest.mark.parametrize(
    ("main", "first", "result"),
    [
        pytest.param(asks_twice, "first", ["to first", "to second"], id="an answer"),
        pytest.param(listens, "signal/news", ["to all", "to second"], id="a signal"),
    ],
)
async def test_a_replay_fetches_the_values_that_are_kept_apart(
    main: Any, first: str, result: list[str]
) -> None:
    store = await half_done(main)
    calls = ScriptedCalls(script=lambda call: said(f"to {call.id}"))
    assert await run(store, program_of(main), calls) is RunOutcome.ENDED
    assert (calls.made, store.fetched) == (["second"], [first])
    assert finish_of(store).result == result


@pytest.mark.holds("tasks.md", "A text that is gone or was changed ends its task")
async def test_a_value_that_is_gone_ends_the_task() -> None:
    store = await half_done()
    program = program_of(asks_twice)
    again = begin(store, program, ScriptedCalls())
    store.kept.clear()
    assert await again.run() is RunOutcome.ENDED
    assert finish_of(store).reason is EndReason.INFRASTRUCTURE
    assert "its payload is gone" in finish_of(store).message
