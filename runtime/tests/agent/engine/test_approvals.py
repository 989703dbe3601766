"""An approval is one call: whoever says that it did not happen, it is not made again on the same yes."""

import asyncio
from enum import StrEnum
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_support.memory import MemoryStore
from agent_support.running import ScriptedCalls, config_of, program_of, run, tool_of
from flotilla_runtime.agent import journal
from flotilla_runtime.agent.engine.approvals import must_ask_anew
from flotilla_runtime.agent.engine.context import Context, Task
from flotilla_runtime.agent.engine.run import RunOutcome
from flotilla_runtime.agent.failures import ToolFailedError
from flotilla_runtime.agent.journal import (
    BY_RECONCILE,
    BY_WORKER,
    CallOutcome,
    Done,
    Resolved,
    WaitKind,
)
from flotilla_runtime.agent.protocols import Call, Certainty, Reconciled, Reply
from flotilla_runtime.contract import Approval, Effect, QueueConfig
from flotilla_runtime.contract.approvals import approval_of, approved_call
from router_support.waiting import until

CALL = "tool/pay"


@pytest.mark.holds(
    "tasks.md",
    "An approval is one call: whoever says that an Unsafe call did not happen, it is made again "
    "after an approval of its own; a call that was not begun keeps its approval",
)
@pytest.mark.parametrize(
    ("who", "asks", "follows_approval", "anew"),
    [
        pytest.param("secret:ann", True, False, True, id="a person, of a tool that needs approval"),
        pytest.param("secret:boss", True, False, True, id="one who may approve says no yes by this"),
        pytest.param("anonymous", True, False, True, id="without authentication too"),
        pytest.param("secret:worker", True, False, True, id="a caller with a worker's name is none"),
        pytest.param(BY_RECONCILE, True, False, True, id="the tool itself"),
        pytest.param(None, True, False, True, id="a journal of an older release"),
        pytest.param(BY_WORKER, True, True, False, id="it was not begun"),
        pytest.param("secret:ann", False, True, True, id="after a yes to the agent, a person"),
        pytest.param(None, False, True, True, id="after a yes to the agent, an older release"),
        pytest.param(BY_RECONCILE, False, True, False, id="after a yes to the agent, the tool itself"),
        pytest.param("secret:ann", False, False, False, id="nobody was ever asked"),
        pytest.param(BY_RECONCILE, False, False, False, id="nobody was ever asked, and the tool says so"),
    ],
)
def test_when_somebody_is_asked_anew(who: str | None, asks: bool, follows_approval: bool, anew: bool) -> None:
    assert must_ask_anew(who, asks=asks, follows_approval=follows_approval) is anew


@pytest.mark.parametrize(
    ("call", "of"),
    [
        ("tool/pay#approval", "tool/pay"),
        ("tool/pay#2#approval", "tool/pay#2"),
        ("tool/pay#approval-2", "tool/pay"),
        ("compensate/a#compensation-2#approval-13", "compensate/a#compensation-2"),
        ("approve/plan", "approve/plan"),
        ("approve/plan#2", "approve/plan#2"),
    ],
)
def test_an_approval_names_its_call(call: str, of: str) -> None:
    assert approved_call(call) == of


@given(number=st.integers(1, 10_000))
def test_each_approval_of_a_call_has_a_name_of_its_own(number: int) -> None:
    assert approved_call(approval_of(CALL, number)) == CALL
    assert approval_of(CALL, number) != approval_of(CALL, number + 1)


async def payer(ctx: Context, task: Task) -> Any:
    try:
        return await ctx.tool("pay", {"euro": 5})
    except ToolFailedError as failed:
        return [str(failed.outcome), failed.problem]


async def asking_payer(ctx: Context, task: Task) -> Any:
    decision = await ctx.approve("payment", {"euro": 5})
    return await payer(ctx, task) if decision.approved else "refused"


ASKING = program_of(payer, tool_of("pay", approval=Approval.ALWAYS))
MANY = program_of(
    payer,
    tool_of("pay", approval=Approval.ALWAYS),
    config=config_of(queue=QueueConfig(fleet="default/support", max_attempts=100)),
)
ASKED_BY_AGENT = program_of(asking_payer, tool_of("pay"))


def unanswered(call: Call) -> Reply:
    return Reply(outcome=CallOutcome.TIMED_OUT, problem="no answer", certainty=Certainty.UNKNOWN)


def not_begun(call: Call) -> Reply:
    return Reply(outcome=CallOutcome.FAILED, problem="no thread", certainty=Certainty.NOT_BEGUN)


def submitted() -> MemoryStore:
    store = MemoryStore()
    store.submit("t1", "go")
    return store


def waits(store: MemoryStore) -> tuple[WaitKind, str]:
    waiting = store.tasks["t1"].waits
    assert waiting is not None
    return waiting.kind, waiting.call


