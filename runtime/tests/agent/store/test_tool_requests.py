"""The executors' queue: what becomes of a request, on the model in memory and on the scripts in a real Redis.

A lease ends when a test says so, so that none has to wait.
"""

import random
from collections.abc import AsyncIterator
from typing import Any

import pytest

from agent_support.memory_requests import MemoryRequests
from flotilla_runtime.agent.journal import CallOutcome
from flotilla_runtime.agent.protocols import Certainty, Reply
from flotilla_runtime.agent.store.connections import connect
from flotilla_runtime.agent.store.tool_requests import ToolRequests
from flotilla_runtime.agent.tool_requests import (
    MOST_REQUEST_BYTES,
    FunctionKind,
    HeldRequests,
    RequestState,
    RequestTooLargeError,
    ToolRequest,
    WithdrawOutcome,
    encoded_reply,
    read_reply,
)
from flotilla_runtime.contract import Effect, QueueConfig

GOOD = Reply(outcome=CallOutcome.SUCCEEDED, value={"celsius": 21})
UNKNOWN = Reply(outcome=CallOutcome.FAILED, problem="stopped", certainty=Certainty.UNKNOWN)
DEEP = "[" * 9999
STEPS = ("ask", "ask", "look", "withdraw", "claim", "claim", "renew", "answer", "back", "lose")
EFFECTS = (Effect.PURE, Effect.IDEMPOTENT, Effect.UNSAFE)


class LosableRequests(ToolRequests):
    """A queue in Redis whose leases a test can end."""

    async def lose(self, request_id: str) -> None:
        key = f"{self.keys.prefix}request:{request_id}"
        revision: Any = await self._client.hget(key, "revision")
        await self._client.zadd(f"{self.keys.prefix}running@{revision}", {request_id: 0})


@pytest.fixture(params=["model", pytest.param("redis", marks=pytest.mark.services)])
async def queue(request: Any) -> AsyncIterator[Any]:
    if request.param == "model":
        yield MemoryRequests()
        return
    opened = in_redis(request.getfixturevalue("redis_server"))
    yield opened
    await opened.close()


def in_redis(server: Any) -> LosableRequests:
    config = QueueConfig(fleet="d/s", url=server.url, password_path=server.password_path, lease_seconds=30)
    return LosableRequests(connect(config), config)


def wanted(name: str = "r1", effect: Effect = Effect.PURE, **fields: Any) -> ToolRequest:
    told = {"name": "weather", "call": "tool/weather", "key": "k", "arguments": {"city": "Bern"}, **fields}
    return ToolRequest(id=name, effect=effect, **told)


async def lost(queue: Any, name: str = "r1") -> None:
    if (ends := queue.lose(name)) is not None:
        await ends


async def running(queue: Any, effect: Effect = Effect.PURE, **fields: Any) -> None:
    await queue.ask(wanted(effect=effect, **fields), "v1", "w1", "a1")
    (granted,) = await queue.claim("e1#x", "v1", 1, "t1")
    assert granted.token == "t1"
    assert (granted.request.arguments, granted.request.effect) == ({"city": "Bern"}, effect)


async def state(queue: Any) -> RequestState:
    seen = await queue.look("w1", "v1", ["r1"])
    found: RequestState = seen["r1"].state
    return found


async def test_a_call_is_one_request_whichever_worker_asks(queue: Any) -> None:
    assert await state(queue) is RequestState.GONE
    for worker in ("w1", "w2"):
        assert (await queue.ask(wanted(), "v1", worker, worker)).state is RequestState.WAITING
    assert [one.request.id for one in await queue.claim("e1#x", "v1", 5, "t1")] == ["r1"]
    assert await queue.claim("e2#x", "v1", 5, "t2") == []
    assert await queue.answer("r1", "t1", GOOD)
    assert await queue.news("w2", 0.01) == ["r1"], "the last one that asked hears of it"
    seen = await queue.ask(wanted(), "v1", "w3", "w3")
    assert (seen.state, seen.reply, seen.executor) == (RequestState.ANSWERED, GOOD, "e1#x")


async def test_requests_are_granted_in_turn_to_executors_of_their_revision(queue: Any) -> None:
    for number in range(3):
        await queue.ask(wanted(f"r{number}"), "v1", "w1", "a1")
    await queue.ask(wanted("other"), "v2", "w1", "a1")
    assert [one.request.id for one in await queue.claim("e1#x", "v1", 2, "t1")] == ["r0", "r1"]
    again = await queue.claim("e1#x", "v1", 2, "t1")
    assert [one.request.id for one in again] == ["r0", "r1"], "a claim whose answer was lost is sent again"
    assert [one.request.id for one in await queue.claim("e1#x", "v1", 9, "t2")] == ["r2"]
    figures = await queue.figures()
    assert {name: (one.waiting, one.running) for name, one in figures.revisions.items()} == {
        "v1": (0, 3),
        "v2": (1, 0),
    }
    assert figures.executors == {"e1": 3}
    await queue.ask(wanted("other"), "v1", "w1", "a2")
    granted = await queue.claim("e1#x", "v1", 9, "t3")
    assert [one.request.id for one in granted] == ["other"], "workers of a newer revision took the task over"


