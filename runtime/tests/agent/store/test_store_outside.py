"""Answers from outside for a task, against a real Redis: decisions on its approvals, and signals."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from agent_support.stores import END, done, intent, length, loaded, open_store, running, task, with_lines
from flotilla_runtime.agent.errors import LeaseLostError
from flotilla_runtime.agent.journal import CallKind, CallOutcome, Intended, TaskStatus, WaitKind
from flotilla_runtime.agent.protocols import Came, Waits
from flotilla_runtime.agent.store.gateway_tasks import MOST_SIGNAL_BYTES, MOST_SIGNALS
from flotilla_runtime.agent.store.task_store import TaskStore
from flotilla_runtime.agent.tasks import (
    ApproveOutcome,
    Claim,
    Decision,
    ResolveOutcome,
    SignalOutcome,
    Verdict,
    child_id,
)

pytestmark = pytest.mark.services

FAR = 4_000_000_000_000
YES = Decision(approved=True, by="boss", comment="go")
NO = Decision(approved=False, by="other")
PAY = Waits(kind=WaitKind.APPROVAL, call="pay", until=FAR)
NEWS = Waits(kind=WaitKind.SIGNAL, call="news", until=FAR)


@pytest.fixture
async def store(redis_server: Any) -> AsyncIterator[TaskStore]:
    opened = await with_lines(open_store(redis_server))
    yield opened
    await opened.close()


def asking(call: str = "pay", until: int = FAR) -> Intended:
    return intent(call, kind=CallKind.APPROVE, target="pay", reserved_tokens=0, until=until)


def listening(call: str = "news", until: int = FAR, name: str = "news") -> Intended:
    return intent(call, kind=CallKind.SIGNAL, target=name, reserved_tokens=0, until=until)


async def waiting(store: TaskStore, *intents: Intended, name: str = "t1") -> Claim:
    """A running task that has these calls in its journal."""
    claim = await running(store, task(name))
    await store.append(claim, 2, intents)
    return claim


async def suspended(store: TaskStore, claim: Claim, waits: Waits) -> None:
    assert await store.suspend(claim, await length(store, claim.id), waits)


async def decided(store: TaskStore, decision: Decision, call: str = "pay", name: str = "t1") -> Verdict:
    return await store.approve(name, call, decision)


async def sent(store: TaskStore, value: Any, name: str = "news", request: str | None = None) -> SignalOutcome:
    return await store.signal("t1", name, value, request or f"r{value}")


async def test_a_task_that_waits_for_approval_is_found_and_goes_on_when_somebody_decides(
    store: TaskStore,
) -> None:
    await suspended(store, await waiting(store, asking()), PAY)
    figures = await store.figures()
    assert (figures.suspended, figures.waiting_for_approval) == (1, 1)
    assert await store.ids(None, None, 9, approvals=True) == ["t1"]
    verdict = await decided(store, YES)
    assert verdict.decision is not None
    assert (verdict.outcome, verdict.decision.is_same(YES)) == (ApproveOutcome.DECIDED, True)
    figures = await store.figures()
    assert (figures.waiting, figures.suspended, figures.waiting_for_approval) == (1, 0, 0)
    assert await store.ids(None, None, 9, approvals=True) == []
    (claim,) = await store.claim("w2", 1)
    came = await store.came(claim, "pay", ())
    assert came is not None
    assert came.value == {"approved": True, "by": "boss", "comment": "go", "at": verdict.decision.at}
    assert await store.came(claim, "pay", ()) == came, "it stays until the result is written"


async def to_approve(store: TaskStore) -> list[str]:
    """The tasks found; the gateway asks of each whether there is still something to decide."""
    found = await store.ids(None, None, 9, approvals=True)
    assert (await store.to_approve(found)).keys() == set(found)
    assert (await store.figures()).waiting_for_approval == len(found)
    return found


@pytest.mark.holds(
    "tasks.md",
    "Who may approve finds and reads a task from the call's intent until nothing of it is to be "
    "decided, whatever else it does",
)
async def test_an_approval_is_found_from_its_intent_on_whatever_else_the_task_does(store: TaskStore) -> None:
    claim = await waiting(store, asking(), asking("pay#2"), listening(), intent("slow"))
    assert await to_approve(store) == ["t1"], "while other calls run"
    await suspended(store, claim, NEWS)
    assert await to_approve(store) == ["t1"], "while it waits for something else"
    await sent(store, 1)
    assert await to_approve(store) == ["t1"], "and for a worker"
    await decided(store, YES)
    assert await to_approve(store) == ["t1"], "the other call is to be decided"
    await store.claim("w2", 1)
    await decided(store, NO, "pay#2")
    assert await to_approve(store) == [], "nothing is"


@pytest.mark.holds(
    "tasks.md",
    "Who may approve finds and reads a task from the call's intent until nothing of it is to be "
    "decided, whatever else it does",
)
async def test_an_approval_that_is_given_up_or_late_is_found_no_more(store: TaskStore) -> None:
    until = (await loaded(store, (await running(store, task("t0"))).id)).read_at + 300
    claim = await waiting(store, asking(until=until), asking("pay#2"), intent("slow"))
    await store.append(claim, 5, [done("pay#2", outcome=CallOutcome.CANCELLED)])
    assert await to_approve(store) == ["t1"]
    await asyncio.sleep(0.32)
    assert await store.to_approve(["t1"]) == {}, "before anybody has noticed"
    assert await store.came(claim, "pay", ()) == Came(is_late=True)
    assert await to_approve(store) == []


@pytest.mark.holds(
    "tasks.md",
    "Who may approve finds and reads a task from the call's intent until nothing of it is to be "
    "decided, whatever else it does",
)
@pytest.mark.parametrize("how", ["finished", "cancelled", "forgotten"])
async def test_a_task_that_has_ended_is_not_to_be_approved(redis_server: Any, how: str) -> None:
    store = await with_lines(open_store(redis_server, result_ttl_seconds=0, journal_ttl_seconds=0))
    claim = await waiting(store, asking(), asking("pay#2"))
    if how == "cancelled":
        await suspended(store, claim, PAY)
        await store.cancel("t1")
    else:
        await store.finish(claim, END)
    if how == "forgotten":
        assert await store.forget_ended() == 1
    assert await to_approve(store) == []
    assert await store.to_approve(["t1"]) == {}
    await store.close()


@pytest.mark.holds(
    "tasks.md",
    "Who may approve finds and reads a task from the call's intent until nothing of it is to be "
    "decided, whatever else it does",
)
async def test_a_task_whose_approval_a_worker_of_before_asked_for_is_found_once_suspended(
    store: TaskStore, redis_server: Any
) -> None:
    claim = await waiting(store, asking())
    redis_server.ask("zrem", store.keys.approvals, "t1")  # that worker does not add it
    assert (await store.to_approve(["t1"])).keys() == {"t1"}, "it can be read"
    await suspended(store, claim, PAY)
    assert await to_approve(store) == ["t1"]
    await decided(store, YES)
    assert await to_approve(store) == []


@pytest.mark.holds("tasks.md", "Nobody decides without the verb, twice, too late or unasked")
async def test_the_first_decision_stands_whoever_comes_second(store: TaskStore) -> None:
    await suspended(store, await waiting(store, asking()), PAY)
    both = await asyncio.gather(decided(store, YES), decided(store, NO))
    (first, second) = (verdict.decision for verdict in both)
    assert first == second
    assert first is not None
    assert (await decided(store, YES)).decision == first
    claim = (await store.claim("w2", 1))[0]
    await store.append(claim, await length(store, "t1"), [done("pay")])
    assert (await decided(store, NO)).decision == first, "also when the task has gone on"
    await store.finish(claim, END)
    assert (await decided(store, NO)).decision == first, "and ended"


async def test_a_running_task_hears_of_a_decision_and_keeps_its_place(store: TaskStore) -> None:
    claim = await waiting(store, asking())
    assert await store.came(claim, "pay", ()) is None
    before = await length(store, "t1")
    await decided(store, NO)
    assert await length(store, "t1") == before, "the journal is the worker's"
    came = await store.came(claim, "pay", ())
    assert came is not None
    assert came.value["approved"] is False
    assert not await store.suspend(claim, before, PAY), "it has come already"


@pytest.mark.holds("tasks.md", "Nobody decides without the verb, twice, too late or unasked")
async def test_what_comes_too_late_changes_nothing(store: TaskStore) -> None:
    until = (await loaded(store, (await running(store, task("t0"))).id)).read_at + 100
    claim = await waiting(store, asking(until=until), listening(until=until))
    await asyncio.sleep(0.12)
    assert (await decided(store, YES)).outcome is ApproveOutcome.LATE
    assert (await decided(store, YES)).outcome is ApproveOutcome.LATE
    assert await store.came(claim, "pay", ()) == Came(is_late=True)
    assert await store.came(claim, "news", ()) == Came(is_late=True)
    await store.append(claim, 4, [done("pay", outcome=CallOutcome.TIMED_OUT)])
    assert (await decided(store, YES)).outcome is ApproveOutcome.LATE


async def test_nobody_decides_on_what_was_not_asked(store: TaskStore) -> None:
    claim = await waiting(store, listening())
    assert (await decided(store, YES, name="nobody")).outcome is ApproveOutcome.UNKNOWN
    for call in ("pay", "news"):
        assert (await decided(store, YES, call)).outcome is ApproveOutcome.NOT_ASKED
    await store.append(claim, 3, [asking()])
    await store.finish(claim, END)
    assert (await decided(store, YES)).outcome is ApproveOutcome.NOT_ASKED, "the task has ended"
    assert await store.resolve("t1", "pay", happened=True, by="ann") is ResolveOutcome.NOTHING_UNKNOWN


async def test_a_stale_holder_hears_nothing(store: TaskStore) -> None:
    claim = await waiting(store, asking())
    await suspended(store, claim, PAY)
    await decided(store, YES)
    await store.claim("w2", 1)
    with pytest.raises(LeaseLostError):
        await store.came(claim, "pay", ())


@pytest.mark.holds("agent-code.md", "A task that waits for an approval and a child is woken by both")
async def test_a_child_wakes_a_task_that_waits_for_approval_too(store: TaskStore) -> None:
    claim = await waiting(store, asking())
    await store.spawn(claim, 3, intent("s", kind=CallKind.SPAWN, reserved_tokens=0), "look")
    child = child_id("t1", "s")
    await suspended(store, claim, Waits(kind=WaitKind.APPROVAL, call="pay", until=FAR, children=(child,)))
    (spawned,) = await store.claim("w2", 1)
    await store.finish(spawned, END)
    assert (await loaded(store, "t1")).record.status is TaskStatus.WAITING


@pytest.mark.holds(
    "tasks.md", "A signal is kept until one call has taken it, within bounds, and wakes the task"
)
async def test_signals_are_kept_until_a_call_has_taken_them(store: TaskStore) -> None:
    claim = await running(store, task("t1"))
    assert [await sent(store, value) for value in (1, 2)] == [SignalOutcome.KEPT] * 2
    assert await sent(store, "x", "other") is SignalOutcome.KEPT
    await store.append(claim, 2, [listening("a"), listening("b")])
    one = await store.came(claim, "a", ())
    two = await store.came(claim, "b", (one.signal,) if one and one.signal else ())
    assert (one, two) == (Came(value=1, signal="r1"), Came(value=2, signal="r2"))
    await store.append(claim, 4, [done("a", signal="r1"), done("b", signal="r2")], "w")
    await store.append(claim, 4, [done("a", signal="r1"), done("b", signal="r2")], "w")
    await store.append(claim, 6, [listening("c")])
    assert await store.came(claim, "c", ()) is None
    assert not await store.suspend(claim, 7, Waits(kind=WaitKind.TIMER, call="s", until=1))


@pytest.mark.holds(
    "tasks.md", "A signal is kept until one call has taken it, within bounds, and wakes the task"
)
async def test_a_signal_wakes_the_task_that_waits_for_its_name(store: TaskStore) -> None:
    await suspended(store, await waiting(store, listening()), NEWS)
    await sent(store, 1, "other")
    assert (await loaded(store, "t1")).record.status is TaskStatus.SUSPENDED
    await sent(store, {"two": [2]})
    assert (await loaded(store, "t1")).record.status is TaskStatus.WAITING
    (claim,) = await store.claim("w2", 1)
    came = await store.came(claim, "news", ())
    assert came is not None
    assert came.value == {"two": [2]}


async def test_a_signal_whose_answer_was_lost_is_one(store: TaskStore) -> None:
    claim = await waiting(store, listening())
    for _ in range(2):
        assert await sent(store, 1) is SignalOutcome.KEPT
    await store.append(claim, 3, [done("news", signal="r1"), listening("again")])
    assert await sent(store, 1) is SignalOutcome.KEPT
    assert await store.came(claim, "again", ()) is None


@pytest.mark.holds(
    "tasks.md", "A signal is kept until one call has taken it, within bounds, and wakes the task"
)
async def test_signals_are_bounded_by_count_and_bytes_and_go_with_their_task(store: TaskStore) -> None:
    claim = await waiting(store, listening())
    before = (await store.figures()).stored_bytes
    assert await sent(store, "x" * MOST_SIGNAL_BYTES, request="big") is SignalOutcome.TOO_MANY
    for number in range(MOST_SIGNALS):
        assert await sent(store, number) is SignalOutcome.KEPT
    assert await sent(store, MOST_SIGNALS) is SignalOutcome.TOO_MANY
    assert (await store.figures()).stored_bytes > before + 100 * MOST_SIGNALS
    await store.append(claim, 3, [done("news", signal="r0")])
    assert await sent(store, MOST_SIGNALS) is SignalOutcome.KEPT
    await store.finish(claim, END)
    assert await sent(store, "new") is SignalOutcome.ENDED
    assert await store.signal("nobody", "news", 1, "r") is SignalOutcome.UNKNOWN


@pytest.mark.parametrize(
    ("percent", "size", "outcome"),
    [(100, 200_000, SignalOutcome.STORE_FULL), (10, 50_000, SignalOutcome.CALLER_STORE_FULL)],
)
async def test_signals_stop_where_submissions_stop(
    redis_server: Any, percent: float, size: int, outcome: SignalOutcome
) -> None:
    limits: dict[str, Any] = {"max_stored_mib": 0.1, "queue_percent": percent}
    narrow = await with_lines(open_store(redis_server, **limits))
    await running(narrow, task("t1"))
    assert await sent(narrow, "x" * size, request="big") is outcome
    await narrow.close()


async def test_nothing_is_left_of_a_forgotten_task(redis_server: Any) -> None:
    store = await with_lines(open_store(redis_server, result_ttl_seconds=0, journal_ttl_seconds=0))
    claim = await waiting(store, asking(), listening())
    await decided(store, YES)
    await sent(store, 1, "other")
    await store.finish(claim, END)
    await asyncio.sleep(0.01)
    assert await store.forget_ended() == 1
    assert (await store.figures()).stored_bytes == 0
    assert redis_server.ask("keys", "*t1*").split() == []
    await store.close()
