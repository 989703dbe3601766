"""Executors and workers that are lost with a call under way: real processes and a real Redis."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from agent_support import noted
from agent_support.running import program_of, tool_of
from agent_support.stores import task
from flotilla_runtime.agent.budgets import Amount, Budget
from flotilla_runtime.agent.engine.context import Context, Task
from flotilla_runtime.agent.engine.run import Clock, Interrupt, Means, RunOutcome, TaskRun
from flotilla_runtime.agent.journal import TaskStatus
from flotilla_runtime.agent.protocols import Call, Reconciled, Reply, Session
from flotilla_runtime.agent.store.connections import connect
from flotilla_runtime.agent.store.task_store import TaskStore
from flotilla_runtime.agent.tasks import Claim
from flotilla_runtime.agent.tools.runner import ToolRunner
from flotilla_runtime.agent.worker.executors import AskingSettings, Executors
from flotilla_runtime.agent.worker.loading import load_tool
from flotilla_runtime.contract import Effect, ExecutorConfig, QueueConfig, ToolConfig
from router_support.waiting import until, until_told

pytestmark = [pytest.mark.services, pytest.mark.once]

CLOCK = Clock(monotonic_seconds=time.monotonic)
EFFECTS = {"read": Effect.PURE, "put": Effect.IDEMPOTENT, "pay": Effect.UNSAFE}
TOOLS = [
    ToolConfig(name=name, python=f"{noted.__name__}:act", effect=effect) for name, effect in EFFECTS.items()
]


class OverExecutors:
    """Makes the calls of a worker, which has nothing but these tools."""

    def __init__(self, runner: ToolRunner) -> None:
        self._runner = runner

    async def reservation(self, call: Call, session: Session, budget: Budget) -> tuple[Call, Amount]:
        return call, Amount()

    async def make(self, call: Call, session: Session) -> Reply:
        return await self._runner.make(call, session.task_id)

    async def reconcile(self, call: Call, session: Session) -> Reconciled | None:
        return await self._runner.reconcile(call)


class Site:
    """A fleet in a real Redis, with executors as processes."""

    def __init__(self, server: Any, folder: Path) -> None:
        self.queue = QueueConfig(
            fleet="default/support",
            url=server.url,
            password_path=server.password_path,
            lease_seconds=1,
            unknown_effect_seconds=3600,
        )
        self.store = TaskStore(connect(self.queue), self.queue)
        self.folder = folder
        self.notes = folder / "notes"

    @contextmanager
    def executor(self) -> Iterator["subprocess.Popen[bytes]"]:
        config = ExecutorConfig(queue=self.queue, tools=tuple(TOOLS), revision="v1", metrics_port=0)
        path = self.folder / "config.json"
        path.write_text(json.dumps(config.model_dump(mode="json")))
        command = [sys.executable, "-m", "flotilla_runtime.agent.executor", "--config", str(path)]
        tests = str(Path(noted.__file__).parents[1])
        search = os.pathsep.join([tests, *sys.path])
        environment = {**os.environ, noted.NOTES: str(self.notes), "PYTHONPATH": search}
        with (self.folder / "executor.log").open("ab") as log:
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    async def begin(self, name: str, calls: OverExecutors, worker: str) -> TaskRun:
        """A run of the task that calls the tool of this name."""

        async def agent(ctx: Context, _task: Task) -> Any:
            return await ctx.tool(name, {})

        claims: list[Claim] = []

        async def granted() -> bool:
            claims.extend(await self.store.claim(worker, 1))
            return bool(claims)

        await until_told(granted)
        (claim,) = claims
        loaded = await self.store.load(claim.id)
        assert loaded is not None
        means = Means(worker=worker, journal=self.store, calls=calls, clock=CLOCK)
        return TaskRun(claim, loaded, program_of(agent, tool_of(name, EFFECTS[name])), means)

    def noted(self) -> list[list[str]]:
        return [line.split() for line in self.notes.read_text().splitlines()] if self.notes.exists() else []

    def may_end(self) -> None:
        (self.folder / "go").touch()


@pytest.fixture
async def site(redis_server: Any, tmp_path: Path) -> AsyncIterator[Site]:
    opened = Site(redis_server, tmp_path)
    yield opened
    await opened.store.close()


@pytest.fixture
async def calls(site: Site) -> AsyncIterator[OverExecutors]:
    settings = AskingSettings(process="w1#x", revision="v1", look_seconds=0.1, most_lost=5)
    executors = Executors(site.store.tool_requests, settings)
    following = asyncio.create_task(executors.run())
    tools = {config.name: load_tool(0, config) for config in TOOLS}
    runner = ToolRunner(tools, elsewhere=executors)
    yield OverExecutors(runner)
    following.cancel()
    await runner.close()


@pytest.mark.holds(
    "tools.md", "A lost executor repeats no Unsafe call; another call goes to the next one, with the same key"
)
async def test_what_becomes_of_the_calls_of_an_executor_that_is_killed(
    site: Site, calls: OverExecutors
) -> None:
    runs = {}
    for name in EFFECTS:
        await site.store.submit(task(name))
        runs[name] = asyncio.create_task((await site.begin(name, calls, f"w-{name}")).run())
    with site.executor() as first:
        await until(lambda: len(site.noted()) == 3)
    site.may_end()
    with site.executor() as second:
        async with asyncio.timeout(30):
            outcomes = {name: await running for name, running in runs.items()}
    assert outcomes == {"read": RunOutcome.ENDED, "put": RunOutcome.ENDED, "pay": RunOutcome.SUSPENDED}
    records = {record.id: record for record in await site.store.records(list(EFFECTS))}
    assert (records["read"].result, records["put"].result) == ("done", "done")
    assert records["pay"].status is TaskStatus.SUSPENDED
    by_process = {pid: sorted(key for key, its in site.noted() if its == pid) for _, pid in site.noted()}
    before, after = by_process[str(first.pid)], by_process[str(second.pid)]
    assert (len(before), len(after)) == (3, 2)
    assert set(after) < set(before), "the same keys, and not that of the Unsafe call"


@pytest.mark.holds(
    "tools.md", "When a worker is lost, its functions go on and the next worker gets their replies"
)
async def test_a_call_goes_on_when_its_worker_is_lost_and_the_next_one_gets_its_reply(
    site: Site, calls: OverExecutors
) -> None:
    await site.store.submit(task("pay"))
    with site.executor():
        run = await site.begin("pay", calls, "w1")
        running = asyncio.create_task(run.run())
        await until(lambda: len(site.noted()) == 1)
        run.interrupt(Interrupt.LOST)
        assert await running is RunOutcome.LOST
        site.may_end()
        assert await (await site.begin("pay", calls, "w2")).run() is RunOutcome.ENDED
    (record,) = await site.store.records(["pay"])
    assert (record.status, record.result, len(site.noted())) == (TaskStatus.SUCCEEDED, "done", 1)


@pytest.mark.holds("tools.md", "A cancelled call is taken back, or its function is stopped")
async def test_a_cancelled_task_stops_its_function(site: Site, calls: OverExecutors) -> None:
    await site.store.submit(task("pay"))
    with site.executor():
        run = await site.begin("pay", calls, "w1")
        running = asyncio.create_task(run.run())
        await until(lambda: len(site.noted()) == 1)
        run.interrupt(Interrupt.CANCEL)
        assert await running is RunOutcome.ENDED

        async def nothing_runs() -> bool:
            return not (await site.store.tool_requests.figures()).executors

        await until_told(nothing_runs)
