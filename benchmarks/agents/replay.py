"""Whether a task's journal and its replay grow linearly: 1,000 calls compared with 100.

A task makes its calls and is handed over. Then it is run again from its journal, up to where it was: that is
the replay, from the loaded journal to the moment at which the agent has all its results.
"""

import asyncio
import statistics
import time
from pathlib import Path
from typing import Any, Final

from agents.store_alone import ARGUMENTS, VALUE, claimed
from fleet.redis_site import SingleRedis
from fleet.site import FLEET
from flotilla_runtime.agent import journal
from flotilla_runtime.agent.budgets import Amount, Budget
from flotilla_runtime.agent.engine.context import Context, Task
from flotilla_runtime.agent.engine.run import Clock, Interrupt, Means, TaskRun
from flotilla_runtime.agent.journal import CallOutcome
from flotilla_runtime.agent.programs import Program
from flotilla_runtime.agent.protocols import Call, Reconciled, Reply, Session
from flotilla_runtime.agent.store.connections import connect
from flotilla_runtime.agent.store.task_store import TaskStore
from flotilla_runtime.agent.tasks import Claim, LoadedTask
from flotilla_runtime.agent.worker.loading import load_tool
from flotilla_runtime.contract import ToolConfig, WorkerConfig

FEW, MANY = 100, 1000
REPLAYS: Final = 5
RUN_SECONDS: Final = 60
WORKER: Final = "worker-0"
MODEL: Final = {"role": "Default", "name": "none", "url": "http://127.0.0.1:1/v1", "model": "none"}
TOOL: Final = ToolConfig.model_validate(
    {"name": "weather", "http": {"url": "http://127.0.0.1:1"}, "effect": "Idempotent"}
)
CLOCK: Final = Clock(monotonic_seconds=time.monotonic)


class ReadyCalls:
    """Calls whose answers are there at once."""

    async def reservation(self, call: Call, session: Session, budget: Budget) -> tuple[Call, Amount]:
        """Nothing is reserved."""
        return call, Amount()

    async def make(self, call: Call, session: Session) -> Reply:
        """The same answer to every call."""
        return Reply(outcome=CallOutcome.SUCCEEDED, value=VALUE)

    async def reconcile(self, call: Call, session: Session) -> Reconciled | None:
        """No call is ever unknown."""
        return None


class Caller:
    """An agent that makes so many calls, and then waits."""

    def __init__(self, calls: int) -> None:
        self.made: Final = asyncio.Event()
        self._calls = calls

    async def main(self, ctx: Context, task: Task) -> None:
        """Call, and say when all results are there."""
        for _ in range(self._calls):
            await ctx.tool("weather", ARGUMENTS)
        self.made.set()
        await asyncio.Event().wait()


def run(folder: Path) -> dict[str, Any]:
    """The ratio of bytes or of replay times, whichever is larger, and both."""
    redis = SingleRedis(folder)
    try:
        redis.start()
        config = WorkerConfig.model_validate(
            {"queue": {"fleet": FLEET, **redis.queue()}, "models": [MODEL], "entrypoint": "agents.replay:run"}
        )
        few_bytes, few_seconds = asyncio.run(_measured(config, FEW))
        many_bytes, many_seconds = asyncio.run(_measured(config, MANY))
    finally:
        redis.stop()
    ratios = (many_bytes / few_bytes, many_seconds / few_seconds)
    return {
        "thousand_call_ratio": round(max(ratios), 1),
        "thousand_calls": {
            "bytes_ratio": round(ratios[0], 2),
            "replay_ratio": round(ratios[1], 2),
            "replay_ms": round(1000 * many_seconds, 1),
        },
    }


async def _measured(config: WorkerConfig, calls: int) -> tuple[int, float]:
    """The bytes of the journal, and the processor seconds of a replay: the median."""
    store = TaskStore(connect(config.queue), config.queue)
    (claim,) = await claimed(store, 1, WORKER)
    await _run_to_the_last_call(store, config, claim, await _loaded(store, claim), calls)
    seconds = []
    for _ in range(REPLAYS):
        (claim,) = await store.claim(WORKER, 1)
        task = await _loaded(store, claim)
        seconds.append(await _run_to_the_last_call(store, config, claim, task, calls))
    size = sum(len(journal.encode(entry)) for entry in task.entries)
    await store.close()
    return size, statistics.median(seconds)


async def _run_to_the_last_call(
    store: TaskStore, config: WorkerConfig, claim: Claim, task: LoadedTask, calls: int
) -> float:
    """Run the task until all calls have results, and hand it over; the processor seconds until then."""
    caller, began = Caller(calls), time.process_time()
    means = Means(worker=WORKER, journal=store, calls=ReadyCalls(), clock=CLOCK)
    program = Program(main=caller.main, config=config, tools={TOOL.name: load_tool(0, TOOL)})
    run = TaskRun(claim, task, program, means)
    running = asyncio.create_task(run.run())
    async with asyncio.timeout(RUN_SECONDS):
        await caller.made.wait()
    seconds = time.process_time() - began
    run.interrupt(Interrupt.LEAVE)
    await running
    return seconds


async def _loaded(store: TaskStore, claim: Claim) -> LoadedTask:
    task = await store.load(claim.id)
    assert task is not None
    return task
