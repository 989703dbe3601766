"""The script of a rate limit against its model, and two workers that share a bucket, in a real Redis."""

import asyncio
import secrets
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from redis import Redis

from agent_support.buckets import Bucket
from flotilla_runtime.agent.store.connections import connect
from flotilla_runtime.agent.store.rate_limits import RateLimits
from flotilla_runtime.agent.store.script_values import script_source
from flotilla_runtime.contract import QueueConfig, RateLimit, TaskKeys
from redis_servers import ADMIN

pytestmark = pytest.mark.services

RATES = st.tuples(st.sampled_from([0, 1, 60, 6000]), st.sampled_from([0, 600, 10_000, 1_000_000]))
NAMES = st.sampled_from(["", "a", "b", "c", "d"])
TAKES = st.one_of(
    st.tuples(st.just("correct"), st.integers(-2, 3), st.integers(-2000, 30_000), st.just("")),
    st.tuples(st.just("at once"), st.just(1), st.integers(0, 30_000), st.just("")),
    st.tuples(st.just("wait"), st.just(1), st.integers(0, 30_000), NAMES),
    st.tuples(st.sampled_from(["is lost", "leaves"]), st.just(1), st.just(0), NAMES),
    st.tuples(st.sampled_from(["time passes", "the line is lost"]), st.just(0), st.just(0), st.just("")),
)
PASSING = ("time passes", 0, 0, "")
IN_LINE = [("at once", 1, 3000, ""), *(("wait", 1, 100, name) for name in "abc")]
MOST_WAIT_MS = {"correct": -1, "at once": 0, "wait": 60_000}


@pytest.mark.holds(
    "agents.md",
    "A rate limit is one bucket for all workers, and calls have their turns in the order in which they came",
)
@given(rates=RATES, takes=st.lists(TAKES, min_size=1, max_size=20))
@example(
    rates=(0, 600), takes=[*IN_LINE, *(("is lost", 1, 0, name) for name in "ab"), *[PASSING] * 7, IN_LINE[3]]
)
@example(
    rates=(0, 600), takes=[*IN_LINE, ("the line is lost", 0, 0, ""), IN_LINE[2], *[PASSING] * 7, IN_LINE[2]]
)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_script_does_what_its_model_does(
    redis_server: Any, rates: tuple[int, int], takes: list[tuple[str, int, int, str]]
) -> None:
    keys = TaskKeys(f"default/{secrets.token_hex(8)}")
    client: Any = Redis(
        port=redis_server.port, username=ADMIN, password=redis_server.password, decode_responses=True
    )
    script = client.register_script(script_source("limit"))
    bucket = Bucket(requests_per_minute=rates[0], tokens_per_minute=rates[1])
    for what, requests, tokens, name in takes:
        match what:
            case "time passes" if bucket.at is not None:  # half a minute
                client.hincrby(keys.limit("l"), "at", -30_000)
                bucket.at -= 30_000
            case "the line is lost":  # a Redis that is full may do that
                client.delete(keys.limit_line("l"))
                bucket.line.clear()
            case "is lost":
                client.delete(keys.limit_place("l", name))
                bucket.lose(name)
            case "leaves":
                was_in_line = client.lrem(keys.limit_line("l"), 0, name)
                had_a_place = client.delete(keys.limit_place("l", name))
                assert bool(had_a_place and not was_in_line) == bucket.leave(name)
            case "correct" | "at once" | "wait":
                most_wait = MOST_WAIT_MS[what]
                args = [keys.prefix, keys.limit("l"), *rates, requests, tokens, most_wait, name]
                is_taken, wait, now = script(keys=[keys.leases], args=args)
                assert (bool(is_taken), wait) == bucket.take(requests, tokens, most_wait, now, name)
        assert client.lrange(keys.limit_line("l"), 0, -1) == bucket.line
    for what, level in bucket.left.items():
        assert float(client.hget(keys.limit("l"), what)) == pytest.approx(level, abs=1e-3)
    assert client.exists(keys.limit("l")) == (bucket.at is not None)
    for key in client.scan_iter(f"{keys.limit('l')}*"):
        assert client.pttl(key) > 0, "a bucket that is full again goes, and so does a line of the lost"
    client.close()