@pytest.mark.holds(
    "tools.md", "A lost executor repeats no Unsafe call; another call goes to the next one, with the same key"
)
@pytest.mark.parametrize(
    ("effect", "becomes"),
    [
        (Effect.PURE, RequestState.WAITING),
        (Effect.IDEMPOTENT, RequestState.WAITING),
        (Effect.UNSAFE, RequestState.LOST),
    ],
)
@pytest.mark.once
async def test_a_lost_executor_repeats_no_unsafe_call(
    queue: Any, effect: Effect, becomes: RequestState
) -> None:
    await running(queue, effect)
    await lost(queue)
    assert await state(queue) is becomes
    assert not await queue.answer("r1", "t1", GOOD), "it has lost its lease"
    assert await queue.renew("e1#x", {"r1": "t1"}) == HeldRequests(lost=frozenset({"r1"}))
    granted = await queue.claim("e2#x", "v1", 1, "t2")
    assert bool(granted) is (becomes is RequestState.WAITING)


@pytest.mark.holds(
    "tools.md", "A lost executor repeats no Unsafe call; another call goes to the next one, with the same key"
)
async def test_a_call_that_costs_too_many_executors_is_lost(queue: Any) -> None:
    await queue.ask(wanted(most_lost=1), "v1", "w1", "a1")
    for number in range(2):
        assert await state(queue) is RequestState.WAITING
        assert len(await queue.claim(f"e{number}#x", "v1", 1, f"t{number}")) == 1
        await lost(queue)
    assert await state(queue) is RequestState.LOST


@pytest.mark.parametrize("effect", EFFECTS)
async def test_a_reply_is_written_once(queue: Any, effect: Effect) -> None:
    await running(queue, effect)
    assert not await queue.answer("r1", "t2", UNKNOWN), "of another claim"
    assert await queue.renew("e1#x", {"r1": "t1"}) == HeldRequests()
    assert await queue.answer("r1", "t1", GOOD)
    assert await queue.answer("r1", "t1", UNKNOWN), "sent again: it stands there"
    assert (await queue.look("w1", "v1", ["r1"]))["r1"].reply == GOOD
    assert (await queue.ask(wanted(effect=effect), "v1", "w2", "a2")).state is RequestState.ANSWERED


@pytest.mark.once
@pytest.mark.parametrize("is_answered", [True, False])
async def test_an_unsafe_call_is_put_anew_only_when_its_journal_says_so(
    queue: Any, is_answered: bool
) -> None:
    """A worker asks anew under another name only then; the same asking may be sent again at any time."""
    await running(queue, Effect.UNSAFE)
    if is_answered:
        await queue.answer("r1", "t1", UNKNOWN)
    else:
        await lost(queue)
    ended = RequestState.ANSWERED if is_answered else RequestState.LOST
    assert (await queue.ask(wanted(effect=Effect.UNSAFE), "v1", "w1", "a1")).state is ended
    assert (await queue.ask(wanted(effect=Effect.UNSAFE), "v1", "w1", "a2")).state is RequestState.WAITING


async def test_a_withdrawn_request_is_not_begun_and_one_that_runs_is_stopped(queue: Any) -> None:
    await queue.ask(wanted(), "v1", "w1", "a1")
    assert await queue.withdraw("r1", "w2") is WithdrawOutcome.IGNORED, "another worker waits for it"
    assert await queue.withdraw("r1", "w1") is WithdrawOutcome.WITHDRAWN
    assert await queue.claim("e1#x", "v1", 1, "t0") == []
    await running(queue)
    assert await queue.withdraw("r1", "w1") is WithdrawOutcome.STOPPING
    assert await queue.news("e1#x", 0.01) == ["r1"]
    assert await queue.renew("e1#x", {"r1": "t1"}) == HeldRequests(withdrawn=frozenset({"r1"}))
    assert await queue.answer("r1", "t1", UNKNOWN)
    assert await queue.withdraw("r1", "w1") is WithdrawOutcome.IGNORED, "it has ended"


