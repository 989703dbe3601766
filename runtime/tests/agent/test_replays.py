"""Results that a replay keeps, and effects it would repeat. The gateway's answers: test_replaying.py."""

from typing import Any

import pytest

from agent_support.memory import MemoryStore
from agent_support.running import ScriptedCalls, program_of, run, said, tool_of
from flotilla_runtime.agent.engine.context import Context, Task
from flotilla_runtime.agent.journal import (
    CallKind,
    CallOutcome,
    Claimed,
    Done,
    Entry,
    Intended,
    Other,
    Submitted,
    encode,
)
from flotilla_runtime.agent.protocols import Call, Reply
from flotilla_runtime.agent.replays import (
    NewerJournalError,
    Replay,
    UnknownCallError,
    effects_of,
    replay_of,
)
from flotilla_runtime.contract import Effect

BEGIN: list[Entry] = [Submitted(at=1), Claimed(at=2, worker="w", attempt=1)]


def begun(call: str, kind: CallKind = CallKind.TOOL, **fields: Any) -> Intended:
    effect = Effect.PURE if kind is CallKind.TOOL else None
    defaults: dict[str, Any] = {"step": 3, "reserved_tokens": 9, "effect": effect}
    return Intended(**{"at": 5, "call": call, "kind": kind, "target": call, **defaults, **fields})


def ended(call: str, outcome: CallOutcome = CallOutcome.SUCCEEDED, **fields: Any) -> Done:
    return Done(**{"at": 6, "call": call, "outcome": outcome, "took_ms": 7, "input_tokens": 8, **fields})


def made(call: str, outcome: CallOutcome = CallOutcome.SUCCEEDED, **fields: Any) -> list[Entry]:
    return [begun(call, **fields), ended(call, outcome)]


def unsafe(call: str, outcome: CallOutcome = CallOutcome.SUCCEEDED) -> list[Entry]:
    return made(call, outcome, effect=Effect.UNSAFE)


def approved(call: str, outcome: CallOutcome = CallOutcome.SUCCEEDED) -> list[Entry]:
    return made(call, outcome, kind=CallKind.APPROVE)


def kept(replay: Replay) -> list[str]:
    return [entry.call for entry in replay.kept if isinstance(entry, Done)]


def effects(replay: Replay) -> list[str]:
    return [intent.call for intent in replay.effects]


FAILED, TIMED_OUT, CANCELLED = CallOutcome.FAILED, CallOutcome.TIMED_OUT, CallOutcome.CANCELLED


@pytest.mark.holds(
    "tasks.md",
    "A replay begins with the results up to a call, or with all but what ended the task, and they "
    "cost nothing",
)
@pytest.mark.parametrize(
    ("entries", "stays", "again"),
    [
        pytest.param([*made("a"), *made("b")], ["a", "b"], [], id="all has succeeded: the agent's own fault"),
        pytest.param([*unsafe("a"), *made("b", FAILED)], ["a"], [], id="what failed at the end is made anew"),
        pytest.param(
            [*made("a", FAILED), *made("b"), *made("c", FAILED)],
            ["a", "b"],
            [],
            id="what failed before was handled, and stays",
        ),
        pytest.param([*made("a"), begun("b")], ["a"], [], id="a call without a result is made anew"),
        pytest.param(
            [*made("a"), begun("pay", effect=Effect.UNSAFE)],
            ["a"],
            ["pay"],
            id="an Unsafe one without a result may have happened",
        ),
        pytest.param([*unsafe("pay", TIMED_OUT)], [], ["pay"], id="so may one that took too long"),
        pytest.param(
            [*made("mail", FAILED, effect=Effect.IDEMPOTENT)],
            [],
            ["mail"],
            id="an Idempotent one has another key in another task",
        ),
        pytest.param([*unsafe("pay", CallOutcome.INVALID)], [], [], id="wrong arguments: nothing was called"),
        pytest.param(
            [*made("a"), *unsafe("pay", CallOutcome.NOT_HAPPENED), *made("b")],
            ["a", "b"],
            [],
            id="somebody said that it did not happen",
        ),
        pytest.param(
            [begun("a"), begun("b"), ended("a", FAILED), ended("b", CANCELLED)],
            [],
            [],
            id="branches that were given up with the one that failed",
        ),
        pytest.param(
            [begun("a"), begun("a"), ended("a"), *made("b", FAILED)],
            ["a"],
            [],
            id="a call that was lost once has one result",
        ),
    ],
)
def test_without_a_call_what_ended_the_task_is_made_anew(
    entries: list[Entry], stays: list[str], again: list[str]
) -> None:
    replay = replay_of([*BEGIN, *entries])
    assert (kept(replay), effects(replay)) == (stays, again)


@pytest.mark.holds(
    "tasks.md",
    "A replay begins with the results up to a call, or with all but what ended the task, and they "
    "cost nothing",
)
@pytest.mark.parametrize(
    ("entries", "stays", "again"),
    [
        pytest.param([*unsafe("a"), *unsafe("x"), *unsafe("c")], ["a"], ["x", "c"], id="and all after it"),
        pytest.param(
            [begun("a"), begun("x"), ended("x"), ended("a"), *made("c")],
            ["a"],
            [],
            id="what had begun before it and ended after it stays",
        ),
        pytest.param([begun("a"), *made("x")], [], [], id="what has no result does not"),
        pytest.param([*made("a", FAILED), *made("x")], ["a"], [], id="a failure that was handled does"),
    ],
)
def test_from_a_call_on_everything_is_made_anew(
    entries: list[Entry], stays: list[str], again: list[str]
) -> None:
    replay = replay_of([*BEGIN, *entries], "x")
    assert (kept(replay), effects(replay)) == (stays, again)


