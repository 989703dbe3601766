"""A worker: one event loop that runs many tasks at once.

It claims tasks while it has room. Every third of a lease it renews the leases of all its tasks with one
script, and it stops the runs whose lease is lost or whose task is to be cancelled. When Redis does not answer
for a while, running tasks continue, and a result is sent again for as long as its task may run; a worker that
was cut off for too long finds its tokens stale and drops its tasks. When it is told to stop, it claims no
more tasks and hands each task over between two turns of the loop, or after `handover_seconds` within one.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeVar

import structlog

from flotilla_runtime.agent.budgets import Amount, Budget
from flotilla_runtime.agent.errors import StoreUnavailableError
from flotilla_runtime.agent.journal import Entry, Intended
from flotilla_runtime.agent.metrics import WorkerMetrics
from flotilla_runtime.agent.programs import Program
from flotilla_runtime.agent.protocols import (
    Call,
    Calls,
    ChildEnd,
    Finish,
    Reconciled,
    Reply,
    Session,
    Waits,
    Written,
)
from flotilla_runtime.agent.retries import STORE_BACKOFF
from flotilla_runtime.agent.run import Clock, Interrupt, Means, RunOutcome, TaskRun
from flotilla_runtime.agent.store import TaskStore, new_request
from flotilla_runtime.agent.tasks import Claim, LoadedTask
from flotilla_runtime.backoff import Backoff
from flotilla_runtime.contract import WorkerConfig

Answer = TypeVar("Answer")

CLAIM_AT_ONCE: Final = 32
IDLE_SECONDS: Final = 1.0
RENEWALS_PER_LEASE: Final = 3
LEAST_PATIENCE_SECONDS: Final = 60.0  # so that the end of a task whose time is over can still be written
LAST_WORDS_SECONDS: Final = 5.0
LAG_INTERVAL_SECONDS: Final = 0.25
SILENT_AFTER_SECONDS: Final = 30.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """Repeats requests to Redis for as long as the task may still run, and for at least a minute."""

    metrics: WorkerMetrics
    clock: Clock
    task_ends_at: float = 0.0
    backoff: Backoff = STORE_BACKOFF

    async def answered(self, ask: Callable[[], Awaitable[Answer]]) -> Answer:
        """Repeat a request until Redis answers or the time is over."""
        gives_up_at = max(self.task_ends_at, self.clock.monotonic_seconds() + LEAST_PATIENCE_SECONDS)
        failures = 0
        while True:
            try:
                return await ask()
            except StoreUnavailableError as problem:
                failures += 1
                self.metrics.store_problems.inc()
                log.warning("store_unavailable", problem=problem.problem, failures=failures)
                if self.clock.monotonic_seconds() >= gives_up_at:
                    raise
            await asyncio.sleep(self.backoff.seconds_after(failures, random.uniform))


class PersistentJournal:
    """The store's journal, with each write repeated until it is answered."""

    def __init__(self, store: TaskStore, patience: Patience) -> None:
        self._store = store
        self._patience = patience

    async def append(self, claim: Claim, expected: int, entries: Sequence[Entry]) -> Written:
        """Append entries at this position."""
        return await self._patience.answered(lambda: self._store.append(claim, expected, entries))

    async def spawn(self, claim: Claim, expected: int, intent: Intended, child_input: str) -> Written:
        """Write the intent of a spawned task and submit that task, both or neither."""
        raise NotImplementedError

    async def children(self, ids: Sequence[str]) -> Mapping[str, ChildEnd]:
        """Those of these tasks that have ended."""
        raise NotImplementedError

    async def suspend(self, claim: Claim, expected: int, waits: Waits) -> bool:
        """Give the place up."""
        raise NotImplementedError

    async def finish(self, claim: Claim, finish: Finish) -> None:
        """End the task."""
        await self._patience.answered(lambda: self._store.finish(claim, finish))

    async def release(self, claim: Claim, worker: str) -> None:
        """Hand the task over."""
        await self._patience.answered(lambda: self._store.release(claim, worker))


class MeasuredCalls:
    """Calls whose durations are measured, by kind and outcome."""

    def __init__(self, calls: Calls, metrics: WorkerMetrics, clock: Clock) -> None:
        self._calls = calls
        self._metrics = metrics
        self._clock = clock

    async def reservation(self, call: Call, session: Session, budget: Budget) -> tuple[Call, Amount]:
        """What the call can use at most, and the call cut to what is left."""
        return await self._calls.reservation(call, session, budget)

    async def reconcile(self, call: Call, session: Session) -> Reconciled | None:
        """What is known of an Unsafe call; None if nobody knows."""
        return await self._calls.reconcile(call, session)

    async def make(self, call: Call, session: Session) -> Reply:
        """Make one call and measure it."""
        started = self._clock.monotonic_seconds()
        reply = await self._calls.make(call, session)
        self._metrics.calls.labels(call.kind, reply.outcome).observe(
            self._clock.monotonic_seconds() - started
        )
        return reply


