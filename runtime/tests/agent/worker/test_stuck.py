"""A worker whose threads are all held by functions that do not end."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import httpx2
import pytest
from prometheus_client import generate_latest

from agent_support.running import ScriptedCalls, config_of, program_of
from flotilla_runtime.agent.engine.context import Context, Task
from flotilla_runtime.agent.engine.run import Clock
from flotilla_runtime.agent.health import health_application
from flotilla_runtime.agent.store.task_store import TaskStore
from flotilla_runtime.agent.tasks import Claim
from flotilla_runtime.agent.worker.vitals import SILENT_AFTER_SECONDS
from flotilla_runtime.agent.worker.worker import Worker
from router_support.waiting import until


@dataclass(slots=True)
class FakeThreads:
    left_behind: int = 0
    most: int = 2

    @property
    def is_stuck(self) -> bool:
        return self.left_behind >= self.most


@dataclass(slots=True)
class EmptyStore:
    """A store without tasks."""

    claims: int = 0
    left: list[str] = field(default_factory=list)

    async def claim(self, worker: str, wanted: int, request: str, revisions: Sequence[str]) -> list[Claim]:
        self.claims += 1
        return []

    async def wait_for_work(self, seconds: float, revisions: Sequence[str]) -> None:
        await asyncio.sleep(0.005)

    async def leave(self, worker: str, revision: str) -> None:
        self.left.append(worker)


async def idle(ctx: Context, task: Task) -> Any:
    return None


async def asked(worker: Worker, path: str) -> tuple[int, str]:
    transport = httpx2.ASGITransport(app=health_application(worker.vitals, worker.metrics.registry))
    async with httpx2.AsyncClient(transport=transport, base_url="http://w") as client:
        answer = await client.get(path)
    return answer.status_code, answer.text


@pytest.mark.holds(
    "tools.md",
    "A function that found no thread was not begun, and another worker makes the call; a worker "
    "without threads is replaced",
)
@pytest.mark.attack("A tool's function hangs, again and again")
async def test_a_stuck_worker_takes_no_task_says_so_and_fails_its_liveness_probe_after_a_while() -> None:
    now, store, threads = [0.0], EmptyStore(), FakeThreads()
    worker = Worker(
        name="w",
        store=cast(TaskStore, store),
        calls=ScriptedCalls(),
        config=config_of(),
        clock=Clock(monotonic_seconds=lambda: now[0]),
        program=program_of(idle),
        threads=threads,
    )
    stopping = asyncio.Event()
    running = asyncio.create_task(worker.run(stopping))
    await until(lambda: store.claims > 1)
    assert [(await asked(worker, path))[0] for path in ("/readyz", "/healthz")] == [200, 200]

    threads.left_behind = 2
    await asyncio.sleep(0.02)
    claims = store.claims
    status, said = await asked(worker, "/readyz")
    assert (status, "held by a tool" in said) == (503, True)
    assert (await asked(worker, "/healthz"))[0] == 200
    await until(
        lambda: b"flotilla_worker_threads_left_behind 2.0" in generate_latest(worker.metrics.registry)
    )
    now[0] += SILENT_AFTER_SECONDS - 1
    assert (await asked(worker, "/healthz"))[0] == 200
    await asyncio.sleep(1.1)  # it looks again, and takes nothing
    assert store.claims == claims
    now[0] += 1
    assert (await asked(worker, "/healthz"))[0] == 503

    threads.left_behind = 1
    await until(lambda: store.claims > claims)
    assert [(await asked(worker, path))[0] for path in ("/readyz", "/healthz")] == [200, 200]
    stopping.set()
    await running
    assert store.left