@pytest.mark.holds("tasks.md", "A replay takes no approval over for who may not approve")
@pytest.mark.parametrize(
    ("entries", "stays", "taken_over"),
    [
        pytest.param(
            [*approved("pay#approval"), *unsafe("pay"), *made("x")],
            ["pay#approval", "pay"],
            [],
            id="an approval stays with the result of its call",
        ),
        pytest.param(
            [*approved("x#approval"), *unsafe("x")], [], [], id="a call that is made anew is asked for anew"
        ),
        pytest.param(
            [*approved("pay#approval"), *made("x")],
            [],
            [],
            id="so is one that was not made, or each replay would make it",
        ),
        pytest.param(
            [*approved("pay#approval"), *approved("pay#approval-2"), *unsafe("pay"), *made("x")],
            ["pay#approval", "pay#approval-2", "pay"],
            [],
            id="two approvals of a call that was made again stay with its result",
        ),
        pytest.param(
            [*approved("x#approval"), *approved("x#approval-2"), *unsafe("x")],
            [],
            [],
            id="neither of them holds for the call that is made anew",
        ),
        pytest.param(
            [*approved("no#approval", CallOutcome.REFUSED), *made("x")],
            ["no#approval"],
            [],
            id="a refusal stays",
        ),
        pytest.param(
            [*approved("approve/plan"), *made("x")],
            ["approve/plan"],
            ["approve/plan"],
            id="what an agent asked by itself would hold for the new task",
        ),
    ],
)
def test_an_approval_holds_for_one_call_of_one_task(
    entries: list[Entry], stays: list[str], taken_over: list[str]
) -> None:
    replay = replay_of([*BEGIN, *entries], "x")
    assert (kept(replay), list(replay.approvals)) == (stays, taken_over)


def test_a_spawned_task_that_failed_is_done_again_and_named() -> None:
    failed: list[Entry] = [begun("s", CallKind.SPAWN, child="c"), ended("s", value={"status": "Failed"})]
    good: list[Entry] = [begun("t", CallKind.SPAWN, child="d"), ended("t", value={"status": "Succeeded"})]
    replay = replay_of([*BEGIN, *good, *failed])
    assert (kept(replay), [intent.child for intent in replay.spawned]) == (["t"], ["c"])
    again = effects_of([*BEGIN, *unsafe("pay"), *good])
    assert (effects(again), [intent.child for intent in again.spawned]) == (["pay"], ["d"])


@pytest.mark.holds(
    "tasks.md",
    "A replay begins with the results up to a call, or with all but what ended the task, and they "
    "cost nothing",
)
def test_what_is_kept_costs_nothing_and_takes_no_signal() -> None:
    entries = [*BEGIN, begun("a", reserved_steps=1), ended("a", nano_usd=5, output_tokens=3, signal="s1")]
    intent, done = replay_of(entries).kept
    assert isinstance(intent, Intended)
    assert isinstance(done, Done)
    assert (intent.step, intent.reserved_steps, intent.reserved_tokens) == (0, 0, 0)
    assert (done.input_tokens, done.output_tokens, done.nano_usd, done.took_ms) == (0, 0, None, 0)
    assert done.signal is None
    assert [encode(entry).index('"at":0') > 0 for entry in (intent, done)] == [True, True]


def test_a_call_that_was_not_made_and_a_newer_journal_are_refused() -> None:
    with pytest.raises(UnknownCallError):
        replay_of(BEGIN, "x")
    with pytest.raises(NewerJournalError):
        replay_of([*BEGIN, Other(at=3)])


@pytest.mark.holds(
    "tasks.md",
    "A replay begins with the results up to a call, or with all but what ended the task, and they "
    "cost nothing",
)
async def test_a_replayed_task_goes_on_from_the_results_that_it_has() -> None:
    async def agent(ctx: Context, task: Task) -> Any:
        paid = await ctx.tool("pay", {"euro": 5})
        return [paid, (await ctx.llm("thank them")).text]

    def broken(call: Call) -> Reply:
        failing = Reply(outcome=CallOutcome.FAILED, problem="503")
        return failing if call.kind is CallKind.MODEL else Reply(outcome=CallOutcome.SUCCEEDED, value="paid")

    program, store = program_of(agent, tool_of("pay")), MemoryStore()
    for name in ("t1", "t2"):
        store.submit(name, "go")
    await run(store, program, ScriptedCalls(script=broken))
    finish = store.tasks["t1"].finish
    assert finish is not None
    assert finish.reason == "ModelFailed"
    store.tasks["t2"].texts += [encode(entry) for entry in replay_of(store.tasks["t1"].entries).kept]
    calls = ScriptedCalls(script=lambda call: said("thanks"))
    await run(store, program, calls, "t2")
    finish = store.tasks["t2"].finish
    assert finish is not None
    assert (calls.made, finish.result) == (["llm/Default"], ["paid", "thanks"])


@pytest.mark.holds(
    "graphs.md", "A replay keeps no result of a graph, and names the effects that would happen again"
)
@pytest.mark.parametrize("start", [None, "langgraph/pay:574d/tool/pay@c1"])
def test_a_replay_of_a_graph_keeps_none_of_its_results(start: str | None) -> None:
    """Its nodes have other runs in another task, so what is kept would not be found, and be made again."""
    pay, asked = "langgraph/pay:574d/tool/pay@c1", "approve/langgraph/3935"
    entries = [
        *BEGIN,
        *made("other"),
        *approved(asked),
        *unsafe(pay),
        *made("langgraph/end:99ab/llm/Default@1"),
    ]
    replay = replay_of(entries, start)
    assert (kept(replay), effects(replay), replay.approvals) == (["other"], [pay], ())
