"""The watchdog of a worker's event loop: it names the line and the task that block it."""

import asyncio
import contextlib
import time

import pytest
import structlog

from flotilla_runtime.agent.worker.watchdog import Watchdog


def block() -> None:
    time.sleep(6)  # as a tool's author may do


async def inner() -> None:
    await asyncio.sleep(0)
    block()


@pytest.mark.holds("tasks.md", "What blocks a worker's event loop is named in its log")
async def test_what_blocks_the_loop_is_named_once_with_its_task() -> None:
    lags: list[float] = []
    watchdog = Watchdog(lags.append, blocked_after_seconds=5, said_every_seconds=60)
    watching = asyncio.create_task(watchdog.run())
    await asyncio.sleep(0.1)

    async def outer() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(inner())  # its task is not named

    with structlog.testing.capture_logs() as logged:
        await asyncio.create_task(outer(), name="01jd0000000000000000000001")
        block()
        await asyncio.sleep(0.3)
    watching.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watching
    (line,) = [line for line in logged if line["event"] == "loop_blocked"]
    assert line["task"] == "01jd0000000000000000000001"
    module, _, rest = line["at"].partition(":")
    assert module.endswith("test_watchdog")
    assert rest == f"{block.__code__.co_firstlineno + 1} block"
    assert line["seconds"] >= 5
    assert max(lags) >= 0.9


async def test_a_loop_that_beats_is_left_alone() -> None:
    with structlog.testing.capture_logs() as logged:
        watching = asyncio.create_task(Watchdog(lambda _: None).run())
        for _ in range(10):
            await asyncio.sleep(0.05)
        watching.cancel()
    assert logged == []