async def lost_while_it_pays(store: MemoryStore, program: Any) -> ScriptedCalls:
    """Lose a worker after it has sent the payment."""
    calls = ScriptedCalls(hold=asyncio.Event())
    running = asyncio.create_task(run(store, program, calls))
    await until(lambda: bool(calls.made))
    store.tasks["t1"].token += 1
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    return calls


@pytest.mark.holds(
    "tasks.md",
    "An approval is one call: whoever says that an Unsafe call did not happen, it is made again "
    "after an approval of its own; a call that was not begun keeps its approval",
)
@pytest.mark.parametrize(
    ("program", "first", "anew"),
    [
        pytest.param(ASKING, approval_of(CALL), approval_of(CALL, 2), id="a tool that asks"),
        pytest.param(ASKED_BY_AGENT, "approve/payment", approval_of(CALL, 2), id="an agent that asks"),
    ],
)
@pytest.mark.parametrize("how", ["no answer", "a lost worker"])
async def test_a_call_that_did_not_happen_is_made_again_when_somebody_approves_it_anew(
    program: Any, first: str, anew: str, how: str
) -> None:
    store = submitted()
    await run(store, program, ScriptedCalls())
    assert waits(store) == (WaitKind.APPROVAL, first)
    store.decide("t1", first)
    if how == "no answer":
        assert await run(store, program, ScriptedCalls(script=unanswered)) is RunOutcome.SUSPENDED
    else:
        await lost_while_it_pays(store, program)
        assert await run(store, program, ScriptedCalls()) is RunOutcome.SUSPENDED
    assert waits(store) == (WaitKind.EFFECT, CALL)
    store.resolve("t1", CALL, happened=False)
    for _ in range(2):
        calls = ScriptedCalls()
        assert await run(store, program, calls) is RunOutcome.SUSPENDED
        assert (waits(store), calls.made) == ((WaitKind.APPROVAL, anew), [])
    store.decide("t1", anew)
    assert await run(store, program, calls) is RunOutcome.ENDED
    assert calls.made == [CALL]
    ended = store.tasks["t1"].finish
    assert ended is not None
    assert ended.result == {"euro": 5}


@pytest.mark.holds(
    "tasks.md",
    "An approval is one call: whoever says that an Unsafe call did not happen, it is made again "
    "after an approval of its own; a call that was not begun keeps its approval",
)
@pytest.mark.parametrize("answer", ["refused", "late"])
async def test_a_call_that_nobody_approves_anew_has_failed(answer: str) -> None:
    store = submitted()
    await run(store, ASKING, ScriptedCalls())
    store.decide("t1", approval_of(CALL))
    await run(store, ASKING, ScriptedCalls(script=unanswered))
    store.resolve("t1", CALL, happened=False)
    await run(store, ASKING, ScriptedCalls())
    if answer == "refused":
        store.decide("t1", approval_of(CALL, 2), approved=False, comment="once is enough")
    else:
        store.now_ms += 86_400_000
    calls = ScriptedCalls()
    assert await run(store, ASKING, calls) is RunOutcome.ENDED
    ended = store.tasks["t1"].finish
    assert ended is not None
    problem = {
        "refused": ["Refused", "not called again: boss refused it: once is enough"],
        "late": ["TimedOut", "not called again: nobody decided in time"],
    }[answer]
    assert (ended.result, calls.made) == (problem, [])
    results = [one for one in store.tasks["t1"].entries if isinstance(one, Done) and one.call == CALL]
    assert [str(one.outcome) for one in results] == problem[:1], "so nothing is held for it"


@pytest.mark.holds(
    "tasks.md",
    "An approval is one call: whoever says that an Unsafe call did not happen, it is made again "
    "after an approval of its own; a call that was not begun keeps its approval",
)
@pytest.mark.parametrize(
    ("known", "asked"),
    [
        pytest.param(Reconciled(happened=False), True, id="the tool's reconcile is no approval"),
        pytest.param(Reconciled(happened=False, was_begun=False), False, id="no executor has begun it"),
    ],
)
async def test_a_call_of_a_lost_worker_of_which_the_tool_knows(known: Reconciled, asked: bool) -> None:
    store = submitted()
    await run(store, ASKING, ScriptedCalls())
    store.decide("t1", approval_of(CALL))
    await lost_while_it_pays(store, ASKING)
    calls = ScriptedCalls(known=known)
    outcome = await run(store, ASKING, calls)
    (resolved,) = [one for one in store.tasks["t1"].entries if isinstance(one, Resolved)]
    if asked:
        assert (outcome, waits(store), calls.made) == (
            RunOutcome.SUSPENDED,
            (WaitKind.APPROVAL, approval_of(CALL, 2)),
            [],
        )
    else:
        assert (outcome, calls.made) == (RunOutcome.ENDED, [CALL])
    assert resolved.by == (BY_RECONCILE if asked else BY_WORKER)


