"""Messages to actors in a real Redis: order, bounds, who is refused, tenants, budgets, what outlives whom.

What a handler does with them is tested in patterns/test_actor.py.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from agent_support.crashing import CrashingJournal
from agent_support.memory import CrashError, CrashPoints
from agent_support.running import ScriptedCalls, program_of, said, tool_of
from agent_support.stores import END, intent, open_store, running, task
from flotilla_runtime.agent.actors import Address, Delivery
from flotilla_runtime.agent.budgets import LimitName, MessageRefusal
from flotilla_runtime.agent.engine.run import Clock, Means, TaskRun
from flotilla_runtime.agent.journal import CallKind, EndReason, TaskStatus, WaitKind
from flotilla_runtime.agent.protocols import Post, StateOperation, StateRequest, Waits, Written
from flotilla_runtime.agent.store.task_store import TaskStore
from flotilla_runtime.agent.tasks import CancelOutcome, Claim, child_id
from flotilla_runtime.agents import Context, Task, Turn
from flotilla_runtime.contract import Effect, TaskLimits
from flotilla_runtime.gateway.replays import cannot_be_replayed

pytestmark = pytest.mark.services

SENDER = "01jd0000000000000000000001"
OTHER = "01jd0000000000000000000002"
LEASE_SECONDS = 0.05


@pytest.fixture
async def store(redis_server: Any) -> AsyncIterator[TaskStore]:
    opened = open_store(redis_server)
    yield opened
    await opened.close()


def post(name: str = "one", *, mailbox: int = 100, is_asked: bool = False) -> Post:
    delivery = Delivery(to=Address(name=name, handler="m:h"))
    return Post(agent="", delivery=delivery, text='"hi"', mailbox=mailbox, is_asked=is_asked)


async def sent(store: TaskStore, claim: Claim, call: str, what: Post, at: int) -> Written:
    told = intent(
        call,
        kind=CallKind.SPAWN if what.is_asked else CallKind.TELL,
        target="one",
        reserved_tokens=0,
        reserved_steps=1,
        child=child_id(claim.id, call),
    )
    return await store.deliver(claim, at, told, what)


@pytest.mark.holds(
    "patterns.md",
    "Messages are handed out one at a time; those that wait, and actors without messages, cost no worker",
)
async def test_messages_are_handed_out_one_at_a_time_in_order_and_cost_no_worker_while_they_wait(
    store: TaskStore,
) -> None:
    sender = await running(store, task(SENDER))
    for number in range(3):
        await sent(store, sender, f"t{number}", post(), 2 + number)
    figures = await store.figures()
    assert (figures.waiting, figures.counts[""].suspended) == (1, 2)
    loaded = await store.load(child_id(SENDER, "t0"))
    assert loaded is not None
    refusal = cannot_be_replayed(loaded)
    assert refusal is not None
    assert "a message for the actor one; have it sent anew" in str(refusal.detail)
    for number in range(3):
        (claim,) = await store.claim("w", 8)
        assert claim.id == child_id(SENDER, f"t{number}")
        (record,) = await store.records([claim.id])
        assert record.actor is not None
        assert (record.actor.to.name, record.input) == ("one", '"hi"')
        await store.finish(claim, END)
    assert await store.claim("w", 8) == []


async def test_a_message_is_sent_once_however_often_the_write_is(store: TaskStore) -> None:
    sender = await running(store, task(SENDER))
    told = intent("t", kind=CallKind.TELL, reserved_tokens=0, child=child_id(SENDER, "t"))
    first = await store.deliver(sender, 2, told, post(), "w1")
    assert await store.deliver(sender, 2, told, post(), "w1") == first
    await store.release(sender, "w1")
    again = next(claim for claim in await store.claim("w2", 8) if claim.id == SENDER)
    await store.deliver(again, 5, told, post())
    assert (await store.figures()).counts[""].suspended == 0


@pytest.mark.holds(
    "patterns.md",
    "A message to an actor that has ended, or whose parent has, is refused; one that waited ends "
    "as ActorEnded",
)
@pytest.mark.parametrize(
    ("what", "limit"),
    [
        (post(mailbox=1), MessageRefusal.MAILBOX_FULL),
        (post("gone"), MessageRefusal.ACTOR_ENDED),
        (post("gone/child"), MessageRefusal.ACTOR_ENDED),
        (post("other", is_asked=True), LimitName.DEPTH),
    ],
)
async def test_what_an_actor_does_not_take_is_in_no_journal(store: TaskStore, what: Post, limit: Any) -> None:
    sender = await running(store, task(SENDER, limits=TaskLimits(max_depth=0)))
    await sent(store, sender, "t", post(), 2)
    await ended(store, sender, "gone", 3)
    written = await sent(store, sender, "u", what, 5)
    assert [refused.limit for refused in written.refused] == [limit]
    assert (written.length, await store.load(child_id(SENDER, "u"))) == (5, None)


async def ended(store: TaskStore, claim: Claim, name: str, at: int) -> Written:
    request = StateRequest(
        agent="#actors", operation=StateOperation.PUT, key=f"ended/{name}", value='{"reason":"x"}'
    )
    return await store.state(claim, at, intent("s", kind=CallKind.STATE, reserved_tokens=0), request)


@pytest.mark.holds(
    "patterns.md", "An actor keeps its state between tasks; that of another tenant or agent is another one"
)
@pytest.mark.attack("An agent sends a message to an actor of another tenant")
@pytest.mark.parametrize("other", [post(mailbox=1), post("gone", mailbox=1)])
async def test_an_actor_of_another_tenant_is_another_one(store: TaskStore, other: Post) -> None:
    """Neither its mailbox nor its end is that of the same address for ann."""
    ann = await running(store, task(SENDER))
    await sent(store, ann, "t", post(), 2)
    await ended(store, ann, "gone", 3)
    assert (await sent(store, ann, "u", other, 5)).refused != ()
    await store.submit(task(OTHER, caller="bob"))
    bob = next(claim for claim in await store.claim("w2", 8) if claim.id == OTHER)
    assert (await sent(store, bob, "t", other, 2)).refused == ()
    theirs, ours = await store.records([child_id(SENDER, "t"), child_id(OTHER, "t")])
    assert theirs.conversation != ours.conversation


@pytest.mark.holds(
    "patterns.md", "An actor keeps its state between tasks; that of another tenant or agent is another one"
)
async def test_an_actor_of_another_agent_is_another_one(store: TaskStore) -> None:
    ann = await running(store, task(SENDER))
    await sent(store, ann, "t", post(mailbox=1), 2)
    await sent(store, ann, "u", replace(post(mailbox=1), agent="orders"), 3)
    first, second = await store.records([child_id(SENDER, "t"), child_id(SENDER, "u")])
    assert first.conversation != second.conversation


@pytest.mark.holds("patterns.md", "A tenant's actors have bounds of their own")
async def test_actors_have_bounds_of_their_own(store: TaskStore, monkeypatch: pytest.MonkeyPatch) -> None:
    module = "flotilla_runtime.agent.store.worker_tasks"
    monkeypatch.setattr(f"{module}.MOST_STATE_KEYS", 0)
    monkeypatch.setattr(f"{module}.MOST_ACTOR_KEYS", 2)
    claim = await running(store, task(SENDER))
    told = [await ended(store, claim, name, 2 + 2 * place) for place, name in enumerate("abc")]
    assert [written.done.problem for written in told if written.done] == [
        None,
        None,
        "the state of this tenant and agent has 2 keys, or 16777216 bytes, at most",
    ]


@pytest.mark.holds(
    "patterns.md",
    "When an actor ends, what is kept below it goes with its bytes, also what is written at that time",
)
async def test_an_end_gives_back_the_room_of_all_that_is_kept_below_it(store: TaskStore) -> None:
    claim = await running(store, task(SENDER))
    await ended(store, claim, "house", 2)
    await store.finish(claim, END)
    alone = await kept_in(store, "ann")
    await store.submit(task(OTHER, caller="bob"))
    (other,) = await store.claim("w2", 8)
    keys = ("actor/house", "actor/house/one", "actor/house/one/two", "ended/house/three")
    for place, key in enumerate(keys):
        request = StateRequest(
            agent="#actors", operation=StateOperation.PUT, key=key, value='"' + "x" * 40_000 + '"'
        )
        await store.state(other, 2 + 2 * place, intent("s", kind=CallKind.STATE, reserved_tokens=0), request)
    before = (await store.figures()).stored_bytes
    await ended(store, other, "house", 2 + 2 * len(keys))
    assert await kept_in(store, "bob") == alone
    assert (await store.figures()).stored_bytes < before - 160_000


async def kept_in(store: TaskStore, tenant: str) -> list[Any]:
    """The stored state of a tenant's actors, the keys in their order, and the bytes counted for it."""
    client, prefix, space = store._client, store.keys.prefix, f"{tenant}:#actors"
    kept: Any = await client.hgetall(f"{prefix}state:{space}")
    names: Any = await client.zrange(f"{prefix}state-names:{space}", 0, -1)
    return [kept, names, await client.hget(f"{prefix}state-bytes", space)]