class Worker:
    """Claims tasks, runs them, and hands them over when it must stop."""

    def __init__(
        self,
        *,
        name: str,
        store: TaskStore,
        calls: Calls,
        config: WorkerConfig,
        clock: Clock,
        program: Program,
    ) -> None:
        self.name: Final = name
        self.metrics: Final = WorkerMetrics()
        self._store = store
        self._config = config
        self._clock = clock
        self._program = program
        self._calls = MeasuredCalls(calls, self.metrics, clock)
        self._patience = Patience(metrics=self.metrics, clock=clock)
        self._runs: dict[str, TaskRun] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._looked_at = clock.monotonic_seconds()
        self._answered_at: float | None = None
        self._request = new_request()

    @property
    def is_alive(self) -> bool:
        """Whether the worker has looked for tasks lately; False for one that is stuck."""
        return self._clock.monotonic_seconds() - self._looked_at < SILENT_AFTER_SECONDS

    @property
    def is_ready(self) -> bool:
        """Whether Redis has answered lately."""
        return (
            self._answered_at is not None
            and self._clock.monotonic_seconds() - self._answered_at < SILENT_AFTER_SECONDS
        )

    async def run(self, stopping: asyncio.Event) -> None:
        """Run tasks until `stopping` is set, then hand them over and return."""
        renewing = asyncio.create_task(self._renew_leases())
        measuring = asyncio.create_task(self._measure_lag())
        try:
            await self._take_tasks(stopping)
            await self._hand_over()
        finally:
            for task in (renewing, measuring):
                task.cancel()
            await asyncio.gather(renewing, measuring, return_exceptions=True)

    async def _take_tasks(self, stopping: asyncio.Event) -> None:
        failures = 0
        while not stopping.is_set():
            self._looked_at = self._clock.monotonic_seconds()
            try:
                if failures:  # renew first, or the next claim could take tasks that this worker still runs
                    await self._renew(dict(self._runs))
                await self._take_some(stopping)
                self._answered_at = self._clock.monotonic_seconds()
                failures = 0
            except StoreUnavailableError as problem:
                failures += 1
                self.metrics.store_problems.inc()
                log.warning("store_unavailable", problem=problem.problem, failures=failures)
                await asyncio.sleep(STORE_BACKOFF.seconds_after(failures, random.uniform))

    async def _take_some(self, stopping: asyncio.Event) -> None:
        """Claim tasks for the free places, or wait for a task or for a free place."""
        free = self._config.concurrency - len(self._tasks)
        if free <= 0:
            stopped = asyncio.create_task(stopping.wait())
            await asyncio.wait(
                {*self._tasks, stopped}, timeout=IDLE_SECONDS, return_when=asyncio.FIRST_COMPLETED
            )
            stopped.cancel()
            return
        claims = await self._claim(min(free, CLAIM_AT_ONCE))
        for claim in claims:
            task = asyncio.create_task(self._run_one(claim), name=claim.id)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        self.metrics.running.set(len(self._tasks))
        if not claims:
            await self._store.wait_for_work(IDLE_SECONDS)

    async def _claim(self, wanted: int) -> list[Claim]:
        """Claim tasks by the same request until it is granted some, because an answer may have been lost."""
        claims = await self._store.claim(self.name, wanted, self._request)
        if claims:
            self._request = new_request()
        return claims

    async def _run_one(self, claim: Claim) -> None:
        """Run one claimed task. After any error its lease ends, and another run takes the task over."""
        try:
            task = await self._patience.answered(lambda: self._store.load(claim.id))
            if task is None:
                return
            await self._run_loaded(TaskRun(claim, task, self._program, self._means(task)))
        except Exception:
            self.metrics.runs.labels("Crashed").inc()
            log.exception("task_run_crashed", task=claim.id)

    async def _run_loaded(self, run: TaskRun) -> None:
        """Run the task while its lease is renewed.

        This worker may still have an earlier run of the task: when Redis did not answer for longer than a
        lease, a claim can come before the next renewal. The token of the earlier run is then stale.
        """
        task_id = run.claim.id
        if (earlier := self._runs.get(task_id)) is not None:
            earlier.interrupt(Interrupt.LOST)
        self._runs[task_id] = run
        try:
            outcome = await run.run()
        finally:
            if self._runs.get(task_id) is run:
                del self._runs[task_id]
            self.metrics.running.set(len(self._runs))
        self.metrics.runs.labels(outcome).inc()
        if outcome is RunOutcome.LOST:
            log.warning("task_lost", task=task_id)

    def _means(self, task: LoadedTask) -> Means:
        left_seconds = task.record.limits.max_wall_seconds - task.elapsed_seconds
        ends_at = self._clock.monotonic_seconds() + left_seconds
        return Means(
            worker=self.name,
            journal=PersistentJournal(self._store, replace(self._patience, task_ends_at=ends_at)),
            calls=self._calls,
            clock=self._clock,
        )

    async def _renew_leases(self) -> None:
        """Renew the leases every third of a lease; a renewal that fails is tried again a third later."""
        while True:
            await asyncio.sleep(self._config.queue.lease_seconds / RENEWALS_PER_LEASE)
            held: Mapping[str, TaskRun] = dict(self._runs)
            if not held:
                continue
            try:
                await self._renew(held)
            except StoreUnavailableError as problem:
                self.metrics.store_problems.inc()
                log.warning("leases_not_renewed", problem=problem.problem, tasks=len(held))
            except Exception:
                log.exception("leases_not_renewed", tasks=len(held))

    async def _renew(self, held: Mapping[str, TaskRun]) -> None:
        renewal = await self._store.renew(run.claim for run in held.values())
        for task_id in renewal.lost:
            held[task_id].interrupt(Interrupt.LOST)
        for task_id in renewal.cancelled:
            held[task_id].interrupt(Interrupt.CANCEL)

    async def _hand_over(self) -> None:
        for run in list(self._runs.values()):
            run.leave()
        if self._tasks:
            log.info("handing_over", tasks=len(self._tasks))
            await asyncio.wait(self._tasks, timeout=self._config.handover_seconds)
        for run in list(self._runs.values()):
            run.interrupt(Interrupt.LEAVE)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=LAST_WORDS_SECONDS)

    async def _measure_lag(self) -> None:
        while True:
            due = self._clock.monotonic_seconds() + LAG_INTERVAL_SECONDS
            await asyncio.sleep(LAG_INTERVAL_SECONDS)
            self.metrics.loop_lag.observe(max(0.0, self._clock.monotonic_seconds() - due))
