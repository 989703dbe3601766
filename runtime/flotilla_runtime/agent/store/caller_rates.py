"""How many requests a caller may make: a token bucket for each caller in Redis, so all gateways share it."""

from redis.asyncio import Redis
from redis.exceptions import RedisError

from flotilla_runtime.agent.store.script_values import script_source
from flotilla_runtime.agent.tasks import caller_key
from flotilla_runtime.contract import TaskKeys


class CallerRates:
    """The buckets of a fleet's callers; each holds what it may send in a minute."""

    def __init__(self, client: Redis, fleet: str, requests_per_minute: int) -> None:
        self.requests_per_minute = requests_per_minute
        self._keys = TaskKeys(fleet)
        self._take = client.register_script(script_source("rate"))

    async def wait_seconds(self, caller: str) -> float:
        """Take one request; 0, or after how many seconds the caller may make one.

        While Redis does not answer nothing is counted: the request itself then gets a 503.
        """
        key = self._keys.rate(caller_key(caller))
        try:
            wait_ms = await self._take(
                keys=[self._keys.leases], args=[self._keys.prefix, key, self.requests_per_minute]
            )
            return int(wait_ms) / 1000
        except (RedisError, OSError):
            return 0.0