@pytest.mark.holds(
    "patterns.md",
    "A full mailbox and a large message are refused with the bound; an actor that would ask one "
    "that waits for it is told so",
)
async def test_an_actor_cannot_ask_who_waits_for_it(store: TaskStore) -> None:
    sender = await running(store, task(SENDER, limits=TaskLimits(max_depth=9)))
    await sent(store, sender, "a", post("a", is_asked=True), 2)
    (first,) = await store.claim("w", 1)
    await sent(store, first, "b", post("b", is_asked=True), 2)
    (second,) = await store.claim("w", 1)
    refused = (await sent(store, second, "a", post("a", is_asked=True), 2)).refused
    assert [one.limit for one in refused] == [MessageRefusal.ASKS_ITSELF]
    assert (await sent(store, second, "a", post("a"), 2)).refused == ()


@pytest.mark.holds(
    "patterns.md",
    "Messages use the budget of the task from which they came, also after its end; a told one "
    "outlives its sender",
)
async def test_a_told_message_outlives_its_sender_on_its_budget_and_an_asked_one_does_not(
    store: TaskStore,
) -> None:
    sender = await running(store, task(SENDER, limits=TaskLimits(max_steps=3)))
    await sent(store, sender, "t", post("one"), 2)
    await sent(store, sender, "a", post("two", is_asked=True), 3)
    await store.finish(sender, END)
    (asked,) = await store.records([child_id(SENDER, "a")])
    assert asked.status is TaskStatus.CANCELLED
    (claim,) = await store.claim("w", 8)
    assert claim.id == child_id(SENDER, "t")
    assert (await sent(store, claim, "u", post("one"), 2)).refused == ()
    refused = (await sent(store, claim, "v", post("one"), 3)).refused
    assert [one.limit for one in refused] == [LimitName.STEPS]


