"""The loop whose clock jumps. What uses it: tests/scenes."""

import asyncio
import socket
import time
from datetime import timedelta

import pytest

from tests.support.virtual_time import BEGINNING, DeadlockError, run, running_loop

HOUR = 3600.0


def test_an_hour_takes_no_real_time() -> None:
    async def sleep() -> float:
        await asyncio.sleep(HOUR)
        assert running_loop().now() == BEGINNING + timedelta(hours=1)
        return running_loop().time()

    began = time.monotonic()
    assert run(sleep()) == HOUR
    assert time.monotonic() - began < HOUR / 100


def test_what_can_run_runs_before_the_clock_moves() -> None:
    async def work() -> tuple[float, float]:
        began = running_loop().time()
        for _ in range(1000):
            await asyncio.sleep(0)
        return began, running_loop().time()

    assert run(work()) == (0, 0)


def test_timers_run_in_the_order_of_their_times_and_those_of_one_moment_in_that_of_their_setting() -> None:
    async def record() -> list[int]:
        order: list[int] = []
        loop = asyncio.get_running_loop()
        for number in range(20):
            loop.call_later(5, order.append, number)
        loop.call_later(4, order.append, -1)
        loop.call_later(6, order.append, 99)
        loop.call_later(5, order.append, 98).cancel()
        await asyncio.sleep(10)
        return order

    assert run(record()) == [-1, *range(20), 99]


def test_two_tasks_that_wait_for_each_other_meet_at_the_later_time() -> None:
    async def meet() -> float:
        there = asyncio.Event()

        async def arrive() -> None:
            await asyncio.sleep(7)
            there.set()

        async with asyncio.TaskGroup() as group:
            group.create_task(arrive())
            await asyncio.sleep(3)
            await there.wait()
            return running_loop().time()

    assert run(meet()) == 7


def test_a_time_limit_ends_what_takes_longer() -> None:
    async def wait() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(30):
                await asyncio.Event().wait()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.sleep(HOUR), 12)
        return running_loop().time()

    assert run(wait()) == 42


def test_a_time_limit_does_not_end_what_is_done_before() -> None:
    async def wait() -> float:
        async with asyncio.timeout(30):
            await asyncio.sleep(29)
        await asyncio.sleep(2)
        return running_loop().time()

    assert run(wait()) == 31


def test_a_deadlock_says_what_waits_and_where() -> None:
    async def waits_for_ever() -> None:
        await asyncio.Event().wait()

    async def start() -> None:
        other = asyncio.create_task(waits_for_ever(), name="the other")
        await other

    with pytest.raises(DeadlockError, match=r"the other waits in .*waits_for_ever:\d+ > Event\.wait:\d+"):
        run(start())


def test_the_tasks_of_a_deadlock_are_ended() -> None:
    ended = []

    async def waits_for_ever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("it")

    with pytest.raises(DeadlockError):
        run(waits_for_ever())
    assert ended == ["it"]


@pytest.mark.holds(
    "architecture.md",
    "Everything outside the process is handed in, so an operator without a network runs the same "
    "way each time",
)
def test_threads_and_sockets_are_refused() -> None:
    async def use_a_thread() -> None:
        await asyncio.to_thread(time.sleep, 0)

    async def use_a_socket() -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            await asyncio.get_running_loop().sock_recv(ours, 1)

    with pytest.raises(RuntimeError, match="would run in a thread"):
        run(use_a_thread())
    with pytest.raises(RuntimeError, match="is a socket"):
        run(use_a_socket())
