"""Results that are kept for other tasks, in the fleet's Redis. Whatever goes wrong is a miss."""

from typing import Any, Final

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from flotilla_runtime.agent.store.script_values import script_source
from flotilla_runtime.contract import TaskKeys
from flotilla_runtime.contract.failure_texts import what_failed

MOST_BYTES: Final = 32 * 1024 * 1024  # of a fleet's cache

log = structlog.get_logger(__name__)


class ResultCache:
    """The cache of one fleet; names are hashes."""

    def __init__(self, client: Redis, fleet: str, most_bytes: int = MOST_BYTES) -> None:
        self._client = client
        self._keys = TaskKeys(fleet)
        self._most_bytes = most_bytes
        self._put = client.register_script(script_source("cache_put"))

    async def get(self, *names: str) -> list[str | None]:
        """Return the cached value of each name, None for none."""
        try:
            found: Any = await self._client.mget([self._keys.cached(name) for name in names])
        except (RedisError, OSError) as problem:
            log.warning("cache_not_read", problem=what_failed(problem))
            return [None] * len(names)
        return list(found)

    async def put(self, name: str, text: str, seconds: float) -> None:
        """Keep a text for this long, unless others need its room."""
        args: list[Any] = [self._keys.prefix, name, text, round(seconds * 1000), self._most_bytes]
        try:
            await self._put(keys=[self._keys.leases], args=args)
        except (RedisError, OSError) as problem:
            log.warning("cache_not_written", problem=what_failed(problem))
