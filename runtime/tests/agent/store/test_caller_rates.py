"""The buckets of callers in a real Redis."""

import asyncio
from typing import Any

import pytest

from flotilla_runtime.agent.store.caller_rates import CallerRates
from flotilla_runtime.agent.store.connections import connect
from flotilla_runtime.contract import QueueConfig

pytestmark = pytest.mark.services


@pytest.mark.holds(
    "tasks.md", "A caller that asks too often gets 429 and Retry-After, at all gateways together"
)
@pytest.mark.attack("A caller sends requests without end")
async def test_a_caller_has_a_minutes_requests_at_all_gateways_together(redis_server: Any) -> None:
    config = QueueConfig(
        fleet="default/support", url=redis_server.url, password_path=redis_server.password_path
    )
    clients = [connect(config) for _ in range(2)]
    gateways = [CallerRates(client, config.fleet, 60) for client in clients]
    waits = await asyncio.gather(
        *(gateways[number % 2].wait_seconds("ann") for number in range(100)),
    )
    taken = sum(wait == 0 for wait in waits)
    assert 60 <= taken <= 65, "a bucket of 60, and what drips in meanwhile"
    assert all(0 < wait <= 1 for wait in waits if wait)
    assert await gateways[0].wait_seconds("bob") == 0, "everybody has a bucket"
    await asyncio.sleep(1.1)
    assert await gateways[0].wait_seconds("ann") == 0, "one request a second comes back"
    for client in clients:
        await client.aclose()
    redis_server.stop()
    assert await gateways[0].wait_seconds("ann") == 0, "the request itself is told that Redis is away"
