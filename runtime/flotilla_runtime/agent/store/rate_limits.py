"""The rate limits of a fleet: a token bucket for each in Redis, so all workers share it."""

from collections.abc import Iterable
from typing import Any, Final

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from flotilla_runtime.agent.levers.buckets import Turn
from flotilla_runtime.agent.store.script_values import script_source
from flotilla_runtime.contract import RateLimit, TaskKeys

IN_ANY_CASE: Final = -1

log = structlog.get_logger(__name__)


class RateLimits:
    """The buckets of these limits. While Redis does not answer nothing is counted, and no call waits."""

    def __init__(self, client: Redis, fleet: str, limits: Iterable[RateLimit]) -> None:
        self._limits = {limit.name: limit for limit in limits}
        self._keys = TaskKeys(fleet)
        self._script = client.register_script(script_source("limit"))

    async def take(self, limit: str, tokens: int, most_wait_seconds: float) -> Turn:
        """Take one request and these tokens, unless the turn comes later than that."""
        return await self._run(limit, 1, tokens, round(most_wait_seconds * 1000))

    async def correct(self, limit: str, *, requests: int, tokens: int) -> None:
        """Take these too, whatever is left; less than nothing is given back."""
        await self._run(limit, requests, tokens, IN_ANY_CASE)

    async def _run(self, name: str, requests: int, tokens: int, most_wait_ms: int) -> Turn:
        limit = self._limits.get(name)
        if limit is None:
            return Turn(wait_seconds=0.0, is_taken=True)
        rates = (limit.requests_per_minute or 0, limit.tokens_per_minute or 0)
        args: list[Any] = [self._keys.prefix, self._keys.limit(name), *rates, requests, tokens, most_wait_ms]
        try:
            is_taken, wait_ms, _ = await self._script(keys=[self._keys.leases], args=args)
        except (RedisError, OSError) as problem:
            log.warning("rate_limit_not_counted", limit=name, problem=str(problem))
            return Turn(wait_seconds=0.0, is_taken=True)
        return Turn(wait_seconds=int(wait_ms) / 1000, is_taken=bool(int(is_taken)))
