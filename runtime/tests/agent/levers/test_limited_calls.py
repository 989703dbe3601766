"""Calls under rate limits and circuits: who waits, who goes elsewhere, who is told to come back."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from agent_support.buckets import MemoryBuckets
from agent_support.running import failed, said, tool_of
from flotilla_runtime.agent.budgets import Amount, Budget
from flotilla_runtime.agent.journal import CallKind, CallOutcome
from flotilla_runtime.agent.levers.buckets import Turns
from flotilla_runtime.agent.levers.calls import (
    EXPECTED_ANSWER_TOKENS,
    LimitedCalls,
    expected_tokens,
    overflow_chain,
)
from flotilla_runtime.agent.levers.circuits import Ended
from flotilla_runtime.agent.levers.guards import Circuits, how_ended
from flotilla_runtime.agent.levers.metrics import LeverMetrics
from flotilla_runtime.agent.models import ModelRequest
from flotilla_runtime.agent.programs import stated_context
from flotilla_runtime.agent.protocols import Call, Certainty, Reconciled, Reply, Session, Spent
from flotilla_runtime.contract import Effect, ModelConnection, Priority, RateLimit
from tests.support.virtual_time import run

SESSION = Session(task_id="t1", tenant="ann", priority=Priority.INTERACTIVE)
REQUEST = ModelRequest(
    session_id="t1",
    priority=Priority.INTERACTIVE,
    messages=({"role": "user", "content": "why?"},),
    max_tokens=100,
    prompt_tokens=20,
)
ASK = Call(id="llm", kind=CallKind.MODEL, target="large", request=REQUEST, key="k")
USE = Call(id="tool", kind=CallKind.TOOL, target="weather", request={}, key="k")


def model(role: str, name: str, **fields: Any) -> ModelConnection:
    return ModelConnection(role=role, name=name, url="http://m/v1", model=name, **fields)


@dataclass(slots=True)
class Answers:
    """Answers calls by a script, and remembers when each was made."""

    script: Callable[[Call], Reply | Awaitable[Reply]]
    made: list[tuple[str, float]] = field(default_factory=list)

    async def reservation(self, call: Call, session: Session, budget: Budget) -> tuple[Call, Amount]:
        return call, Amount()

    async def reconcile(self, call: Call, session: Session) -> Reconciled | None:
        return None

    async def make(self, call: Call, session: Session) -> Reply:
        self.made.append((call.target, round(_now(), 1)))
        reply = self.script(call)
        return reply if isinstance(reply, Reply) else await reply


def _now() -> float:
    return asyncio.get_running_loop().time()


@dataclass(slots=True)
class Site:
    """Calls under levers, with all that they stand on."""

    calls: LimitedCalls
    answers: Answers
    buckets: MemoryBuckets
    registry: CollectorRegistry

    def figure(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)


def site(
    models: list[ModelConnection],
    limits: Mapping[str, RateLimit] | None = None,
    script: Callable[[Call], Reply | Awaitable[Reply]] = lambda _: said("Because."),
    tools: Mapping[str, Any] | None = None,
) -> Site:
    registry = CollectorRegistry()
    metrics, buckets, answers = LeverMetrics(registry), MemoryBuckets(limits or {}, _now), Answers(script)
    calls = LimitedCalls(
        answers,
        models,
        tools=tools or {},
        turns=Turns(buckets, monotonic_seconds=_now, draw=lambda low, _: low),
        circuits=Circuits(metrics, _now),
        metrics=metrics,
        context_of=stated_context,
        monotonic_seconds=_now,
    )
    return Site(calls=calls, answers=answers, buckets=buckets, registry=registry)


def limit(name: str, requests: int | None = None, tokens: int | None = None) -> dict[str, RateLimit]:
    return {name: RateLimit(name=name, requests_per_minute=requests, tokens_per_minute=tokens)}


PAY = replace(USE, effect=Effect.UNSAFE)
BUDGET = Budget(used=Amount(), reserved=Amount(), most_steps=1, most_tokens=1, most_nano_usd=None)
REFUSED = replace(failed("503"), is_refused=True)
PLAIN = [model("Default", "large", rate_limit="openai")]
PAIR = [
    model("Default", "large", rate_limit="openai", overflow_to="Routine"),
    model("Routine", "small"),
]


# Rate limits
@pytest.mark.holds(
    "agents.md",
    "A rate limit is one bucket for all workers, and calls have their turns in the order in which they came",
)
def test_calls_beyond_the_limit_have_their_turns_in_the_order_in_which_they_came() -> None:
    async def story() -> Site:
        one = site(PLAIN, limit("openai", requests=60))
        asks = [replace(ASK, id=f"llm{number}") for number in range(63)]
        replies = await asyncio.gather(*(one.calls.make(ask, SESSION) for ask in asks))
        assert all(reply.outcome is CallOutcome.SUCCEEDED for reply in replies)
        assert [reply.limited_ms for reply in replies[59:]] == [None, 1000, 2000, 3000]
        assert [reply.rate_limit for reply in replies[59:61]] == [None, "openai"]
        return one

    one = run(story())
    assert [at for _, at in one.answers.made] == [0.0] * 60 + [1.0, 2.0, 3.0]
    waited = one.figure("flotilla_worker_rate_limit_wait_seconds_sum", limit="openai")
    assert waited == 6.0


@pytest.mark.holds(
    "agents.md",
    "What a call took is corrected by what it used; one that is cancelled in the queue gives it "
    "back; a tool takes a request",
)
def test_what_is_used_corrects_what_was_expected() -> None:
    async def story() -> Site:
        used = said("Because.", input_tokens=20, output_tokens=5, tries=3)
        one = site(PLAIN, limit("openai", requests=60, tokens=6000), lambda _: used)
        await one.calls.make(ASK, SESSION)
        return one

    taken = run(story()).buckets.taken
    assert taken == [("openai", 1, 120), ("openai", 2, -95)], "each try is a request"


@pytest.mark.holds(
    "agents.md",
    "What a call took is corrected by what it used; one that is cancelled in the queue gives it "
    "back; a tool takes a request",
)
@pytest.mark.parametrize(
    ("prompt", "most", "expected"),
    [
        pytest.param(20, 100, 120, id="a prompt that was counted"),
        pytest.param(20, 10_000, 20 + EXPECTED_ANSWER_TOKENS, id="an answer that may be long"),
        pytest.param(None, 100, 198, id="a prompt of which a bound is known: a third of it"),
    ],
)
def test_what_a_call_is_expected_to_use(prompt: int | None, most: int, expected: int) -> None:
    request = replace(REQUEST, prompt_tokens=prompt, max_tokens=most)
    assert expected_tokens(replace(ASK, request=request)) == expected


@pytest.mark.holds(
    "agents.md",
    "What a call took is corrected by what it used; one that is cancelled in the queue gives it "
    "back; a tool takes a request",
)
def test_a_call_that_is_cancelled_in_the_queue_gives_its_turn_back() -> None:
    async def story() -> Site:
        one = site(PLAIN, limit("openai", requests=1))
        await one.calls.make(ASK, SESSION)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await one.calls.make(ASK, SESSION)
        await asyncio.sleep(0)
        return one

    one = run(story())
    assert len(one.answers.made) == 1
    assert one.buckets.taken[-1] == ("openai", -1, -120)


def asking(name: str, tokens: int) -> Call:
    """A call that expects, and uses, so many tokens."""
    request = replace(
        REQUEST, messages=({"role": "user", "content": "why? " * tokens},), prompt_tokens=tokens - 100
    )
    return replace(ASK, id=name, request=request)


def used(call: Call) -> Reply:
    return said("Because.", input_tokens=expected_tokens(call), output_tokens=0)


@pytest.mark.holds(
    "agents.md",
    "A call that wants more than a minute's worth waits for a full bucket at most, and the calls "
    "after it until all is back",
)
def test_a_call_that_wants_more_than_a_minutes_worth_waits_for_a_full_bucket_at_most() -> None:
    async def story() -> tuple[Site, list[Reply]]:
        one = site(PLAIN, limit("openai", tokens=1000), used)
        replies = []
        for name, tokens in (("huge", 3000), ("small", 200), ("large", 1500)):
            replies.append(await one.calls.make(asking(name, tokens), SESSION))
        return one, replies

    one, replies = run(story())
    assert [at for _, at in one.answers.made] == [0.0, 132.0, 132.0 + 60.0], (
        "the second when what the first took is back, the third when the bucket is full"
    )
    assert [reply.limited_ms for reply in replies] == [None, 132_000, 60_000]
    assert [reply.rate_limit for reply in replies[1:]] == ["openai"] * 2, "status.bottleneck can name it"


@pytest.mark.holds(
    "agents.md",
    "A call that wants more than a minute's worth waits for a full bucket at most, and the calls "
    "after it until all is back",
)
def test_a_call_that_wants_more_than_a_minutes_worth_needs_no_other_model_while_the_bucket_is_full() -> None:
    async def story() -> Site:
        one = site(PAIR, limit("openai", tokens=1000), used)
        for name, tokens in (("large", 1500), ("next", 200)):
            await one.calls.make(asking(name, tokens), SESSION)
        return one

    assert run(story()).answers.made == [("large", 0.0), ("small", 0.0)]


@pytest.mark.holds(
    "agents.md",
    "Nobody passes those in line at a rate limit, in whichever worker; who is lost or cancelled leaves it",
)
@pytest.mark.parametrize("large", [600, 6000, 9000, 30_000])
def test_a_large_call_has_its_turn_in_order_while_small_ones_always_come(large: int) -> None:
    async def story() -> list[str]:
        began: list[str] = []

        def script(call: Call) -> Reply:
            began.append(call.id)
            return used(call)

        one = site(PLAIN, limit("openai", tokens=6000), script)
        running = []
        for number in range(100):  # they want twice as much as there is
            ask = asking("large", large) if number == 50 else asking(str(number), 600)
            running.append(asyncio.create_task(one.calls.make(ask, SESSION)))
            await asyncio.sleep(3)
        await asyncio.gather(*running)
        return began

    assert run(story()) == [*map(str, range(50)), "large", *map(str, range(51, 100))]


@pytest.mark.holds(
    "agents.md",
    "Nobody passes those in line at a rate limit, in whichever worker; who is lost or cancelled leaves it",
)
def test_who_is_cancelled_in_line_leaves_it_and_owes_nothing() -> None:
    async def story() -> Site:
        one = site(PLAIN, limit("openai", tokens=1000), used)
        await one.calls.make(asking("huge", 2000), SESSION)
        leaving = asyncio.create_task(one.calls.make(asking("leaves", 5000), SESSION))
        await asyncio.sleep(1)
        staying = asyncio.create_task(one.calls.make(asking("stays", 200), SESSION))
        await asyncio.sleep(1)
        leaving.cancel()
        await staying
        return one

    one = run(story())
    assert [at for _, at in one.answers.made] == [0.0, 72.0]
    assert one.buckets.taken == [("openai", 1, 2000), ("openai", 1, 200)]


@pytest.mark.holds(
    "agents.md",
    "Nobody passes those in line at a rate limit, in whichever worker; who is lost or cancelled leaves it",
)
def test_who_is_cancelled_after_others_have_served_it_gives_its_turn_back() -> None:
    async def story() -> MemoryBuckets:
        buckets = MemoryBuckets(limit("openai", tokens=1000), _now)
        turns = Turns(buckets, monotonic_seconds=_now, draw=lambda low, _: low)
        assert await turns.at_once("openai", 2000) is not None
        leaving = asyncio.create_task(turns.waited("openai", 700))
        await asyncio.sleep(44)  # it asks after 40 and 45 seconds, and may have its turn from 42 on
        assert not (await buckets.take("openai", 1000, 60.0, "another")).is_taken
        leaving.cancel()
        await asyncio.sleep(0.1)
        return buckets

    assert run(story()).taken[-1] == ("openai", -1, -700)


@pytest.mark.holds(
    "agents.md",
    "A rate limit is one bucket for all workers, and calls have their turns in the order in which they came",
)
def test_turns_are_given_for_a_minute_and_who_comes_then_stands_in_line() -> None:
    async def story() -> Site:
        one = site(PLAIN, limit("openai", requests=1))
        await asyncio.gather(*(one.calls.make(replace(ASK, id=str(n)), SESSION) for n in range(3)))
        return one

    assert [at for _, at in run(story()).answers.made] == [0.0, 60.0, 120.0]


@pytest.mark.holds(
    "agents.md",
    "What a call took is corrected by what it used; one that is cancelled in the queue gives it "
    "back; a tool takes a request",
)
def test_a_tool_takes_a_request_and_no_tokens() -> None:
    async def story() -> Site:
        tools = {"weather": tool_of("weather", rate_limit="met")}
        one = site(PLAIN, limit("met", requests=1, tokens=1), tools=tools)
        await asyncio.gather(one.calls.make(USE, SESSION), one.calls.make(replace(USE, id="b"), SESSION))
        return one

    assert [at for _, at in run(story()).answers.made] == [0.0, 60.0]


@pytest.mark.holds("agents.md", "An Unsafe call waits for its turn before its intent is written")
def test_an_unsafe_call_has_its_turn_before_its_intent_is_written() -> None:
    async def story() -> tuple[Site, Call, Reply]:
        tools = {"weather": tool_of("weather", rate_limit="met")}
        one = site(PLAIN, limit("met", requests=1), tools=tools)
        await one.calls.reservation(PAY, SESSION, BUDGET)
        call, _ = await one.calls.reservation(PAY, SESSION, BUDGET)
        return one, call, await one.calls.make(call, SESSION)

    one, call, reply = run(story())
    assert (call.waited_ms, one.answers.made) == (60_000, [("weather", 60.0)])
    assert (reply.rate_limit, reply.limited_ms) == ("met", 60_000)
    assert sum(requests for _, requests, _ in one.buckets.taken) == 2, (
        "it takes nothing again when it is made"
    )


def payments(requests: int, script: Callable[[Call], Reply | Awaitable[Reply]]) -> Site:
    """A site with an Unsafe tool that has a rate limit."""
    tools = {"weather": tool_of("weather", rate_limit="met")}
    return site(PLAIN, limit("met", requests=requests), script, tools)


async def paid(one: Site) -> Reply:
    call, _ = await one.calls.reservation(PAY, SESSION, BUDGET)
    return await one.calls.make(call, SESSION)


def left_over(one: Site) -> int:
    """How many requests were taken from the limit and not given back."""
    return sum(requests for _, requests, _ in one.buckets.taken)


@pytest.mark.holds(
    "agents.md",
    "What a call took is corrected by what it used; one that is cancelled in the queue gives it "
    "back; a tool takes a request",
)
def test_an_unsafe_call_takes_no_turn_where_the_circuit_is_open() -> None:
    async def story() -> Site:
        one = payments(5, lambda _: REFUSED)
        for _ in range(5):
            await paid(one)
        reply = await paid(one)
        assert (reply.is_refused, reply.retry_after_ms) == (True, 5000)
        return one

    one = run(story())
    assert one.answers.made == [("weather", 0.0)] * 5, "the sixth would have waited for its turn"
    assert left_over(one) == 5


@pytest.mark.holds(
    "agents.md",
    "What a call took is corrected by what it used; one that is cancelled in the queue gives it "
    "back; a tool takes a request",
)
def test_an_unsafe_call_whose_circuit_opens_while_it_waits_gives_its_turn_back() -> None:
    async def slow(_: Call) -> Reply:
        await asyncio.sleep(10)
        return REFUSED

    async def story() -> Site:
        one = payments(5, slow)
        replies = await asyncio.gather(*(paid(one) for _ in range(6)))
        await asyncio.sleep(0)
        assert [reply.retry_after_ms for reply in replies] == [None] * 5 + [3000], "its turn was at 12 s"
        return one

    one = run(story())
    assert len(one.answers.made) == 5
    assert left_over(one) == 5


def test_an_unsafe_call_without_a_turn_is_not_made_when_its_circuit_lets_it_try() -> None:
    async def story() -> Site:
        one = payments(5, lambda _: REFUSED if _now() < 5 else said("Sunny."))
        for _ in range(5):
            await paid(one)
        late, _ = await one.calls.reservation(PAY, SESSION, BUDGET)
        await asyncio.sleep(5)
        assert (await one.calls.make(late, SESSION)).retry_after_ms == 0
        assert (await paid(one)).outcome is CallOutcome.SUCCEEDED
        return one

    assert left_over(run(story())) == 6


# Another model


@pytest.mark.holds(
    "agents.md",
    "At the limit, or while its model fails, a call goes to `overflowTo` if that one takes it at "
    "once and the budget lasts",
)
def test_at_the_limit_a_call_goes_to_the_other_model() -> None:
    async def story() -> tuple[Site, list[Reply]]:
        one = site(PAIR, limit("openai", requests=1))
        return one, [await one.calls.make(ASK, SESSION) for _ in range(2)]

    one, replies = run(story())
    assert [reply.answered_by for reply in replies] == [None, "small"]
    assert one.answers.made == [("large", 0.0), ("small", 0.0)]
    assert one.figure("flotilla_worker_overflows_total", model="large", to="small") == 1


@pytest.mark.holds(
    "agents.md",
    "At the limit, or while its model fails, a call goes to `overflowTo` if that one takes it at "
    "once and the budget lasts",
)
def test_where_no_model_has_room_a_call_waits_at_its_own() -> None:
    pair = [PAIR[0], model("Routine", "small", rate_limit="cheap")]

    async def story() -> Site:
        one = site(pair, {**limit("openai", requests=60), **limit("cheap", requests=1)})
        await asyncio.gather(*(one.calls.make(replace(ASK, id=str(n)), SESSION) for n in range(62)))
        return one

    assert run(story()).answers.made[59:] == [("large", 0.0), ("small", 0.0), ("large", 1.0)]


@pytest.mark.holds(
    "agents.md",
    "At the limit, or while its model fails, a call goes to `overflowTo` if that one takes it at "
    "once and the budget lasts",
)
def test_the_other_model_reserves_anew_and_is_not_asked_where_the_budget_has_no_room() -> None:
    async def story() -> tuple[Site, list[tuple[str, Spent]]]:
        moved: list[tuple[str, Spent]] = []

        async def more(call: Call, spent: Spent) -> Call | None:
            moved.append((call.target, spent))
            return None if len(moved) > 1 else call

        one = site(PAIR, limit("openai", requests=1))
        for _ in range(3):
            await one.calls.make(replace(ASK, more=more), SESSION)
        return one, moved

    one, moved = run(story())
    assert one.answers.made == [("large", 0.0), ("small", 0.0), ("large", 60.0)]
    assert [(target, spent.tokens, spent.nano_usd) for target, spent in moved] == [("small", 0, 0)] * 2


@pytest.mark.holds(
    "agents.md",
    "At the limit, or while its model fails, a call goes to `overflowTo` if that one takes it at "
    "once and the budget lasts",
)
def test_a_prompt_for_which_the_other_model_has_no_room_waits() -> None:
    pair = [PAIR[0], model("Routine", "small", context_tokens=64)]

    async def story() -> Site:
        one = site(pair, limit("openai", requests=1))
        for _ in range(2):
            await one.calls.make(ASK, SESSION)
        return one

    assert run(story()).answers.made == [("large", 0.0), ("large", 60.0)]


@pytest.mark.holds("agents.md", "`overflowTo` leads over three other models at most, and never back")
def test_a_chain_names_each_model_once() -> None:
    ring = [
        model("A", "a", overflow_to="B"),
        model("B", "b", overflow_to="C"),
        model("C", "c", overflow_to="A"),
    ]
    assert [one.name for one in overflow_chain(ring, "b")] == ["b", "c", "a"]
    assert overflow_chain(ring, "unknown") == []


# Circuits


@pytest.mark.holds(
    "agents.md",
    "Calls of a model that fails wait for a trial, at most two minutes; a tool's fail at once and "
    "say when to try again",
)
def test_calls_of_a_model_that_fails_wait_and_then_one_tries() -> None:
    async def story() -> tuple[Site, list[Reply]]:
        one = site([PAIR[1]], script=lambda _: REFUSED if _now() < 4 else said("Because."))
        ask = replace(ASK, target="small")
        for _ in range(5):
            await one.calls.make(ask, SESSION)
        return one, await asyncio.gather(*(one.calls.make(ask, SESSION) for _ in range(3)))

    one, replies = run(story())
    assert [reply.value for reply in replies] == ["Because."] * 3
    assert [at for _, at in one.answers.made] == [0.0] * 5 + [5.0] * 3
    labels = {"kind": "Model", "target": "small"}
    assert one.figure("flotilla_worker_circuit_openings_total", **labels) == 1
    assert one.figure("flotilla_worker_circuit_open", **labels) == 0


@pytest.mark.holds(
    "agents.md",
    "Calls of a model that fails wait for a trial, at most two minutes; a tool's fail at once and "
    "say when to try again",
)
def test_a_model_that_stays_away_fails_its_calls_with_a_time_to_try_again() -> None:
    async def story() -> tuple[Site, Reply, float]:
        one = site([PAIR[1]], script=lambda _: REFUSED)
        ask = replace(ASK, target="small")
        for _ in range(5):
            await one.calls.make(ask, SESSION)
        trying = asyncio.create_task(_again_and_again(one, ask))
        await asyncio.sleep(5.5)
        reply = await one.calls.make(ask, SESSION)
        trying.cancel()
        return one, reply, _now()

    one, reply, now = run(story())
    assert (reply.outcome, reply.is_refused) == (CallOutcome.FAILED, True)
    assert len(one.answers.made) < 15, "nobody spins"
    assert now < 130


async def _again_and_again(one: Site, ask: Call) -> None:
    while True:
        await one.calls.make(ask, SESSION)


@pytest.mark.holds(
    "agents.md",
    "At the limit, or while its model fails, a call goes to `overflowTo` if that one takes it at "
    "once and the budget lasts",
)
def test_a_model_that_fails_hands_its_calls_to_the_other_one() -> None:
    async def story() -> Site:
        one = site(PAIR, limit("openai", requests=600), lambda call: _but(call.target == "large"))
        for _ in range(7):
            await one.calls.make(ASK, SESSION)
        return one

    assert [target for target, _ in run(story()).answers.made] == ["large"] * 5 + ["small"] * 2


def _but(is_refused: bool) -> Reply:
    return REFUSED if is_refused else said("Because.")


@pytest.mark.holds(
    "agents.md",
    "Calls of a model that fails wait for a trial, at most two minutes; a tool's fail at once and "
    "say when to try again",
)
def test_a_tool_that_fails_is_not_called_and_the_agent_hears_when_to_try_again() -> None:
    async def story() -> tuple[Site, Reply]:
        one = site(PLAIN, script=lambda _: failed("slow", CallOutcome.TIMED_OUT))
        for _ in range(5):
            await one.calls.make(USE, SESSION)
        return one, await one.calls.make(USE, SESSION)

    one, reply = run(story())
    assert len(one.answers.made) == 5
    assert (reply.outcome, reply.retry_after_ms, reply.certainty) == (
        CallOutcome.FAILED,
        5000,
        Certainty.KNOWN,
    )
    assert "weather was not called" in (reply.problem or "")
    assert "again in 5 s" in (reply.problem or "")


@pytest.mark.holds(
    "agents.md",
    "While a circuit tries, others ask again; a trial that was not made, or is cancelled, leaves "
    "its place to the next call",
)
def test_a_trial_that_is_cancelled_leaves_its_place_to_the_next_call() -> None:
    async def story() -> Reply:
        async def script(call: Call) -> Reply:
            if _now() == 0:
                return REFUSED
            if _now() < 7:
                await asyncio.sleep(60)
            return said("Because.")

        one = site([PAIR[1]], script=lambda call: script(call))
        ask = replace(ASK, target="small")
        for _ in range(5):
            await one.calls.make(ask, SESSION)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(8):
                await one.calls.make(ask, SESSION)
        return await one.calls.make(ask, SESSION)

    assert run(story()).value == "Because."


@pytest.mark.holds(
    "agents.md",
    "A circuit opens after five failures in a row or half of the last twenty calls, lets one call "
    "try, and waits longer each time",
)
@pytest.mark.holds("agents.md", "Refusals of what was asked, and functions that raise, open no circuit")
@pytest.mark.parametrize(
    ("reply", "how"),
    [
        pytest.param(said("x"), Ended.ANSWERED, id="an answer"),
        pytest.param(failed("400"), Ended.ANSWERED, id="an answer that says what is wrong"),
        pytest.param(REFUSED, Ended.FAILED, id="nobody takes calls"),
        pytest.param(failed("slow", CallOutcome.TIMED_OUT), Ended.FAILED, id="no answer in time"),
        pytest.param(failed("?", CallOutcome.INVALID), Ended.NOT_MADE, id="wrong arguments"),
        pytest.param(
            replace(failed("full"), certainty=Certainty.NOT_BEGUN), Ended.NOT_MADE, id="no thread is free"
        ),
    ],
)
def test_what_a_reply_says_of_who_was_called(reply: Reply, how: Ended) -> None:
    assert how_ended(reply) is how
