"""Waits until a replica of Redis has what was just written, where Redis has replicas.

A primary that is lost takes with it what no replica has. So a submission, and the intent of an Unsafe call,
is followed by WAIT on the same connection, or by WAITAOF from Redis 7.2 on where it keeps an append-only
file. A replica that keeps none, or writes it anew after it has copied all, has it in memory. The same
connection means the same primary: after a failover, another connection would ask a primary that never had the
write. WAIT asks for what its own connection wrote last. A script that is sent again writes nothing, so a
count is raised between the two.

Where Redis takes writes only with a replica (`min-replicas-to-write`), each such write must be confirmed,
also if all replicas have gone since: one of them may be the primary now. Elsewhere, that there are replicas
is known for a while. That there are none is asked anew behind each such write, since after a failover one
comes back at any moment. It may be the primary a moment later, without the write.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from redis.asyncio import Redis
from redis.exceptions import NoPermissionError

from flotilla_runtime.agent.errors import UnconfirmedError
from flotilla_runtime.agent.store.connections import MOST_CONNECTIONS
from flotilla_runtime.agent.store.redis_facts import RedisFacts

Answer = TypeVar("Answer")

CONFIRMED_WITHIN_SECONDS: Final = 1.0
LOOK_EVERY_SECONDS: Final = 10.0
MOST_AT_ONCE: Final = MOST_CONNECTIONS // 2  # when no replica answers, the others are left to reads


class Replicas:
    """The replicas of the primary."""

    def __init__(
        self,
        client: Redis,
        counter: str,
        *,
        within_seconds: float = CONFIRMED_WITHIN_SECONDS,
        monotonic_seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._counter = counter
        self._within_seconds = within_seconds
        self._clock = monotonic_seconds
        self._look_at = float("-inf")
        self._must_confirm = False
        self._confirms_files = False
        self._waiting = asyncio.Semaphore(MOST_AT_ONCE)

    async def confirmed(self, write: Callable[["Redis"], Awaitable[Answer]]) -> Answer:
        """Return the answer of a write, once a replica has it. `write` must use the connection it is given.

        Raises UnconfirmedError where no replica confirms in time. Sending the same write again is then safe.
        """
        async with self._waiting, self._client.client() as one:
            answer = await write(one)
            if self._clock() >= self._look_at:
                await self._look(one)
            if self._must_confirm:
                await self._confirm(one)
            return answer

    async def _look(self, one: "Redis") -> None:
        """Redis may refuse INFO, and then does not say whether it has replicas."""
        known_seconds = LOOK_EVERY_SECONDS
        try:
            told = RedisFacts.of(await one.info("replication"), None)
            self._must_confirm = bool(told.replicas or told.requires_replica)
            if self._must_confirm:
                facts = RedisFacts.of(await one.info("server", "persistence"), None)
                self._confirms_files = facts.confirms_files
            else:
                known_seconds = 0.0
        except NoPermissionError:
            self._must_confirm = False
        self._look_at = self._clock() + known_seconds

    async def _confirm(self, one: "Redis") -> None:
        await one.incr(self._counter)
        milliseconds = round(self._within_seconds * 1000)
        if self._confirms_files:
            try:
                told: Any = await one.waitaof(0, 1, milliseconds)
            except NoPermissionError:
                self._confirms_files = False
            else:
                if int(told[1]):
                    return
                milliseconds, self._confirms_files = 1, False  # until the next look
        if int(await one.wait(1, milliseconds)):
            return
        await self._look(one)
        if self._must_confirm:  # else the last replica has gone, or has just become the primary
            await self._client.connection_pool.disconnect(inuse_connections=False)
            raise UnconfirmedError(self._within_seconds)
