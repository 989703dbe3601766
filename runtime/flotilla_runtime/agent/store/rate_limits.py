"""The rate limits of a fleet: a token bucket for each in Redis, so all workers share it."""

from collections.abc import Iterable
from typing import Any, Final

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from flotilla_runtime.agent.levers.buckets import Turn
from flotilla_runtime.agent.store.script_values import script_source
from flotilla_runtime.contract import RateLimit, TaskKeys
from flotilla_runtime.contract.failure_texts import what_failed

IN_ANY_CASE: Final = -1

log = structlog.get_logger(__name__)


class RateLimits:
    """The buckets of these limits. While Redis does not answer nothing is counted, and no call waits."""

    def __init__(self, client: Redis, fleet: str, limits: Iterable[RateLimit]) -> None:
        self._limits = {limit.name: limit for limit in limits}
        self._keys = TaskKeys(fleet)
        self._client = client
        self._script = client.register_script(script_source("limit"))

    async def take(self, limit: str, tokens: int, most_wait_seconds: float, place: str | None = None) -> Turn:
        """Take one request and these tokens, unless the turn comes later than that."""
        return await self._run(limit, 1, tokens, round(most_wait_seconds * 1000), place or "")

    async def correct(self, limit: str, *, requests: int, tokens: int) -> None:
        """Take these too, whatever is left; less than nothing is given back."""
        await self._run(limit, requests, tokens, IN_ANY_CASE)

    async def leave(self, limit: str, tokens: int, place: str) -> None:
        """Leave the line, and give back what was taken for this place meanwhile."""
        try:
            async with self._client.pipeline(transaction=True) as pipe:
                pipe.lrem(self._keys.limit_line(limit), 0, place)
                pipe.delete(self._keys.limit_place(limit, place))
                was_in_line, had_a_place = await pipe.execute()
        except (RedisError, OSError) as problem:
            log.warning("rate_limit_not_counted", limit=limit, problem=what_failed(problem))
            return
        if had_a_place and not was_in_line:
            await self.correct(limit, requests=-1, tokens=-tokens)

    async def _run(self, name: str, requests: int, tokens: int, most_wait_ms: int, place: str = "") -> Turn:
        limit = self._limits.get(name)
        if limit is None:
            return Turn(wait_seconds=0.0, is_taken=True)
        rates = (limit.requests_per_minute or 0, limit.tokens_per_minute or 0)
        bucket = (self._keys.prefix, self._keys.limit(name), *rates)
        args: list[Any] = [*bucket, requests, tokens, most_wait_ms, place]
        try:
            is_taken, wait_ms, _ = await self._script(keys=[self._keys.leases], args=args)
        except (RedisError, OSError) as problem:
            log.warning("rate_limit_not_counted", limit=name, problem=what_failed(problem))
            return Turn(wait_seconds=0.0, is_taken=True)
        return Turn(wait_seconds=int(wait_ms) / 1000, is_taken=bool(int(is_taken)))
