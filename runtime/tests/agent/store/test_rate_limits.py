"""The script of a rate limit against its model, and two workers that share a bucket, in a real Redis."""

import asyncio
import secrets
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis

from agent_support.buckets import Bucket
from flotilla_runtime.agent.store.connections import connect
from flotilla_runtime.agent.store.rate_limits import RateLimits
from flotilla_runtime.agent.store.script_values import script_source
from flotilla_runtime.contract import QueueConfig, RateLimit, TaskKeys

pytestmark = pytest.mark.services

RATES = st.tuples(st.sampled_from([0, 1, 60, 6000]), st.sampled_from([0, 600, 1_000_000]))
TAKES = st.tuples(
    st.integers(-2, 3), st.integers(-2000, 5000), st.sampled_from([-1, 0, 500, 60_000]), st.booleans()
)


@given(rates=RATES, takes=st.lists(TAKES, min_size=1, max_size=12))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_script_does_what_its_model_does(
    redis_server: Any, rates: tuple[int, int], takes: list[tuple[int, int, int, bool]]
) -> None:
    keys = TaskKeys(f"default/{secrets.token_hex(8)}")
    client: Any = Redis(port=redis_server.port, password=redis_server.password, decode_responses=True)
    script = client.register_script(script_source("limit"))
    bucket = Bucket(requests_per_minute=rates[0], tokens_per_minute=rates[1])
    for requests, tokens, most_wait, jumps in takes:
        if jumps and client.hexists(keys.limit("l"), "at"):  # half a minute has passed since
            client.hincrby(keys.limit("l"), "at", -30_000)
            assert bucket.at is not None
            bucket.at -= 30_000
        args = [keys.prefix, keys.limit("l"), *rates, requests, tokens, most_wait]
        is_taken, wait, now = script(keys=[keys.leases], args=args)
        expected = bucket.take(requests, tokens, most_wait, now)
        assert bool(is_taken) == expected[0]
        assert abs(wait - expected[1]) <= 1, "the script keeps six decimals"
    for what, level in bucket.left.items():
        assert float(client.hget(keys.limit("l"), what)) == pytest.approx(level, abs=1e-3)
    assert client.exists(keys.limit("l")) == (bucket.at is not None)
    if bucket.at is not None:
        assert client.pttl(keys.limit("l")) > 0, "a bucket that is full again goes"
    client.close()


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
    assert not (await two.take("openai", 1_000_000, 60)).is_taken
    before = (await one.take("openai", 0, 60)).wait_seconds
    await two.correct("openai", requests=-3, tokens=-300)
    assert (await one.take("openai", 0, 60)).wait_seconds < before, "what is given back is there for others"
    assert (await one.take("other", 1, 0)).is_taken, "a name without a limit"
    await asyncio.gather(*(client.aclose() for client in clients))
    redis_server.stop()
    assert (await one.take("openai", 100, 0)).is_taken, "the journal itself waits for Redis"