@pytest.mark.holds(
    "tools.md",
    "A call that no executor has begun goes to those of the worker that has its task, or is taken "
    "back where there are none; what runs is waited for",
)
async def test_what_waits_goes_to_the_executors_of_who_looks_and_what_runs_stays(queue: Any) -> None:
    await queue.ask(wanted(effect=Effect.UNSAFE), "v1", "w1", "a1")
    assert (await queue.look("w2", "v2", ["r1"]))["r1"].state is RequestState.WAITING
    assert await queue.claim("e1#x", "v1", 1, "t1") == []
    assert len(await queue.claim("e2#x", "v2", 1, "t2")) == 1
    assert (await queue.look("w3", "v3", ["r1"]))["r1"].state is RequestState.RUNNING
    assert (await queue.figures()).revisions.keys() == {"v2"}
    await queue.give_back("r1", "t2")
    await queue.look("w3", "v3", ["r1"])
    assert len(await queue.claim("e3#x", "v3", 1, "t3")) == 1


@pytest.mark.holds(
    "tools.md",
    "A call that no executor has begun goes to those of the worker that has its task, or is taken "
    "back where there are none; what runs is waited for",
)
@pytest.mark.once
async def test_a_worker_without_executors_takes_back_what_waits_and_not_what_runs(
    queue: Any,
) -> None:
    await queue.ask(wanted(effect=Effect.UNSAFE), "v1", "w1", "a1")
    assert (await queue.look("w2", None, ["r1"]))["r1"].state is RequestState.TAKEN_BACK
    assert await queue.claim("e1#x", "v1", 1, "t1") == [], "from then on the worker may call it"
    assert (await queue.look("w2", None, ["r1"]))["r1"].state is RequestState.GONE, "nobody knows any more"
    await running(queue, Effect.UNSAFE)
    assert (await queue.look("w2", None, ["r1"]))["r1"].state is RequestState.RUNNING
    assert await queue.renew("e1#x", {"r1": "t1"}) == HeldRequests(), "nobody stops it"
    assert await queue.answer("r1", "t1", GOOD)
    assert (await queue.look("w2", None, ["r1"]))["r1"].reply == GOOD


async def test_a_request_that_is_given_back_is_granted_to_another(queue: Any) -> None:
    await running(queue, Effect.UNSAFE)
    assert not await queue.give_back("r1", "t2")
    assert await queue.give_back("r1", "t1")
    (granted,) = await queue.claim("e2#x", "v1", 1, "t2")
    assert (granted.request.id, granted.token) == ("r1", "t2")


@pytest.mark.holds(
    "tools.md", "A lost executor repeats no Unsafe call; another call goes to the next one, with the same key"
)
@pytest.mark.services
async def test_the_scripts_do_what_the_model_does(redis_server: Any) -> None:
    real, model, draw = in_redis(redis_server), MemoryRequests(), random.Random(7)
    revisions, tokens = ("v1", "v2"), [f"t{number}" for number in range(12)]
    for step in range(1200):
        name, worker, token = f"r{draw.randrange(4)}", draw.choice(("w1", "w2")), draw.choice(tokens)
        effect = EFFECTS[int(name[1]) % 3]
        known = draw.random() < 0.5
        did: Any
        match draw.choice(STEPS):
            case "ask":
                asked, request = f"a{draw.randrange(3)}", wanted(name, effect, most_lost=1)
                revision = draw.choice(revisions)
                did = [await one.ask(request, revision, worker, asked) for one in (real, model)]
            case "look":
                own = draw.choice((*revisions, None))
                did = [await one.look(worker, own, [name]) for one in (real, model)]
            case "withdraw":
                did = [await one.withdraw(name, worker) for one in (real, model)]
            case "claim":
                revision, executor = draw.choice(revisions), f"e{draw.randrange(2)}#x"
                fresh = f"{token}-{step}"
                tokens.append(fresh)
                did = [
                    sorted(g.request.id for g in await one.claim(executor, revision, 9, fresh))
                    for one in (real, model)
                ]
            case "renew":
                did = [await one.renew("e1#x", {name: token}) for one in (real, model)]
            case "answer":
                held = model.kept[name].token if name in model.kept else None
                reply = GOOD if known else UNKNOWN
                did = [await one.answer(name, held or token, reply) for one in (real, model)]
            case "back":
                held = model.kept[name].token if name in model.kept else None
                did = [await one.give_back(name, held or token) for one in (real, model)]
            case _:
                did = [0, 0]
                if name in model.kept and model.kept[name].state is RequestState.RUNNING:
                    model.lose(name)
                    await real.lose(name)
                    did = [(await one.look(worker, "v1", [name]))[name] for one in (real, model)]
        assert did[0] == did[1], (step, did)
        assert await real.figures() == await model.figures(), step
    await real.close()