@pytest.mark.holds(
    "tasks.md",
    "An approval is one call: whoever says that an Unsafe call did not happen, it is made again "
    "after an approval of its own; a call that was not begun keeps its approval",
)
async def test_a_call_that_this_worker_could_not_begin_keeps_its_approval() -> None:
    store = submitted()
    await run(store, ASKING, ScriptedCalls())
    store.decide("t1", approval_of(CALL))

    assert await run(store, ASKING, ScriptedCalls(script=not_begun)) is RunOutcome.HANDED_OVER
    calls = ScriptedCalls()
    assert await run(store, ASKING, calls) is RunOutcome.ENDED
    assert calls.made == [CALL]


async def test_an_idempotent_call_of_a_lost_worker_goes_again_with_its_key() -> None:
    program = program_of(payer, tool_of("pay", Effect.IDEMPOTENT, approval=Approval.ALWAYS))
    store = submitted()
    await run(store, program, ScriptedCalls())
    store.decide("t1", approval_of(CALL))
    lost, calls = await lost_while_it_pays(store, program), ScriptedCalls()
    assert await run(store, program, calls) is RunOutcome.ENDED
    assert [one.key for one in lost.asked] == [one.key for one in calls.asked]


FATES = st.lists(st.sampled_from(["no answer", "lost", "reconciled", "not begun"]), max_size=6)


@pytest.mark.holds(
    "tasks.md",
    "An approval is one call: whoever says that an Unsafe call did not happen, it is made again "
    "after an approval of its own; a call that was not begun keeps its approval",
)
@settings(max_examples=40, deadline=None)
@given(fates=FATES)
def test_no_payment_without_an_approval_of_its_own(fates: list[str]) -> None:
    """Whatever becomes of a call, and however often: it is sent as often as somebody approved it."""
    asyncio.run(Life().lived(fates))


class Life:
    """A payment that is approved whenever it is asked, and of which everybody says that it did not happen."""

    def __init__(self) -> None:
        self.store = submitted()
        self.approvals = self.sent = 0

    async def lived(self, fates: list[str]) -> None:
        for fate in fates:
            await self.asked_and_approved()
            await self.made(fate)
        await self.asked_and_approved()
        calls = ScriptedCalls()
        assert await run(self.store, MANY, calls) is RunOutcome.ENDED
        assert (calls.made, self.sent + 1) == ([CALL], self.approvals)
        assert self.approvals == 1 + sum(fate != "not begun" for fate in fates)

    async def asked_and_approved(self) -> None:
        """Run the task to where only a decision is missing; a call that was not begun needs none."""
        if self.sent < self.approvals:
            return
        calls = ScriptedCalls()
        await run(self.store, MANY, calls)
        if waits(self.store)[0] is WaitKind.EFFECT:
            self.store.resolve("t1", CALL, happened=False)
            await run(self.store, MANY, calls)
        kind, approval = waits(self.store)
        assert (kind, calls.made) == (WaitKind.APPROVAL, []), "it is not made before"
        assert self.store.decide("t1", approval)
        self.approvals += 1

    async def made(self, fate: str) -> None:
        match fate:
            case "no answer":
                calls = ScriptedCalls(script=unanswered)
                assert await run(self.store, MANY, calls) is RunOutcome.SUSPENDED
            case "not begun":
                calls = ScriptedCalls(script=not_begun)
                assert await run(self.store, MANY, calls) is RunOutcome.HANDED_OVER
            case _:
                calls = await lost_while_it_pays(self.store, MANY)
        if fate == "reconciled":
            await run(self.store, MANY, ScriptedCalls(known=Reconciled(happened=False)))
        assert calls.made == [CALL]
        self.sent += fate != "not begun"


async def test_a_worker_that_cannot_ask_anew_leaves_the_task_to_a_newer_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One of before would find the first approval, and make the call while the new one waits."""
    store = submitted()
    await run(store, ASKING, ScriptedCalls())
    store.decide("t1", approval_of(CALL))
    await run(store, ASKING, ScriptedCalls(script=unanswered))
    store.resolve("t1", CALL, happened=False)
    texts = list(store.tasks["t1"].texts)
    await run(store, ASKING, ScriptedCalls())
    names = {one.name: one.value for one in journal.CallKind if "AGAIN" not in one.name}
    of_before = StrEnum("of_before", names)  # type: ignore[misc]
    monkeypatch.setitem(journal._ENUMS, "kind", of_before)
    newer = [isinstance(journal.decode(text), journal.Other) for text in store.tasks["t1"].texts]
    assert not any(newer[: len(texts)])
    assert any(newer[len(texts) :])
