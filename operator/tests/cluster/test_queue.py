"""The queue under a hand-turned clock: order, one at a time, backoff, and a state machine."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from flotilla_operator.cluster.queue import KeyedQueue, Spacing
from flotilla_operator.objects.resources import Key

A, B, C = (Key("ModelReplicaSet", "default", name) for name in "abc")


@dataclass
class Planned:
    at: float
    callback: Callable[[Key], None]
    key: Key
    cancelled: bool = False

    def cancel(self) -> None:
        self.cancelled = True

    def when(self) -> float:
        return self.at


@dataclass
class HandClock:
    """A timer that moves when told to."""

    now: float = 0.0
    planned: list[Planned] = field(default_factory=list)

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[Key], None], key: Key) -> Planned:
        self.planned.append(Planned(when, callback, key))
        return self.planned[-1]

    def advance(self, seconds: float) -> None:
        self.now += seconds
        due = sorted((p for p in self.planned if p.at <= self.now), key=Planned.when)
        self.planned = [p for p in self.planned if p.at > self.now]
        for planned in due:
            if not planned.cancelled:
                planned.callback(planned.key)


def longest(_low: float, high: float) -> float:
    return high


def queue_with(clock: HandClock, *, spacing_seconds: float = 0.0) -> KeyedQueue:
    return KeyedQueue(timer=clock, draw=longest, spacing=Spacing(in_burst_seconds=spacing_seconds))


@pytest.mark.holds(
    "architecture.md",
    "The queue holds each key once, runs one reconcile of a key at a time, different keys in parallel",
)
async def test_a_key_woken_many_times_is_held_once() -> None:
    queue = queue_with(HandClock())
    for key in (A, B, A, A):
        queue.add(key)
    assert [await queue.take(), await queue.take()] == [A, B]
    assert len(queue) == 0


async def test_a_key_woken_while_it_runs_comes_back_when_it_is_done() -> None:
    queue = queue_with(HandClock())
    queue.add(A)
    await queue.take()
    queue.add(A)
    assert len(queue) == 0
    queue.done(A)
    assert await queue.take() == A


@pytest.mark.holds(
    "architecture.md",
    "The queue holds each key once, runs one reconcile of a key at a time, different keys in parallel",
)
async def test_different_keys_run_in_parallel_and_one_key_does_not() -> None:
    queue = KeyedQueue(draw=longest)
    running: set[Key] = set()
    most = 0

    async def worker() -> None:
        nonlocal most
        while True:
            key = await queue.take()
            assert key not in running
            running.add(key)
            most = max(most, len(running))
            await asyncio.sleep(0.001)
            running.discard(key)
            queue.done(key)

    workers = [asyncio.create_task(worker()) for _ in range(3)]
    for _ in range(50):
        for key in (A, B, C):
            queue.add(key)
        await asyncio.sleep(0.001)
    assert most == 3
    assert not any(task.done() for task in workers), "no worker has found its key in another's hands"
    for task in workers:
        task.cancel()


@pytest.mark.holds("architecture.md", "Failures back off per key with full jitter")
async def test_backoff_doubles_from_one_second_to_five_minutes() -> None:
    queue = queue_with(HandClock())
    delays = [queue.retry(A) for _ in range(11)]
    assert delays == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]


async def test_success_makes_the_next_failure_the_first() -> None:
    queue = queue_with(HandClock())
    for _ in range(5):
        queue.retry(A)
    queue.succeeded(A)
    assert queue.retry(A) == 1


async def test_a_server_that_names_a_time_is_given_that_time() -> None:
    assert queue_with(HandClock()).retry(A, at_least_seconds=7) == 7


@pytest.mark.holds("decisions/0016-lost-answers.md", "`Retry-After` holds against every wake-up")
async def test_until_then_nothing_brings_the_key_back() -> None:
    clock = HandClock()
    queue = queue_with(clock)
    queue.add(A)
    await queue.take()
    queue.retry(A, at_least_seconds=30)
    queue.add(A)
    queue.done(A)
    queue.add_after(A, 1)
    queue.add(A)
    clock.advance(29)
    assert len(queue) == 0
    clock.advance(1)
    assert await queue.take() == A


async def test_what_a_key_changed_itself_brings_it_back_unless_it_failed() -> None:
    clock = HandClock()
    queue = queue_with(clock)
    for fails in (False, True):
        queue.add(A)
        await queue.take()
        queue.add_by_itself(A)
        if fails:
            queue.retry(A)
        queue.done(A)
        assert len(queue) == (not fails)
        if not fails:
            await queue.take()
            queue.done(A)
    clock.advance(1)
    assert await queue.take() == A


async def test_what_others_change_ends_a_backoff() -> None:
    queue = queue_with(HandClock())
    queue.add(A)
    await queue.take()
    queue.retry(A)
    queue.done(A)
    queue.add(A)
    assert await queue.take() == A


async def test_a_later_look_does_not_put_off_an_earlier_one() -> None:
    clock = HandClock()
    queue = queue_with(clock)
    queue.add_after(A, 5)
    queue.add_after(A, 60)
    clock.advance(5)
    assert await queue.take() == A


async def test_a_wake_up_takes_the_place_of_the_planned_look() -> None:
    clock = HandClock()
    queue = queue_with(clock)
    queue.add_after(A, 5)
    queue.add(A)
    assert await queue.take() == A
    queue.done(A)
    clock.advance(10)
    assert len(queue) == 0


async def test_a_forgotten_key_does_not_come_back() -> None:
    clock = HandClock()
    queue = queue_with(clock)
    queue.retry(A)
    queue.forget(A)
    clock.advance(1000)
    assert len(queue) == 0


async def test_waits_and_runs_are_measured() -> None:
    clock = HandClock()
    queue = queue_with(clock)
    queue.add(A)
    clock.advance(3)
    assert queue.longest_wait_seconds() == 3
    await queue.take()
    clock.advance(4)
    assert (queue.longest_wait_seconds(), queue.longest_run_seconds()) == (0, 4)


def taken_at_once(queue: KeyedQueue) -> Key:
    """Item that a queue gives without waiting."""
    taking = queue.take()
    try:
        taking.send(None)
    except StopIteration as done:
        key: Key = done.value
        return key
    raise AssertionError("a queue that holds something waits")


class QueueMachine(RuleBasedStateMachine):
    """Whatever is asked in whatever order, no woken key is lost and none runs twice at once."""

    spacing_seconds = 0.0

    def __init__(self) -> None:
        super().__init__()
        self.clock = HandClock()
        self.queue = queue_with(self.clock, spacing_seconds=self.spacing_seconds)
        self.running: list[Key] = []
        self.owed: set[Key] = set()
        self.begun_at: dict[Key, float] = {}
        self.left_alone_until: dict[Key, float] = {}

    @rule(key=st.sampled_from([A, B, C]))
    def wake(self, key: Key) -> None:
        self.queue.add(key)
        self.owed.add(key)

    @rule(key=st.sampled_from([A, B, C]), seconds=st.floats(0, 100))
    def wake_later(self, key: Key, seconds: float) -> None:
        self.queue.add_after(key, seconds)

    @rule(key=st.sampled_from([A, B, C]))
    def fail(self, key: Key) -> None:
        self.queue.retry(key)

    @rule(seconds=st.floats(1, 400))
    def fail_and_leave_alone(self, seconds: float) -> None:
        if self.running:
            key = self.running[-1]
            self.queue.retry(key, seconds)
            self.left_alone_until[key] = self.clock.now + seconds

    @rule()
    def change_itself(self) -> None:
        if self.running:
            key = self.running[-1]
            self.queue.add_by_itself(key)
            if not self.queue.failures(key):
                self.owed.add(key)

    @rule(seconds=st.floats(0, 400))
    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule()
    def take(self) -> None:
        if len(self.queue):
            key = taken_at_once(self.queue)
            assert key not in self.running
            self.running.append(key)
            self.owed.discard(key)
            self.has_begun(key)

    def has_begun(self, key: Key) -> None:
        before, now = self.begun_at.get(key), self.clock.now
        assert before is None or now - before >= self.spacing_seconds - 1e-6, "beginnings are apart"
        assert now >= self.left_alone_until.get(key, 0.0) - 1e-6, "it comes before its time"
        self.begun_at[key] = now

    @rule()
    def finish(self) -> None:
        if self.running:
            self.queue.done(self.running.pop())

    @invariant()
    def holds_together(self) -> None:
        self.queue.check()

    def teardown(self) -> None:
        """Whatever was woken and not taken since is taken in the end."""
        for _ in range(3):
            while self.running:
                self.finish()
            self.clock.advance(1000)
            while len(self.queue):
                self.take()
        assert self.owed == set()


class SpacedQueueMachine(QueueMachine):
    """The same with a time between two beginnings of a key."""

    spacing_seconds = 0.5


TestQueueMachine = QueueMachine.TestCase
TestQueueMachine.settings = settings(max_examples=60)
TestSpacedQueueMachine = SpacedQueueMachine.TestCase
TestSpacedQueueMachine.settings = settings(max_examples=60)


def test_what_changes_again_and_again_is_looked_at_now_and_once_more_when_the_time_is_over() -> None:
    async def scenario() -> None:
        clock = HandClock()
        queue = queue_with(clock, spacing_seconds=0.5)
        queue.add(A)
        assert await queue.take() == A
        queue.add(A)
        queue.done(A)
        for _ in range(100):
            queue.add(A)
        assert not len(queue)
        clock.advance(0.5)
        assert await queue.take() == A
        queue.done(A)
        clock.advance(10)
        assert not len(queue)

    asyncio.run(scenario())


@pytest.mark.holds("architecture.md", "A key that is woken all the time is taken only now and then")
async def test_a_key_that_is_woken_all_the_time_is_taken_often_at_first_and_seldom_in_the_long_run() -> None:
    clock = HandClock()
    spacing = Spacing(in_burst_seconds=0.25, burst=8, sustained_seconds=2.0)
    queue = KeyedQueue(timer=clock, draw=longest, spacing=spacing)

    async def taken_within(seconds: float) -> int:
        taken = 0
        for _ in range(int(seconds / 0.125)):
            queue.add(A)
            if len(queue):
                queue.done(await queue.take())
                taken += 1
            clock.advance(0.125)
        return taken

    assert await taken_within(2.5) == 10, "a burst is four a second"
    assert await taken_within(60) == 30
    clock.advance(20)
    assert await taken_within(2.5) == 10, "a key that was left alone may burst again"


async def test_looks_that_a_plan_asks_for_are_on_time_and_use_up_no_wake() -> None:
    clock = HandClock()
    spacing = Spacing(in_burst_seconds=0.25, burst=10, sustained_seconds=2.0)
    queue = KeyedQueue(timer=clock, draw=longest, spacing=spacing)
    queue.add(A)
    for _ in range(100):
        assert await queue.take() == A
        queue.add_after(A, 1)
        queue.done(A)
        clock.advance(1)
        assert len(queue), "every second"
    await queue.take()
    queue.done(A)
    for _ in range(9):
        clock.advance(0.25)
        queue.add(A)
        assert len(queue), "the burst is still there"
        queue.done(await queue.take())
    queue.add(A)
    clock.advance(0.25)
    assert len(queue)