@pytest.mark.holds(
    "agents.md",
    "A rate limit is one bucket for all workers, and calls have their turns in the order in which they came",
)
@pytest.mark.holds("agents.md", "While Redis does not answer, no call waits for a rate limit")
async def test_two_workers_share_a_bucket_and_have_their_turns_in_order(redis_server: Any) -> None:
    config = QueueConfig(
        fleet=f"default/{secrets.token_hex(8)}",
        url=redis_server.url,
        password_path=redis_server.password_path,
    )
    limits = [RateLimit(name="openai", requests_per_minute=60, tokens_per_minute=6000)]
    clients = [connect(config) for _ in range(2)]
    one, two = (RateLimits(client, config.fleet, limits) for client in clients)
    taken = [await (one, two)[number % 2].take("openai", 100, 60) for number in range(64)]
    waits = [turn.wait_seconds for turn in taken]
    assert all(turn.is_taken for turn in taken)
    assert waits[:59] == [0.0] * 59
    assert waits[61:] == sorted(waits[61:])
    assert waits[-1] > waits[61] > 0, "who came later has a later turn"
    assert not (await two.take("openai", 100, 0)).is_taken, "nobody jumps the queue"
    assert not (await two.take("openai", 1_000_000, 60)).is_taken, "the bucket is full in more than a minute"
    before = (await one.take("openai", 0, 60)).wait_seconds
    await two.correct("openai", requests=-3, tokens=-300)
    assert (await one.take("openai", 0, 60)).wait_seconds < before, "what is given back is there for others"
    assert (await one.take("other", 1, 0)).is_taken, "a name without a limit"
    await asyncio.gather(*(client.aclose() for client in clients))
    redis_server.stop()
    assert (await one.take("openai", 100, 0)).is_taken, "the journal itself waits for Redis"


@pytest.mark.holds(
    "agents.md",
    "Nobody passes those in line at a rate limit, in whichever worker; who is lost or cancelled leaves it",
)
async def test_two_workers_share_a_line_that_a_large_call_cannot_be_passed_in(redis_server: Any) -> None:
    config = QueueConfig(
        fleet=f"default/{secrets.token_hex(8)}",
        url=redis_server.url,
        password_path=redis_server.password_path,
    )
    limits = [RateLimit(name="openai", tokens_per_minute=6000)]
    clients = [connect(config) for _ in range(2)]
    one, two = (RateLimits(client, config.fleet, limits) for client in clients)
    first = await one.take("openai", 6600, 60)
    assert (first.is_taken, first.wait_seconds) == (True, 0.0), "more than a minute's worth of a full bucket"
    assert not (await one.take("openai", 30_000, 60, "large")).is_taken
    assert not (await two.take("openai", 100, 60, "small")).is_taken, "it came later"
    assert not (await two.take("openai", 100, 60)).is_taken, "it stands not even in line"
    await two.correct("openai", requests=0, tokens=-700)
    assert not (await two.take("openai", 100, 60, "small")).is_taken
    turn = await one.take("openai", 30_000, 60, "large")
    assert turn.is_taken, "the call of the other worker has let it take what it wants"
    assert 55 < turn.wait_seconds <= 60
    await one.leave("openai", 30_000, "large")
    turn = await two.take("openai", 100, 60, "small")
    assert (turn.is_taken, turn.wait_seconds) == (True, 0.0), "what the other one had taken is back"
    await one.leave("openai", 30_000, "large")
    assert (await two.take("openai", 6600, 60)).is_taken, "it leaves once"
    await asyncio.gather(*(client.aclose() for client in clients))
    redis_server.stop()
    await one.leave("openai", 100, "another")
