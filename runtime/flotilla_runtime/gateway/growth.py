"""Tells streams when the journal of their task has grown: one subscription of Redis for all of a gateway.

The scripts publish on the channel of a task whenever its journal grows. The message says nothing more; each
stream reads the journal itself, at its own pace, and many messages in the meantime are one look. So a slow
reader holds up nothing, and nothing is kept for it.

A subscription can be lost, and messages with it: then all that wait look at once, and every few seconds until
it is there again. Where it is there they look too, but rarely. When a channel is subscribed, they look once.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Final

import structlog
from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError

from flotilla_runtime.contract.failure_texts import what_failed

LOOK_EVERY_SECONDS: Final = 3.0
LOOK_RARELY_SECONDS: Final = 15.0
LISTEN_SECONDS: Final = 5.0  # channels that nobody waits for any more are left at least this often
SUBSCRIBE_AGAIN_SECONDS: Final = 1.0

log = structlog.get_logger(__name__)


class Growth:
    """The subscription, and who waits for which channel."""

    def __init__(
        self,
        client: Redis,
        channel_of: Callable[[str], str],
        look_every_seconds: float = LOOK_EVERY_SECONDS,
        look_rarely_seconds: float = LOOK_RARELY_SECONDS,
    ) -> None:
        self._client = client
        self._channel_of = channel_of
        self._look_every_seconds = look_every_seconds
        self._look_rarely_seconds = look_rarely_seconds
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._subscribed: set[str] = set()
        self._subscription: PubSub | None = None
        self._changing = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def of(self, task_id: str, *also: str) -> AsyncIterator["Watch"]:
        """Follow a task's journal, and other channels of it, for as long as the block runs."""
        channels, grown = (self._channel_of(task_id), *also), asyncio.Event()
        for channel in channels:
            self._waiting.setdefault(channel, set()).add(grown)
        try:
            with contextlib.suppress(RedisError, OSError):  # these end the listening too, which begins anew
                await self._agree()
            yield Watch(grown, self._look_seconds)
        finally:
            for channel in channels:
                followers = self._waiting[channel]
                followers.discard(grown)
                if not followers:
                    del self._waiting[channel]

    @property
    def subscribed(self) -> int:
        """The number of tasks whose channels are subscribed."""
        return len({channel.rpartition(":")[2] for channel in self._subscribed})

    async def follow(self) -> None:
        """Keep the subscription, forever."""
        said = ""
        while True:
            try:
                await self._listen()
            except (RedisError, OSError) as problem:
                if what_failed(problem) != said:
                    said = what_failed(problem)
                    log.warning("events_not_pushed", problem=said)
            except Exception:
                log.exception("events_not_pushed")
            self._subscription = None
            self.wake_all()
            await asyncio.sleep(SUBSCRIBE_AGAIN_SECONDS)

    def wake_all(self) -> None:
        """Let everybody look, as when messages may have been lost, or the gateway stops."""
        for channel in self._waiting:
            self._wake(channel)

    def _look_seconds(self) -> float:
        return self._look_every_seconds if self._subscription is None else self._look_rarely_seconds

    async def _listen(self) -> None:
        """Listen until the connection breaks. A channel of nobody keeps the subscription alive."""
        async with self._client.pubsub() as subscription:
            await subscription.ssubscribe(self._channel_of(""))
            self._subscription, self._subscribed = subscription, set()
            while True:
                await self._agree()
                message = await subscription.get_message(timeout=LISTEN_SECONDS)
                if message is not None:
                    self._wake(message["channel"])

    async def _agree(self) -> None:
        """Subscribe to what somebody waits for, and to nothing else. Redis' confirmation is a message too."""
        async with self._changing:
            subscription = self._subscription
            if subscription is None or self._subscribed == self._waiting.keys():
                return
            if wanted := self._waiting.keys() - self._subscribed:
                await subscription.ssubscribe(*wanted)
            if left := self._subscribed - self._waiting.keys() - wanted:
                await subscription.sunsubscribe(*left)
            self._subscribed = (self._subscribed | wanted) - left

    def _wake(self, channel: str) -> None:
        for grown in self._waiting.get(channel, ()):
            grown.set()


class Watch:
    """One stream's view of its task's channel."""

    def __init__(self, grown: asyncio.Event, look_seconds: Callable[[], float]) -> None:
        self._grown = grown
        self._look_seconds = look_seconds

    async def next(self) -> bool:
        """Return when the journal may have grown; False if it is only time to look again."""
        try:
            async with asyncio.timeout(self._look_seconds()):
                await self._grown.wait()
        except TimeoutError:
            return False
        finally:
            self._grown.clear()
        return True
