"""The cache of results in a real Redis: bounded in time and bytes, and never in the way."""

import asyncio
import secrets
from typing import Any

import pytest

from flotilla_runtime.agent.store.connections import connect
from flotilla_runtime.agent.store.result_cache import ResultCache
from flotilla_runtime.contract import QueueConfig, TaskKeys

pytestmark = pytest.mark.services


@pytest.mark.holds("agents.md", "The cache is bounded in time and bytes, and fails no call")
async def test_what_is_kept_goes_with_its_time_or_for_want_of_room(redis_server: Any) -> None:
    config = QueueConfig(
        fleet=f"default/{secrets.token_hex(8)}",
        url=redis_server.url,
        password_path=redis_server.password_path,
    )
    client: Any = connect(config)
    keys = TaskKeys(config.fleet)
    cache = ResultCache(client, config.fleet, most_bytes=10_000)
    await cache.put("soon", "x", 0.05)
    for number in range(8):
        await cache.put(f"r{number}", "y" * 1500, 10 + number)
    assert await cache.get("r0", "r1", "r2", "r3") == [None, None, None, "y" * 1500], (
        "those that end first go"
    )
    assert int(await client.get(f"{keys.prefix}cache-bytes")) <= 10_000
    await cache.put("r7", "z", 60)
    assert await cache.get("r7") == ["z"]
    await cache.put("huge", "w" * 20_000, 60)
    assert await cache.get("huge", "r7") == [None, "z"], "what never fits pushes nobody out"
    await asyncio.sleep(0.06)
    assert await cache.get("soon") == [None]
    for name in ("r3", "r4", "r5", "r6", "r7"):
        await cache.put(name, "", 0.01)
    await asyncio.sleep(0.02)
    await cache.put("last", "", 60)
    held = await client.zrange(f"{keys.prefix}cache-order", 0, -1)
    assert (held, await client.hlen(f"{keys.prefix}cache-sizes")) == (["last"], 1)
    assert int(await client.get(f"{keys.prefix}cache-bytes")) == 250, "what has ended counts no more"
    await client.aclose()
    redis_server.stop()
    await cache.put("r", "y", 10)
    assert await cache.get("r") == [None], "a Redis that is away is a miss"
