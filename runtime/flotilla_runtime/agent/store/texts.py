"""The text of calls under way, in Redis: a capped stream for each task that somebody watches.

It is not written to the append-only file, it is gone a while after its last piece, and nothing depends on it:
the result of a call has the whole text. Gateways watch its channel, so Redis knows whether anybody
does, and a worker sends nothing for a task that nobody watches.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from flotilla_runtime.agent.errors import StoreUnavailableError
from flotilla_runtime.agent.store.redis_errors import as_unavailable
from flotilla_runtime.agent.store.script_values import script_source
from flotilla_runtime.contract import TaskKeys
from flotilla_runtime.contract.failure_texts import what_failed

KEPT_SECONDS: Final = 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A piece of what a model writes. `at` is its place in the call's text, in characters.

    Each try of a call begins anew, and so does each claim of its task. With `ends` the call has ended.
    """

    call: str
    number: int = 0  # of the try
    at: int = 0
    text: str = ""
    answers: bool = False
    ends: bool = False

    def encoded(self) -> str:
        """The piece as text for Redis."""
        told: list[Any] = [self.call, self.number, self.at, self.text, self.answers, self.ends]
        return json.dumps(told, separators=(",", ":"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """A piece as it stands in the stream: when it was written, and under which claim."""

    place: str
    token: int
    piece: Piece

    @property
    def at_ms(self) -> int:
        """When it was written, by Redis' clock."""
        return int(self.place.partition("-")[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskPieces:
    """New pieces of one task, for the worker that holds it; none drops what was shown."""

    task: str
    token: int
    pieces: Sequence[Piece]


class TextStore:
    """The texts of a fleet's tasks."""

    def __init__(self, client: Redis, fleet: str) -> None:
        self._keys = TaskKeys(fleet)
        self._client = client
        self._show = client.register_script(script_source("text"))

    def channel(self, task: str) -> str:
        """The sharded channel on which a task's text is said to have grown."""
        return self._keys.text(task)

    async def watched(self, tasks: Sequence[str]) -> set[str]:
        """Those of these tasks that somebody watches."""
        channels = [self.channel(task) for task in tasks]
        try:
            told: Any = await self._client.pubsub_shardnumsub(*channels)
        except (RedisError, OSError) as problem:
            raise _unavailable(problem) from problem
        return {task for task, (_, count) in zip(tasks, told, strict=True) if int(count)}

    async def show(self, tasks: Iterable[TaskPieces]) -> None:
        """Add pieces, and wake who watches these tasks."""
        parts: list[Any] = []
        for one in tasks:
            parts += [one.task, one.token, json.dumps([piece.encoded() for piece in one.pieces])]
        try:
            await self._show(keys=[self._keys.leases], args=[self._keys.prefix, KEPT_SECONDS * 1000, *parts])
        except (RedisError, OSError) as problem:
            raise _unavailable(problem) from problem

    async def after(self, task: str, place: str, count: int) -> list[Shown]:
        """Up to so many pieces that were shown after this place; "" is the beginning."""
        start = f"({place}" if place else "-"
        try:
            found: Any = await self._client.xrange(self._keys.text(task), start, "+", count)
        except ResponseError:
            return []
        except (RedisError, OSError) as problem:
            raise _unavailable(problem) from problem
        return [
            Shown(place=shown, token=int(fields["token"]), piece=_read(fields["told"]))
            for shown, fields in found
        ]


def _read(told: str) -> Piece:
    call, number, at, text, answers, ends = json.loads(told)
    return Piece(call=call, number=number, at=at, text=text, answers=answers, ends=ends)


def _unavailable(problem: Exception) -> StoreUnavailableError:
    return as_unavailable(problem) or StoreUnavailableError(what_failed(problem))
