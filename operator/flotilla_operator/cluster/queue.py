"""The queue of keys to reconcile.

Each key is held once, however often it is woken. One key's reconciles run one at a time: a key woken while
it runs comes back when it is done. Different keys run in parallel. A key that failed comes back after a time
drawn from zero to a limit that doubles with every failure in a row (full jitter), so many failures that
began together do not stay together.

A key that is woken again and again is not reconciled each time: two reconciles of it begin some time apart,
and after a burst of them further ones only now and then. A set whose thousand pods come up would else be
planned for each of them, on the processors that these pods need to come up. Looks that a plan asks for are
as far apart as it says and use up none of the burst: a set that is looked at every second is woken at once.

Time and randomness come from outside: `timer` is the event loop in production and a hand-turned clock in
tests.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from flotilla_operator.cluster.resources import Key


class Handle(Protocol):
    """A call that has not been made yet."""

    def cancel(self) -> None:
        """Do not make it."""

    def when(self) -> float:
        """When it will be made."""


class Timer(Protocol):
    """What the queue needs of an event loop."""

    def time(self) -> float:
        """Seconds since some fixed point."""

    def call_at(self, when: float, callback: Callable[[Key], None], key: Key) -> Handle:
        """Call later."""


class Observer(Protocol):
    """Who counts what the queue does."""

    def added(self, key: Key) -> None:
        """A key began to wait."""

    def taken(self, key: Key, waited_seconds: float) -> None:
        """A key stopped waiting."""

    def retried(self, key: Key) -> None:
        """A key failed and will come back."""


class Silent:
    """An observer that counts nothing."""

    def added(self, key: Key) -> None:
        """Count nothing."""

    def taken(self, key: Key, waited_seconds: float) -> None:
        """Count nothing."""

    def retried(self, key: Key) -> None:
        """Count nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """How long a key waits after so many failures in a row."""

    base_seconds: float = 1.0
    limit_seconds: float = 300.0

    def delay_seconds(self, failures: int, draw: Callable[[float, float], float]) -> float:
        """A time drawn evenly from zero to the limit for this many failures."""
        return draw(0.0, min(self.limit_seconds, self.base_seconds * 2.0 ** min(failures - 1, 32)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Spacing:
    """How far apart two reconciles of one key begin: so far in a burst of so many, and in the long run."""

    in_burst_seconds: float = 0.0
    burst: int = 1
    sustained_seconds: float = 0.0

    @property
    def credit_seconds(self) -> float:
        """How far ahead of the long run a key may be."""
        return self.burst * self.sustained_seconds


class KeyedQueue:
    """Keys that wait, keys that run, and keys that will come back."""

    def __init__(
        self,
        *,
        timer: Timer | None = None,
        backoff: Backoff | None = None,
        spacing: Spacing | None = None,
        draw: Callable[[float, float], float] = random.uniform,
        observer: Observer | None = None,
    ) -> None:
        self._timer: Timer = timer or asyncio.get_running_loop()
        self._backoff = backoff or Backoff()
        self._spacing = spacing or Spacing()
        self._draw = draw
        self._observer: Observer = observer or Silent()
        self._order: deque[Key] = deque()
        self._waiting_since: dict[Key, float] = {}
        self._running_since: dict[Key, float] = {}
        self._begun_at: dict[Key, float] = {}
        self._spent_until: dict[Key, float] = {}
        self._again: set[Key] = set()
        self._woken: set[Key] = set()
        self._later: dict[Key, Handle] = {}
        self._failures: dict[Key, int] = {}
        self._ready = asyncio.Event()
        self.taken_at = self._timer.time()

    def __len__(self) -> int:
        return len(self._waiting_since)

    def add(self, key: Key) -> None:
        """Reconcile this key as soon as possible."""
        self._woken.add(key)
        self._bring(key)

    def add_after(self, key: Key, seconds: float) -> None:
        """Reconcile this key after a while, unless something wakes it before."""
        if key in self._waiting_since or key in self._again:
            return
        when = self._timer.time() + seconds
        planned = self._later.get(key)
        if planned is not None:
            if planned.when() <= when:
                return
            planned.cancel()
        self._later[key] = self._timer.call_at(when, self._due, key)

    def retry(self, key: Key, at_least_seconds: float = 0.0) -> float:
        """The key's reconcile failed: let it come back after its backoff; returns the delay."""
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        delay = max(at_least_seconds, self._backoff.delay_seconds(failures, self._draw))
        self._observer.retried(key)
        self.add_after(key, delay)
        return delay

    def succeeded(self, key: Key) -> None:
        """The key's reconcile went well: its next failure is its first."""
        self._failures.pop(key, None)

    def failures(self, key: Key) -> int:
        """How often the key failed in a row."""
        return self._failures.get(key, 0)

    def forget(self, key: Key) -> None:
        """The object is gone: nothing is to come back."""
        self._failures.pop(key, None)
        self._begun_at.pop(key, None)
        self._spent_until.pop(key, None)
        self._woken.discard(key)
        self._unplan(key)

    async def take(self) -> Key:
        """The key that waited longest; `done` must follow."""
        while not self._order:
            self._ready.clear()
            await self._ready.wait()
        key = self._order.popleft()
        now = self.taken_at = self._timer.time()
        self._observer.taken(key, now - self._waiting_since.pop(key))
        self._running_since[key] = self._begun_at[key] = now
        if key in self._woken:
            self._woken.discard(key)
            spent_until = max(now, self._spent_until.get(key, now))
            self._spent_until[key] = spent_until + self._spacing.sustained_seconds
        return key

    def done(self, key: Key) -> None:
        """The reconcile of a taken key ended; if it was woken meanwhile, it waits again."""
        del self._running_since[key]
        if key in self._again:
            self._again.discard(key)
            self._bring(key)

    def longest_wait_seconds(self) -> float:
        """How long the first key has been waiting."""
        return self._age(self._waiting_since)

    def longest_run_seconds(self) -> float:
        """How long the slowest reconcile has been running."""
        return self._age(self._running_since)

    def check(self) -> None:
        """Assert what must always hold."""
        assert sorted(self._order) == sorted(self._waiting_since), "order and waiting differ"
        assert not self._waiting_since.keys() & self._running_since.keys(), "a key waits while it runs"
        assert self._again <= self._running_since.keys(), "a key comes back that does not run"
        assert not self._later.keys() & self._waiting_since.keys(), "a key waits and will come later"
        coming = self._waiting_since.keys() | self._again | self._later.keys()
        assert self._woken <= coming, "a key was woken and does not come"

    def _bring(self, key: Key) -> None:
        held_seconds = self._held_seconds(key)
        if held_seconds > 0 and key not in self._running_since:
            self.add_after(key, held_seconds)
            return
        self._unplan(key)
        if key in self._running_since:
            self._again.add(key)
        elif key not in self._waiting_since:
            self._waiting_since[key] = self._timer.time()
            self._order.append(key)
            self._ready.set()
            self._observer.added(key)

    def _held_seconds(self, key: Key) -> float:
        if (begun_at := self._begun_at.get(key)) is None:
            return 0.0
        in_burst = begun_at + self._spacing.in_burst_seconds
        in_the_long_run = self._spent_until.get(key, begun_at) - self._spacing.credit_seconds
        return max(in_burst, in_the_long_run) - self._timer.time()

    def _unplan(self, key: Key) -> None:
        if (planned := self._later.pop(key, None)) is not None:
            planned.cancel()

    def _due(self, key: Key) -> None:
        self._later.pop(key, None)
        self._bring(key)

    def _age(self, since: dict[Key, float]) -> float:
        return self._timer.time() - min(since.values()) if since else 0.0
