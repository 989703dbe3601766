"""Scopes for the branches of patterns, timers that survive a crash, and choices.

A choice is an entry of the journal that says which branches counted. Whatever depends on the time, such as
who came first, is chosen once; every replay makes the same choice, and does not run the losers again.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from flotilla_runtime.agent.budgets import Refusal
from flotilla_runtime.agent.engine.engine import Engine
from flotilla_runtime.agent.engine.entries import Wanted, done_of, intent_of
from flotilla_runtime.agent.engine.scopes import Scope, Scopes
from flotilla_runtime.agent.engine.stops import Parked
from flotilla_runtime.agent.journal import CallKind, CallOutcome, Done, Intended, WaitKind
from flotilla_runtime.agent.patterns.values import PatternEnd
from flotilla_runtime.agent.protocols import Reply

CHOSEN: Final = "chosen"
MILLISECONDS: Final = 1000

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A choice that is handed in, and what becomes of its write."""

    entries: tuple[Intended, Done]
    written: "asyncio.Future[Refusal | None]"


class Branches:
    """The branches of one run's patterns."""

    def __init__(self, engine: Engine, scopes: Scopes) -> None:
        self._engine = engine
        self._scopes = scopes

    def now_ms(self) -> int:
        """The time, in milliseconds since the epoch."""
        return self._engine.pace.now_ms()

    def allotted(self, name: str, within: Scope | None = None) -> Scope:
        """A scope that is entered later, here or below another one."""
        return self._scopes.allotted(name, within)

    def entered(self, scope: Scope) -> AbstractContextManager[None]:
        """Let this asyncio task make its calls in a scope."""
        return self._scopes.entered(scope)

    def began_at(self, scope: Scope) -> int | None:
        """When an earlier run made the first call in this scope; None if none did."""
        return self._engine.recall.began_at.get(scope.path)

    async def chosen(self, scope: Scope, keys: Sequence[str]) -> Any:
        """Return the choice that an earlier run made in this scope, or None."""
        recall = self._engine.recall
        done = await recall.result(recall.known(_wanted(scope, keys)))
        return None if done is None else done.value

    def choose(self, scope: Scope, keys: Sequence[str], value: Any, losers: Collection[Scope]) -> Choice:
        """Begin to write a choice, and that the losers' calls are given up. They may be cancelled at once."""
        return self._choose(scope, keys, Reply(outcome=CallOutcome.SUCCEEDED, value=value), losers)

    async def confirmed(self, choice: Choice) -> None:
        """Return when a choice stands in the journal."""
        standing = self._engine.recording.confirmed(choice.written, *choice.entries)
        refused = await self._engine.pace.guarded(standing)
        assert refused is None, "a choice reserves nothing"
        await self._engine.pace.not_barred()

    def abandon(self, scope: Scope, keys: Sequence[str], branches: Collection[Scope]) -> None:
        """Note that the agent no longer waits for a pattern, so that it is given up in every replay."""
        if not self._engine.pace.stopped.done():
            self._choose(scope, keys, Reply(outcome=CallOutcome.CANCELLED), branches)

    def count(self, scope: Scope, end: PatternEnd) -> None:
        """Note how a pattern ended, for metrics, unless it had ended in an earlier run."""
        if not self._engine.recall.is_whole(scope.path):
            self._engine.on_pattern(end)

    def give_up(self, branches: Collection[Scope]) -> None:
        """Note that the calls of these branches are given up, also those that are open since another run."""
        if losses := self._losses(branches):
            self._engine.recording.hand_in(*losses)

    async def woken(self, wake: asyncio.Event, scope: Scope, until: int | None) -> bool:
        """Return when the event is set, or True at this moment. Meanwhile the task may be suspended."""
        if until is None:
            await wake.wait()
            return False
        parked = Parked(kind=WaitKind.TIMER, call=scope.path.rstrip("/"), until=until)
        return await self._engine.pace.guarded(self._rung(wake, parked, until))

    async def aside(self, work: Callable[[], Value]) -> Value:
        """Run a function that would block the event loop in a thread, and return its value."""
        return await self._engine.pace.guarded(asyncio.to_thread(work))

    def _choose(self, scope: Scope, keys: Sequence[str], reply: Reply, losers: Collection[Scope]) -> Choice:
        """Write a choice, and in the same write that the calls in the losers' scopes are given up.

        These come first, since they give back room that the choice may need. The write is on its way when
        this returns.
        """
        wanted, now = _wanted(scope, keys), self.now_ms()
        intent = intent_of(wanted, now, self._engine.reserving.step(wanted))
        entries = (intent, done_of(wanted.id, now, reply))
        return Choice(
            entries=entries, written=self._engine.recording.hand_in(*self._losses(losers), *entries)
        )

    def _losses(self, branches: Collection[Scope]) -> list[Done]:
        return self._engine.reserving.losses([branch.path for branch in branches])

    async def _rung(self, wake: asyncio.Event, parked: Parked, until: int) -> bool:
        with self._engine.pace.waiting(parked):
            try:
                async with asyncio.timeout(max(0, until - self.now_ms()) / MILLISECONDS):
                    await wake.wait()
            except TimeoutError:
                return True
        return False


def _wanted(scope: Scope, keys: Sequence[str]) -> Wanted:
    return Wanted(
        id=f"{scope.path}{CHOSEN}", kind=CallKind.CHOICE, target="", hashed={"branches": list(keys)}
    )
