"""The scripts as a whole, against a real Redis."""

from typing import Any

import pytest
from redis.asyncio import Redis

from flotilla_runtime.agent.store.script_values import SCRIPTS, script_source
from redis_servers import ADMIN

pytestmark = pytest.mark.services

SPARE = 5  # Lua allows a script 200 local names, and the parts in front of each have most of them


@pytest.mark.parametrize("name", SCRIPTS)
async def test_there_is_room_for_more_names(redis_server: Any, name: str) -> None:
    spare = "".join(f"local spare_{number} = {number}\n" for number in range(SPARE))
    async with Redis.from_url(redis_server.url, username=ADMIN, password=redis_server.password) as client:
        assert await client.script_load(spare + script_source(name))
