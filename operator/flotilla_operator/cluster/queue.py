"""The queue of keys to reconcile.

The queue holds each key once, however often it is woken. Different keys are reconciled in parallel, one key
only once at a time: a key that is woken during its reconcile is queued again when that is done. A key that
failed is queued again after a random time between zero and a limit that doubles with every failure in a row
(full jitter), so that many keys that failed together are not retried together. What a failed reconcile has
changed itself does not bring its key back any earlier; what others change does. When the API server has said
how long it wants to be left alone, nothing brings the key back before.

A key that is woken very often is not reconciled each time. Two reconciles of one key start at least
`in_burst_seconds` apart, and after a burst only one per `sustained_seconds`. Otherwise a set whose thousand
pods are starting would be reconciled for each of them, and would take CPU time that these pods need.
Reconciles that a reconcile asks for after a time (`add_after`) do not count towards the burst.

Time and randomness are arguments: `timer` is the event loop in production and a controlled clock in tests.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from flotilla_operator.objects.resources import Key
from flotilla_operator.objects.retries import Draw, RetryDelay

BACKOFF = RetryDelay(base_seconds=1.0, limit_seconds=300.0)


class Handle(Protocol):
    """A scheduled call."""

    def cancel(self) -> None:
        """Do not make the call."""

    def when(self) -> float:
        """The time of the call."""


class Timer(Protocol):
    """The methods of an event loop that the queue needs."""

    def time(self) -> float:
        """Seconds since some fixed point."""

    def call_at(self, when: float, callback: Callable[[Key], None], key: Key) -> Handle:
        """Call `callback` with the key at this time."""


class Observer(Protocol):
    """Counts what the queue does."""

    def added(self, key: Key) -> None:
        """A key began to wait."""

    def taken(self, key: Key, waited_seconds: float) -> None:
        """A key stopped waiting."""

    def retried(self, key: Key) -> None:
        """A key failed and will be queued again."""


class Silent:
    """An observer that counts nothing."""

    def added(self, key: Key) -> None:
        """Count nothing."""

    def taken(self, key: Key, waited_seconds: float) -> None:
        """Count nothing."""

    def retried(self, key: Key) -> None:
        """Count nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spacing:
    """The least time between the starts of two reconciles of one key: within a burst, and after it."""

    in_burst_seconds: float = 0.0
    burst: int = 1
    sustained_seconds: float = 0.0

    @property
    def credit_seconds(self) -> float:
        """The time that a full burst may use up in advance."""
        return self.burst * self.sustained_seconds


class KeyedQueue:
    """Holds the keys that wait, that run, and that will be queued again later."""

    def __init__(
        self,
        *,
        timer: Timer | None = None,
        backoff: RetryDelay = BACKOFF,
        spacing: Spacing | None = None,
        draw: Draw = random.uniform,
        observer: Observer | None = None,
    ) -> None:
        self._timer: Timer = timer or asyncio.get_running_loop()
        self._backoff = backoff
        self._spacing = spacing or Spacing()
        self._draw = draw
        self._observer: Observer = observer or Silent()
        self._order: deque[Key] = deque()
        self._waiting_since: dict[Key, float] = {}
        self._running_since: dict[Key, float] = {}
        self._begun_at: dict[Key, float] = {}
        self._spent_until: dict[Key, float] = {}
        self._again: set[Key] = set()
        self._by_itself: set[Key] = set()
        self._left_alone_until: dict[Key, float] = {}
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

    def add_by_itself(self, key: Key) -> None:
        """Reconcile this key again because its running reconcile has changed something.

        When that reconcile fails, its backoff comes first.
        """
        if key in self._running_since:
            self._by_itself.add(key)
        else:
            self.add(key)

    def add_after(self, key: Key, seconds: float) -> None:
        """Reconcile this key after this time, unless something wakes it earlier."""
        if key in self._waiting_since or key in self._again:
            return
        when = max(self._timer.time() + seconds, self._left_alone_until.get(key, 0.0))
        planned = self._later.get(key)
        if planned is not None:
            if planned.when() <= when:
                return
            planned.cancel()
        self._later[key] = self._timer.call_at(when, self._due, key)

    def retry(self, key: Key, at_least_seconds: float = 0.0) -> float:
        """Queue a key again after its backoff, because its reconcile failed; returns the delay.

        Nothing brings it back before `at_least_seconds`.
        """
        if at_least_seconds > 0:
            self._left_alone_until[key] = self._timer.time() + at_least_seconds
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        delay = max(at_least_seconds, self._backoff.seconds_after(failures, self._draw))
        self._observer.retried(key)
        self.add_after(key, delay)
        return delay

    def succeeded(self, key: Key) -> None:
        """Reset the key's count of failures after a successful reconcile."""
        self._failures.pop(key, None)
        self._left_alone_until.pop(key, None)

    def failures(self, key: Key) -> int:
        """The number of failures of the key in a row."""
        return self._failures.get(key, 0)

    def forget(self, key: Key) -> None:
        """Forget everything about the key of an object that is gone."""
        self._failures.pop(key, None)
        self._left_alone_until.pop(key, None)
        self._by_itself.discard(key)
        self._begun_at.pop(key, None)
        self._spent_until.pop(key, None)
        self._woken.discard(key)
        self._unplan(key)

    async def take(self) -> Key:
        """Take the key that has waited longest; the caller must call `done` afterwards."""
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
        """End the reconcile of a taken key; if the key was woken in the meantime, it is queued again."""
        del self._running_since[key]
        changed_something = key in self._by_itself
        self._by_itself.discard(key)
        if key in self._again:
            self._again.discard(key)
            self._bring(key)
        elif changed_something and not self._failures.get(key):
            self.add(key)

    def longest_wait_seconds(self) -> float:
        """For how long the first key in the queue has been waiting."""
        return self._age(self._waiting_since)

    def longest_run_seconds(self) -> float:
        """For how long the longest running reconcile has been running."""
        return self._age(self._running_since)

    def check(self) -> None:
        """Assert the invariants."""
        assert sorted(self._order) == sorted(self._waiting_since), "order and waiting differ"
        assert not self._waiting_since.keys() & self._running_since.keys(), "a key waits while it runs"
        assert self._again <= self._running_since.keys(), "a key comes back that does not run"
        assert self._by_itself <= self._running_since.keys(), "a key was changed by itself and does not run"
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
        left_alone = self._left_alone_until.get(key, 0.0)
        if (begun_at := self._begun_at.get(key)) is None:
            return left_alone - self._timer.time()
        in_burst = begun_at + self._spacing.in_burst_seconds
        in_the_long_run = self._spent_until.get(key, begun_at) - self._spacing.credit_seconds
        return max(in_burst, in_the_long_run, left_alone) - self._timer.time()

    def _unplan(self, key: Key) -> None:
        if (planned := self._later.pop(key, None)) is not None:
            planned.cancel()

    def _due(self, key: Key) -> None:
        self._later.pop(key, None)
        self._bring(key)

    def _age(self, since: dict[Key, float]) -> float:
        return self._timer.time() - min(since.values()) if since else 0.0
