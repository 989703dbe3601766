"""How often Redis is asked about its memory. What the quotas do is in test_store_quotas.py."""

import asyncio
from typing import Any, cast

import pytest
from redis.asyncio import Redis

from flotilla_runtime.agent.store.quotas import Quotas
from flotilla_runtime.contract import QueueConfig


class Memory:
    """A Redis that only says how much memory it has."""

    def __init__(self) -> None:
        self.asked = 0
        self.now = 0.0
        self.is_away = False

    async def info(self, section: str) -> dict[str, Any]:
        self.asked += 1
        await asyncio.sleep(0)
        if self.is_away:
            raise ConnectionError("gone")
        return {"used_memory": 2**20, "maxmemory": 2**30, "maxmemory_policy": "noeviction"}


def quotas_of(memory: Memory) -> Quotas:
    return Quotas(cast("Redis", memory), QueueConfig(fleet="ns/fleet", url="redis://"), lambda: memory.now)


@pytest.mark.holds(
    "tasks.md", "Redis is asked about its memory once a second, for all writes that wait to know"
)
async def test_all_that_want_to_know_share_one_look_a_second() -> None:
    memory = Memory()
    quotas = quotas_of(memory)
    shares = await asyncio.gather(*(quotas.share() for _ in range(100)))
    assert (len(set(shares)), memory.asked) == (1, 1)
    memory.now = 0.9
    await quotas.share()
    memory.now = 1.0
    await asyncio.gather(*(quotas.share() for _ in range(100)))
    assert memory.asked == 2


@pytest.mark.holds(
    "tasks.md", "Redis is asked about its memory once a second, for all writes that wait to know"
)
async def test_a_look_that_fails_fails_for_all_and_the_next_one_asks_again() -> None:
    memory = Memory()
    quotas = quotas_of(memory)
    memory.is_away = True
    failed = await asyncio.gather(*(quotas.share() for _ in range(3)), return_exceptions=True)
    assert [type(one) for one in failed] == [ConnectionError] * 3
    memory.is_away = False
    assert await quotas.share() is not None
    assert memory.asked == 2


async def test_one_that_gives_up_takes_the_look_from_nobody() -> None:
    quotas = quotas_of(Memory())
    first, second = (asyncio.create_task(quotas.share()) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert await second is not None
