"""How much of the queue and of Redis may be taken: by all submissions together, and by one caller.

Submissions stop at `max_stored_mib`, by the bytes that the fleet's tasks hold. Without it they stop when
three quarters of Redis' maxmemory are used, by whoever uses it. What is left is the workers', but what they
write counts towards the share of the task's caller, which they do not exceed.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import NoPermissionError

from flotilla_runtime.agent.futures import heard
from flotilla_runtime.agent.store.redis_facts import MIB, RedisFacts
from flotilla_runtime.contract import QueueConfig

LOOK_EVERY_SECONDS: Final = 1.0
PERCENT: Final = 100


class Quotas:
    """The quotas as they are now. Redis is asked about its memory once a second, for all who want to know."""

    def __init__(
        self, client: Redis, config: QueueConfig, monotonic_seconds: Callable[[], float] = time.monotonic
    ) -> None:
        self._client = client
        self._config = config
        self._clock = monotonic_seconds
        self._look_at = float("-inf")
        self._memory: RedisFacts | None = None
        self._looking: asyncio.Task[None] | None = None

    async def now(self) -> dict[str, Any]:
        """The quotas for the script that submits; without `bytes` there is no limit of bytes."""
        memory = None if self._config.max_stored_mib is not None else await self._look()
        limit_mib = self._config.max_stored_mib if memory is None else memory.limit_mib
        quota = quota_of(self._config, limit_mib)
        if memory is not None and memory.limit_mib is not None and memory.used_mib is not None:
            quota["memory_full"] = memory.used_mib >= memory.limit_mib
        return quota

    async def share(self) -> int | None:
        """The bytes that one caller's tasks may hold; None if there is no limit."""
        each = (await self.now()).get("bytes_each")
        return None if each is None else int(each)

    async def _look(self) -> RedisFacts | None:
        if self._clock() >= self._look_at:
            if self._looking is None or self._looking.done():
                self._looking = asyncio.create_task(self._ask())
                self._looking.add_done_callback(heard)  # those who waited may be gone
            await asyncio.shield(self._looking)
        return self._memory

    async def _ask(self) -> None:
        try:
            self._memory = RedisFacts.of(await self._client.info("memory"), None)
        except NoPermissionError:
            self._memory = None
        self._look_at = self._clock() + LOOK_EVERY_SECONDS


def quota_of(config: QueueConfig, limit_mib: float | None) -> dict[str, Any]:
    """Places and bytes for everybody and for one caller, who may always have one task. Pure."""
    share = config.queue_percent / PERCENT
    quota: dict[str, Any] = {
        "places": config.max_waiting,
        "places_each": max(1, int(config.max_waiting * share)),
    }
    if limit_mib is not None:
        quota |= {"bytes": int(limit_mib * MIB), "bytes_each": int(limit_mib * MIB * share)}
    return quota