@pytest.mark.holds("security.md", "What an executor writes is believed in its form and size alone")
@pytest.mark.services
@pytest.mark.attack("An executor writes an answer that is none")
async def test_what_an_executor_puts_into_a_request_is_not_believed(redis_server: Any) -> None:
    queue = in_redis(redis_server)
    await running(queue)
    key = f"{queue.keys.prefix}request:r1"
    await queue._client.hset(key, "state", "Splendid")
    assert await state(queue) is RequestState.GONE
    await queue._client.hset(key, mapping={"state": "Answered", "reply": "x" * 34_000_000})
    reply = (await queue.look("w1", "v1", ["r1"]))["r1"].reply
    assert reply is not None
    assert reply.certainty is Certainty.UNKNOWN
    await queue.close()


@pytest.mark.services
async def test_an_executor_that_comes_is_woken_and_nothing_is_left_behind(redis_server: Any) -> None:
    queue = in_redis(redis_server)
    await queue.ask(wanted(), "v1", "w1", "a1")
    await queue.wait_for_work("v1", 5)
    await queue.claim("e1#x", "v1", 1, "t1")
    await queue.answer("r1", "t1", GOOD)
    await queue.look("w1", "v1", ["r1"])
    left = {key: await queue._client.pttl(key) for key in redis_server.ask("keys", "*").split()}
    kept = {key for key, ttl in left.items() if ttl < 0}
    assert kept == {f"{queue.keys.prefix}queues"}, "a set with one entry for each revision"
    assert max(left.values()) <= 60_000
    await queue.close()


@pytest.mark.holds("security.md", "What an executor writes is believed in its form and size alone")
@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        '"x"',
        "{}",
        '{"outcome": "Splendid"}',
        '{"outcome": "Failed", "certainty": 3}',
        DEEP,
    ],
)
@pytest.mark.attack("An executor writes an answer that is none")
def test_what_is_no_reply_fails_and_does_not_say_whether_it_happened(text: str) -> None:
    reply = read_reply(text)
    assert (reply.outcome, reply.certainty) == (CallOutcome.FAILED, Certainty.UNKNOWN)


def test_a_reply_is_read_as_it_was_written() -> None:
    for reply in (GOOD, UNKNOWN, Reply(outcome=CallOutcome.TIMED_OUT, problem="late")):
        assert read_reply(encoded_reply(reply)) == reply


def test_arguments_beyond_the_bound_say_so() -> None:
    request = wanted(kind=FunctionKind.TOOL, arguments={"text": "x" * MOST_REQUEST_BYTES})
    with pytest.raises(RequestTooLargeError, match=rf"a tool executor takes {MOST_REQUEST_BYTES}"):
        request.encoded()


LOOPS = "A function of a tool executor loops in Redis, so that nobody is answered"


@pytest.mark.attack(LOOPS)
@pytest.mark.services
async def test_a_claim_passes_over_so_many_ids_of_nothing_and_the_next_goes_on(redis_server: Any) -> None:
    queue = in_redis(redis_server)
    junk, most = 20_000, 2_000
    waiting = f"{queue.keys.prefix}waiting@v1"
    try:
        await queue.ask(wanted(), "v1", "w1", "a1")
        await queue.wait_for_work("v1", 5)
        await queue._client.zadd(waiting, {f"junk-{number}": -1 for number in range(junk)})
        assert await queue.claim("e1#x", "v1", 1, "t1") == []
        assert await queue._client.zcard(waiting) == junk + 1 - most
        assert await queue._client.llen(queue.keys.calls("v1")) == 1, "somebody is woken for the rest"
        claims = 1
        while not (granted := await queue.claim("e1#x", "v1", 1, "t1")):
            claims += 1
            assert claims <= junk // most
        assert [one.request.id for one in granted] == ["r1"]
    finally:
        await queue.close()


@pytest.mark.attack(LOOPS)
@pytest.mark.services
async def test_a_look_at_many_revisions_ends_so_many_leases(redis_server: Any) -> None:
    queue = in_redis(redis_server)
    names = [f"r{number}" for number in range(300)]
    try:
        async with queue._client.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.hset(f"{queue.keys.prefix}request:{name}", "revision", name)
                pipe.zadd(f"{queue.keys.prefix}running@{name}", {f"{name}-{one}": 0 for one in range(2)})
            await pipe.execute()
        await queue.look("w1", "v1", names)
        left = [await queue._client.zcard(f"{queue.keys.prefix}running@{name}") for name in names]
        assert sum(left) == 2 * len(names) - 200
        with pytest.raises(Exception, match="too many arguments"):
            await queue.look("w1", "v1", ["r1"] * 3000)
        held = {f"held-{number}": "t" for number in range(10_000)}
        assert (await queue.renew("e1#x", held)).lost == frozenset(held), "as many as one executor may run"
    finally:
        await queue.close()
