"""The task store alone, on a Redis that syncs each write: how long a call's two writes take, and how many go.

A call is what it is for the runtime: its intent is written and answered, then its result.
"""

import asyncio
import os
import secrets
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, Final

from fleet.redis_site import SingleRedis
from fleet.site import FLEET
from flotilla_runtime.agent.journal import CallKind, CallOutcome, Done, Entry, Intended
from flotilla_runtime.agent.store.connections import connect
from flotilla_runtime.agent.store.task_store import TaskStore
from flotilla_runtime.agent.tasks import Claim, NewTask
from flotilla_runtime.contract import Effect, QueueConfig, TaskLimits

VALUE: Final = "The tool said what it had to say, in about two hundred characters. " * 3
ARGUMENTS: Final = {"city": "Lisbon", "day": "tomorrow"}
SINGLE_CALLS: Final = 300
FSYNCS: Final = 200
PROCESSES: Final = 2
TASKS_EACH: Final = 32
RATE_SECONDS: Final = 5.0
LIMITS: Final = TaskLimits(max_steps=10**6, max_tokens=10**9, max_wall_seconds=3600)


def run(folder: Path) -> dict[str, Any]:
    """All figures."""
    redis = SingleRedis(folder)
    try:
        redis.start()
        config = QueueConfig.model_validate({"fleet": FLEET, **redis.queue()})
        overhead = asyncio.run(_one_after_another(config))
        before, calls = _used_bytes(redis), 0
        with ProcessPoolExecutor(PROCESSES) as processes:
            for made in processes.map(_many, [config.model_dump_json()] * PROCESSES):
                calls += made
        after = _used_bytes(redis)
    finally:
        redis.stop()
    return {
        "call_overhead_p50_ms": round(1000 * overhead, 2),
        "fsync_p50_ms": round(1000 * fsync_seconds(folder), 2),
        "store_calls_per_second": round(calls / RATE_SECONDS),
        "bytes_per_call": round((after - before) / calls),
    }


def fsync_seconds(folder: Path) -> float:
    """How long the disk takes to sync a small write: the median."""
    file = os.open(folder / "synced", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        return statistics.median(_timed(lambda: _synced(file)) for _ in range(FSYNCS))
    finally:
        os.close(file)


def call_entries(number: int, at: int) -> tuple[Intended, Done]:
    """The two entries of a call of a tool."""
    call = f"turn/{number}/tool/weather"
    intent = Intended(
        at=at,
        call=call,
        kind=CallKind.TOOL,
        target="weather",
        step=number,
        effect=Effect.IDEMPOTENT,
        arguments_hash="0" * 32,
        arguments=ARGUMENTS,
    )
    return intent, Done(at=at, call=call, outcome=CallOutcome.SUCCEEDED, took_ms=5, value=VALUE)


async def claimed(store: TaskStore, count: int, worker: str) -> list[Claim]:
    """So many new tasks, held by this worker."""
    for _ in range(count):
        await store.submit(NewTask(id=secrets.token_hex(13), input="{}", caller=worker, limits=LIMITS))
    claims: list[Claim] = []
    while len(claims) < count:
        claims += await store.claim(worker, count - len(claims))
    return claims


class Position:
    """Where the next entry of a task's journal goes."""

    def __init__(self, store: TaskStore, claim: Claim, length: int) -> None:
        self._store = store
        self._claim = claim
        self._length = length

    async def write(self, entry: Entry) -> None:
        """Write one entry."""
        self._length = (await self._store.append(self._claim, self._length, [entry])).length


async def _one_after_another(config: QueueConfig) -> float:
    """The seconds of a call's two writes while nothing else is written: the median."""
    store = TaskStore(connect(config), config)
    (claim,) = await claimed(store, 1, "alone")
    loaded = await store.load(claim.id)
    assert loaded is not None
    position, taken = Position(store, claim, len(loaded.entries)), []
    for number in range(SINGLE_CALLS):
        began = time.perf_counter()
        for entry in call_entries(number, 0):
            await position.write(entry)
        taken.append(time.perf_counter() - began)
    await store.close()
    return statistics.median(taken)


def _many(config: str) -> int:
    return asyncio.run(_calls_of_many(QueueConfig.model_validate_json(config)))


async def _calls_of_many(config: QueueConfig) -> int:
    """How many calls tasks write at the same time, within some seconds."""
    store = TaskStore(connect(config), config)
    claims = await claimed(store, TASKS_EACH, secrets.token_hex(4))
    ends = time.monotonic() + RATE_SECONDS
    made = await asyncio.gather(*(_calls_until(store, claim, ends) for claim in claims))
    await store.close()
    return sum(made)


async def _calls_until(store: TaskStore, claim: Claim, ends: float) -> int:
    loaded = await store.load(claim.id)
    assert loaded is not None
    position, number = Position(store, claim, len(loaded.entries)), 0
    while time.monotonic() < ends:
        for entry in call_entries(number, 0):
            await position.write(entry)
        number += 1
    return number


def _used_bytes(redis: SingleRedis) -> int:
    return int(redis.client().info("memory")["used_memory"])


def _synced(file: int) -> None:
    os.write(file, b"x" * 200)
    os.fdatasync(file)


def _timed(act: Callable[[], None]) -> float:
    began = time.perf_counter()
    act()
    return time.perf_counter() - began