@pytest.mark.holds(
    "patterns.md",
    "Messages use the budget of the task from which they came, also after its end; a told one "
    "outlives its sender",
)
async def test_nothing_more_is_used_when_the_task_it_came_from_is_forgotten(redis_server: Any) -> None:
    store = open_store(redis_server, result_ttl_seconds=0, journal_ttl_seconds=0)
    sender = await running(store, task(SENDER))
    await sent(store, sender, "t", post("one"), 2)
    await store.finish(sender, END)
    await asyncio.sleep(0.01)
    assert await store.forget_ended() == 1
    (claim,) = await store.claim("w", 8)
    refused = (await store.append(claim, 2, [intent("m", reserved_steps=1)])).refused
    assert [one.limit for one in refused] == [LimitName.STEPS]
    await store.close()


async def test_an_answer_wakes_who_asked(store: TaskStore) -> None:
    sender = await running(store, task(SENDER))
    await sent(store, sender, "a", post(is_asked=True), 2)
    waits = Waits(kind=WaitKind.CHILDREN, call="a", children=(child_id(SENDER, "a"),))
    assert await store.suspend(sender, 3, waits)
    (claim,) = await store.claim("w", 8)
    await store.finish(claim, END)
    assert [one.id for one in await store.claim("w", 8)] == [SENDER]


async def test_a_message_that_waits_is_cancelled_at_once_and_one_that_has_begun_by_its_run(
    store: TaskStore,
) -> None:
    sender = await running(store, task(SENDER))
    await sent(store, sender, "t", post(), 2)
    await sent(store, sender, "u", post(), 3)
    assert await store.cancel(child_id(SENDER, "u")) is CancelOutcome.CANCELLED
    (claim,) = await store.claim("w", 8)
    await store.release(claim, "w")
    assert await store.cancel(claim.id) is CancelOutcome.REQUESTED


async def sums(ctx: Context, state: int | None, message: int) -> Turn:
    total = (state or 0) + await ctx.tool("check", {"number": message})
    return Turn(state=total, answer=total)


async def adds(ctx: Context, _task: Task) -> Any:
    one = ctx.actor("one", sums)
    await one.tell(1)
    return await one.ask(2)


async def number_of(call: Any) -> Any:
    return said(call.request["number"], input_tokens=0, output_tokens=0)


@pytest.mark.holds(
    "patterns.md",
    "Each message of an actor is handled once and in order, wherever workers are lost, and no "
    "finished call is repeated",
)
@pytest.mark.once
async def test_a_whole_conversation_with_an_actor_survives_a_crash_at_every_write(
    redis_server: Any,
) -> None:
    points: list[str] = []
    assert await lived(redis_server, "whole", CrashPoints(passed=points)) == 3
    for crash_at in range(0, len(points), 3):
        assert await lived(redis_server, f"crash-{crash_at}", CrashPoints(crash_at=crash_at)) == 3


async def lived(redis_server: Any, fleet: str, points: CrashPoints) -> Any:
    """The result of a task that tells and asks an actor, crashed once at this point."""
    store = open_store(redis_server, fleet=f"default/{fleet}", lease_seconds=LEASE_SECONDS)
    program = program_of(adds, tool_of("check", Effect.IDEMPOTENT))
    calls = ScriptedCalls(script=number_of)
    await store.submit(task(SENDER))
    clock = Clock(monotonic_seconds=time.monotonic)
    async with asyncio.timeout(20):
        while True:
            (record,) = await store.records([SENDER])
            if record.status.is_final:
                break
            for claim in await store.claim("w", 1):
                loaded = await store.load(claim.id)
                assert loaded is not None
                means = Means(worker="w", journal=CrashingJournal(store, points), calls=calls, clock=clock)
                try:
                    await TaskRun(claim, loaded, program, means).run()
                except* CrashError:
                    points = CrashPoints()
            await asyncio.sleep(0.005)
    assert record.reason == EndReason.COMPLETED, record.message
    assert len(calls.effects) == 2, "each message has one effect, under one key"
    assert len(calls.made) <= 3
    await store.close()
    return record.result
