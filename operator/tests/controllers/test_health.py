"""Liveness and readiness: each thing a restart can mend, and nothing else."""

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest

from flotilla_operator.cluster.queue import KeyedQueue
from flotilla_operator.controllers.health import Health, Probed
from flotilla_operator.objects.resources import MODEL_REPLICA_SETS, PODS, Key
from flotilla_operator.telemetry.metrics import Metrics


class Timer:
    """A clock whose reading a test sets."""

    def __init__(self) -> None:
        self.now = asyncio.get_running_loop().time()

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Any, key: Key) -> Any:
        raise NotImplementedError


def watcher(resource: Any, age_seconds: float = 0.0, *, synced: bool = True) -> Any:
    at = asyncio.get_running_loop().time() - age_seconds
    event = asyncio.Event()
    if synced:
        event.set()
    mirror = SimpleNamespace(resource=resource)
    return SimpleNamespace(mirror=mirror, active_at=at, attempted_at=at, synced=event)


def health(
    *, watch: Any = None, sweep: Any = None, queue: KeyedQueue | None = None, leading: bool = True
) -> Health:
    return Health(
        Probed(
            reflectors=[watch or watcher(PODS)],
            sweepers=[sweep or watcher(MODEL_REPLICA_SETS)],
            queue=KeyedQueue() if queue is None else queue,
            leading=lambda: leading,
            silence_seconds=70,
            sweep_interval_seconds=300,
        ),
        Metrics(),
    )


async def test_all_is_well() -> None:
    assert health().problems() == []
    assert health().missing() == []


async def test_a_watch_that_gives_no_sign_of_life_is_noticed() -> None:
    assert health(watch=watcher(PODS, 200)).problems() == []
    (problem,) = health(watch=watcher(PODS, 220)).problems()
    assert problem == "the watch of pods has shown no activity for 220 s"


async def test_sweeps_that_stopped_are_noticed() -> None:
    (problem,) = health(sweep=watcher(MODEL_REPLICA_SETS, 1000)).problems()
    assert problem == "modelreplicasets have not been listed for 1000 s"


async def test_a_cache_that_is_not_complete_is_not_ready_but_alive() -> None:
    unready = health(watch=watcher(PODS, synced=False))
    assert (unready.missing(), unready.problems()) == (["pods"], [])


async def test_a_reconcile_that_never_ends_is_noticed() -> None:
    timer = Timer()
    queue = KeyedQueue(timer=timer)
    queue.add(Key("ModelReplicaSet", "default", "m"))
    await queue.take()
    timer.now += 301
    (problem,) = health(queue=queue).problems()
    assert problem.startswith("a reconcile has been running for 301 s")


@pytest.mark.parametrize("leading", [True, False])
async def test_a_queue_nobody_works_on_is_noticed_on_the_leader(*, leading: bool) -> None:
    timer = Timer()
    timer.now -= 400
    queue = KeyedQueue(timer=timer)
    queue.add(Key("ModelReplicaSet", "default", "m"))
    timer.now += 400
    assert bool(health(queue=queue, leading=leading).problems()) is leading


async def test_a_blocked_event_loop_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flotilla_operator.controllers.health.TICK_SECONDS", 0.01)
    found = health()
    ticking = asyncio.create_task(found.tick())
    await asyncio.sleep(0.05)
    assert found.problems() == []
    monkeypatch.setattr("flotilla_operator.controllers.health.LAG_LIMIT_SECONDS", 0.2)
    problems: list[str] = []
    while not problems:
        time.sleep(0.4)  # noqa: ASYNC251 - the point of the test
        await asyncio.sleep(0)
        problems = found.problems()
    assert "late" in problems[0]
    ticking.cancel()
