"""Budgets in the scripts, against a real Redis: reserved, settled, refused, and never leaked.

What a run makes of a refusal is in the tests of the engine.
"""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from redis import Redis

from agent_support.stores import END, done, intent, length, loaded, open_store, running, task, with_lines
from flotilla_runtime.agent.budgets import Amount, Budget, LimitName, Refusal
from flotilla_runtime.agent.journal import CallKind, CallOutcome, Intended
from flotilla_runtime.agent.store.task_store import TaskStore
from flotilla_runtime.agent.tasks import child_id
from flotilla_runtime.contract import TaskLimits
from redis_servers import ADMIN

pytestmark = pytest.mark.services

LIMITS = TaskLimits(max_steps=3, max_tokens=100, max_cost_usd=0.5)
NANO = 1_000_000_000


@pytest.fixture
async def store(redis_server: Any) -> AsyncIterator[TaskStore]:
    opened = await with_lines(open_store(redis_server))
    yield opened
    await opened.close()


async def budget(store: TaskStore, task_id: str) -> Budget:
    found = (await loaded(store, task_id)).budget
    assert found is not None
    return found


async def test_an_intent_reserves_and_its_result_settles(store: TaskStore) -> None:
    claim = await running(store, task("t1", limits=LIMITS))
    asked = intent(reserved_tokens=60, reserved_steps=1, reserved_nano_usd=NANO // 4)
    written = await store.append(claim, 2, [asked])
    assert written.budget == Budget(
        used=Amount(),
        reserved=Amount(steps=1, tokens=60, nano_usd=NANO // 4),
        most_steps=3,
        most_tokens=100,
        most_nano_usd=NANO // 2,
    )
    settled = await store.append(claim, 3, [done(input_tokens=30, output_tokens=12, nano_usd=7)])
    assert settled.budget is not None
    assert (settled.budget.used, settled.budget.reserved) == (
        Amount(steps=1, tokens=42, nano_usd=7),
        Amount(),
    )
    assert (await loaded(store, "t1")).record.used == Amount(steps=1, tokens=42, nano_usd=7)


@pytest.mark.holds("agents.md", "A call that goes to another model is counted there")
async def test_a_call_is_counted_at_the_model_that_it_asks(store: TaskStore) -> None:
    claim = await running(store, task("t1"))
    await store.append(claim, 2, [intent()])
    assert (await store.figures()).calls == {"llama": 1}
    await store.append(claim, 3, [intent(asks="small", spent_tokens=0, spent_nano_usd=0)])
    figures = await store.figures()
    assert (figures.calls, figures.callers) == ({"small": 1}, {"small": 1})
    await store.append(claim, 4, [done(answered_by="small")])
    assert (await store.figures()).calls == {}


@pytest.mark.parametrize(
    ("before", "asked", "refusal"),
    [
        pytest.param(
            [intent(f"a/{number}", reserved_steps=1, reserved_tokens=1) for number in range(3)],
            intent("b", reserved_steps=1, reserved_tokens=1),
            Refusal(call="b", limit=LimitName.STEPS, most=3, committed=3, wanted=1, may_change=False),
            id="a step is never given back, also while others are under way",
        ),
        pytest.param(
            [intent("a", reserved_tokens=60)],
            intent("b", reserved_tokens=41),
            Refusal(call="b", limit=LimitName.TOKENS, most=100, committed=60, wanted=41, may_change=True),
            id="tokens that a call under way holds may be given back",
        ),
        pytest.param(
            [intent("a", reserved_tokens=60), done("a", input_tokens=60)],
            intent("b", reserved_tokens=41),
            Refusal(call="b", limit=LimitName.TOKENS, most=100, committed=60, wanted=41, may_change=False),
            id="tokens that are used are not",
        ),
        pytest.param(
            [intent("a", reserved_nano_usd=NANO // 4)],
            intent("b", reserved_nano_usd=NANO // 2),
            Refusal(call="b", limit=LimitName.COST, most=0.5, committed=0.25, wanted=0.5, may_change=True),
            id="money, told in dollars",
        ),
    ],
)
async def test_an_intent_over_a_limit_is_refused_and_not_written(
    store: TaskStore, before: list[Any], asked: Intended, refusal: Refusal
) -> None:
    claim = await running(store, task("t1", limits=LIMITS))
    first = await store.append(claim, 2, before)
    assert first.refused == ()
    written = await store.append(claim, first.length, [asked])
    assert written.refused == (refusal,)
    assert written.length == first.length == await length(store, "t1")
    assert written.budget == first.budget


async def test_of_calls_that_begin_together_those_are_written_that_fit(store: TaskStore) -> None:
    claim = await running(store, task("t1", limits=LIMITS))
    written = await store.append(claim, 2, [intent(name, reserved_tokens=45) for name in "abc"], "w")
    assert [refusal.call for refusal in written.refused] == ["c"]
    assert [entry.call for entry in (await loaded(store, "t1")).entries[2:]] == ["a", "b"]  # type: ignore[union-attr]
    assert await store.append(claim, 2, [intent("c")], "w") == written, "the same write, the same answer"


async def test_a_call_that_is_made_again_has_used_what_its_lost_try_held(store: TaskStore) -> None:
    claim = await running(store, task("t1", limits=LIMITS))
    asked = intent(reserved_tokens=30, reserved_steps=1, reserved_nano_usd=5)
    await store.append(claim, 2, [asked])
    again = await store.append(claim, 3, [asked])
    assert again.budget is not None
    assert again.budget.used == Amount(steps=0, tokens=30, nano_usd=5), "the step is the same one"
    assert again.budget.reserved == Amount(steps=1, tokens=30, nano_usd=5)
    ended = await store.append(claim, 4, [done(input_tokens=9, nano_usd=1)])
    assert ended.budget is not None
    assert ended.budget.used == Amount(steps=1, tokens=39, nano_usd=6)


@pytest.mark.holds(
    "decisions/0018-model-calls.md",
    "A call whose tries have spent what it reserved settles that, reserves anew, and goes on as "
    "the same step",
)
async def test_a_call_that_goes_on_has_used_what_its_tries_spent(store: TaskStore) -> None:
    claim = await running(store, task("t1", limits=LIMITS))
    await store.append(claim, 2, [intent(reserved_tokens=40, reserved_steps=1, reserved_nano_usd=9)])
    anew = intent(
        reserved_tokens=70, reserved_steps=1, reserved_nano_usd=8, spent_tokens=30, spent_nano_usd=5
    )
    written = await store.append(claim, 3, [anew], "anew")
    assert (written.refused, written.length) == ((), 4)
    assert written.budget is not None
    assert written.budget.used == Amount(steps=0, tokens=30, nano_usd=5), "the step is the same one"
    assert written.budget.reserved == Amount(steps=1, tokens=70, nano_usd=8)
    assert await store.append(claim, 3, [anew], "anew") == written, "the answer was lost: settled once"
    assert (await store.figures()).calls == {"llama": 1}
    await store.append(claim, 4, [done(input_tokens=9, nano_usd=1)])
    found = await budget(store, "t1")
    assert (found.used, found.reserved) == (Amount(steps=1, tokens=39, nano_usd=6), Amount())
    assert (await store.figures()).calls == {}


@pytest.mark.holds(
    "decisions/0018-model-calls.md",
    "Where the limits leave no room for more, it fails, and keeps what it holds until then",
)
async def test_a_call_that_may_not_go_on_keeps_what_it_holds(store: TaskStore) -> None:
    claim = await running(store, task("t1", limits=LIMITS))
    await store.append(claim, 2, [intent(reserved_tokens=40, reserved_steps=1), intent("b")])
    before = await budget(store, "t1")
    anew = intent(reserved_tokens=61, reserved_steps=1, spent_tokens=30, spent_nano_usd=0)
    written = await store.append(claim, 4, [anew])
    (refused,) = written.refused
    assert (refused.limit, refused.committed, refused.may_change) == (LimitName.TOKENS, 40, True)
    assert (written.length, written.budget) == (4, before)
    assert (await store.figures()).calls == {"llama": 2}
    await store.append(claim, 4, [done(input_tokens=30), done("b")])
    found = await budget(store, "t1")
    assert (found.used, found.reserved) == (Amount(steps=1, tokens=30), Amount())


async def test_tries_of_an_unknown_cost_have_used_what_the_call_held(store: TaskStore) -> None:
    claim = await running(store, task("t1", limits=LIMITS))
    await store.append(claim, 2, [intent(reserved_nano_usd=5), intent(reserved_nano_usd=4, spent_tokens=3)])
    record = (await loaded(store, "t1")).record
    assert (record.used.nano_usd, record.is_priced) == (5, False)


async def test_what_a_lost_task_held_counts_once_although_its_call_goes_on(
    store: TaskStore, redis_server: Any
) -> None:
    """Its worker was only cut off, and comes back."""
    claim = await running(store, task("t1", limits=LIMITS))
    await store.append(claim, 2, [intent(reserved_tokens=40, reserved_steps=1)])
    with Redis(port=redis_server.port, username=ADMIN, password=redis_server.password) as client:
        for key, member in ((store.keys.leases, "t1"), (store.keys.workers, "w1")):
            client.zincrby(key, -10_000_000, member)
    assert await store.claim("w2", 0) == []
    anew = intent(reserved_tokens=20, reserved_steps=1, spent_tokens=30, spent_nano_usd=0)
    written = await store.append(claim, await length(store, "t1"), [anew])
    assert written.budget is not None
    assert (written.budget.used.tokens, written.budget.reserved) == (40, Amount(steps=1, tokens=20))


async def test_what_a_lost_task_holds_counts_as_used_before_it_runs_again(
    store: TaskStore, redis_server: Any
) -> None:
    """A suspect may wait long, and the rest of its tree must not wait for what it holds."""
    root = await running(store, task("t1", limits=LIMITS))
    spawned = intent("researcher", kind=CallKind.SPAWN, reserved_tokens=0)
    await store.spawn(root, 2, spawned, "look it up")
    (child,) = await store.claim("w2", 1)
    await store.append(child, 2, [intent("x", reserved_tokens=70, reserved_steps=1)])
    lost = str(child.id)
    with Redis(port=redis_server.port, username=ADMIN, password=redis_server.password) as client:
        for key, member in ((store.keys.leases, lost), (store.keys.workers, "w2")):
            client.zincrby(key, -10_000_000, member)
    assert await store.claim("w3", 0) == [], "this finds that the worker is lost"
    found = await budget(store, "t1")
    assert (found.used.tokens, found.reserved.tokens) == (70, 0)
    refused = await store.append(root, 3, [intent("b", reserved_tokens=40)])
    assert [refusal.may_change for refusal in refused.refused] == [False], "nobody is waited for"
    (again,) = await store.claim("w3", 1)
    await store.append(again, await length(store, lost), [intent("x", reserved_tokens=20, reserved_steps=1)])
    await store.append(again, await length(store, lost), [done("x", input_tokens=9)])
    found = await budget(store, "t1")
    assert (found.used, found.reserved) == (Amount(steps=1, tokens=79), Amount()), "and it counts once"


async def test_a_call_without_a_known_cost_has_used_what_it_held(store: TaskStore) -> None:
    claim = await running(store, task("t1", limits=LIMITS))
    await store.append(claim, 2, [intent(reserved_nano_usd=5), done(input_tokens=1)])
    record = (await loaded(store, "t1")).record
    assert (record.used.nano_usd, record.is_priced) == (5, False)


@pytest.mark.parametrize("end", ["finish", "cancel", "give up"])
async def test_what_a_task_holds_at_its_end_counts_as_used(redis_server: Any, end: str) -> None:
    store = await with_lines(open_store(redis_server, lease_seconds=0.05, max_attempts=0))
    claim = await running(store, task("t1", limits=LIMITS))
    await store.append(claim, 2, [intent("a", reserved_tokens=30, reserved_steps=1), intent("b")])
    if end == "finish":
        await store.finish(claim, END)
    elif end == "cancel":
        await store.release(claim, "w1")
        await store.cancel("t1")
    else:
        await until_given_up(store)
    found = await budget(store, "t1")
    assert (found.used, found.reserved) == (Amount(steps=1, tokens=40), Amount())
    figures = await store.figures()
    assert (figures.calls, figures.callers) == ({}, {})
    await store.close()


async def until_given_up(store: TaskStore) -> None:
    while not (await loaded(store, "t1")).record.status.is_final:
        await store.claim("w2", 1)


async def test_a_spawned_task_knows_the_trace_of_the_one_that_was_submitted(store: TaskStore) -> None:
    given = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    root = await running(store, task("t1", traceparent=given))
    await store.spawn(root, 2, intent("researcher", kind=CallKind.SPAWN, reserved_tokens=0), "look it up")
    (child,) = await store.claim("w2", 1)
    found = (await loaded(store, child.id)).record
    assert (found.traceparent, found.root, found.parent) == (given, "t1", "t1")


async def test_a_tree_has_one_budget_on_its_root(store: TaskStore) -> None:
    root = await running(store, task("t1", limits=LIMITS))
    await store.append(root, 2, [intent("a", reserved_tokens=20)])
    spawned = intent("researcher", kind=CallKind.SPAWN, reserved_tokens=0)
    await store.spawn(root, 3, spawned, "look it up")
    (child,) = await store.claim("w2", 1)
    assert child.id == child_id("t1", "researcher")
    written = await store.append(child, 2, [intent("x", reserved_tokens=70)])
    assert written.budget == await budget(store, "t1") == await budget(store, child.id)
    refused = await store.append(root, 4, [intent("b", reserved_tokens=20)])
    assert [refusal.committed for refusal in refused.refused] == [90]
    await store.append(child, 3, [done("x", input_tokens=33)])
    await store.finish(child, END)
    assert (await loaded(store, child.id)).record.used == Amount(tokens=33)
    await store.append(root, 4, [done("a", input_tokens=7)])
    assert (await loaded(store, "t1")).record.used == Amount(tokens=40), "with what it spawned"
    await store.finish(root, END)
    minute = ((await loaded(store, "t1")).record.ended_at or 0) // 60_000
    counts = {
        name: count for window in await store.windows([minute - 1, minute]) for name, count in window.items()
    }
    assert (counts["tokens"], counts["reason:Completed"]) == (40, 1), "a spawned task is no task of its own"


async def test_a_result_that_is_not_known_to_have_been_asked_for_changes_no_budget(store: TaskStore) -> None:
    claim = await running(store, task("t1", limits=LIMITS))
    before = await budget(store, "t1")
    written = await store.append(claim, 2, [done("never", input_tokens=5, outcome=CallOutcome.FAILED)])
    assert written.budget == before


async def test_calls_under_way_are_counted_by_model(store: TaskStore) -> None:
    claim = await running(store, task("t1"))
    other = await running(store, task("t2"), "w2")
    await store.append(claim, 2, [intent("a"), intent("b"), intent("c", target="small")])
    await store.append(other, 2, [intent("a"), intent("d", kind=CallKind.TOOL, target="weather")])
    figures = await store.figures()
    assert (figures.calls, figures.callers) == ({"llama": 3, "small": 1}, {"llama": 2, "small": 1})
    await store.append(claim, 5, [done("a")])
    await store.release(other, "w2")
    figures = await store.figures()
    assert (figures.calls, figures.callers) == ({"llama": 1, "small": 1}, {"llama": 1, "small": 1})
    (again,) = await store.claim("w3", 1)
    await store.append(again, 6, [intent("a")])
    assert (await store.figures()).calls == {"llama": 2, "small": 1}
    await store.append(again, 7, [intent("a"), done("a")])
    assert (await store.figures()).calls == {"llama": 1, "small": 1}
