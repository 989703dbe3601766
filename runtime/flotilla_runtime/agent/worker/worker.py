"""A worker: one event loop that runs many tasks at once.

It claims its share of what waits while it has room, its models take calls, and it is not stuck. From the
grant of a task on, it renews its lease every third of a lease, with one script for all its tasks, and it
stops the runs whose lease is lost or whose task is to be cancelled. When Redis does not answer for a while,
running tasks continue, and a result is sent again for as long as its task may run; a worker that was cut off
for too long finds its tokens stale and drops its tasks. When it is told to stop, it claims no more tasks and
hands each task over at its next call, or after `handover_seconds` within one.
"""

import asyncio
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final, Protocol

import structlog

from flotilla_runtime.agent.budgets import Amount, Budget
from flotilla_runtime.agent.engine.run import Clock, Interrupt, Means, RunOutcome, TaskRun
from flotilla_runtime.agent.errors import BrokenEntryError, LeaseLostError, StoreUnavailableError
from flotilla_runtime.agent.journal import CallKind, EndReason, Other, TaskStatus
from flotilla_runtime.agent.programs import Program
from flotilla_runtime.agent.protocols import (
    Call,
    Calls,
    Finish,
    Reconciled,
    Reply,
    Session,
    TaskJournal,
    Threads,
)
from flotilla_runtime.agent.retries import STORE_BACKOFF
from flotilla_runtime.agent.store.task_store import TaskStore
from flotilla_runtime.agent.store.worker_tasks import new_request
from flotilla_runtime.agent.tasks import Claim, LoadedTask
from flotilla_runtime.agent.worker.breaker import NONE, Refusals, after_reply, most_to_claim
from flotilla_runtime.agent.worker.metrics import WorkerMetrics
from flotilla_runtime.agent.worker.patience import Patience, PersistentJournal
from flotilla_runtime.agent.worker.revisions import Revisions
from flotilla_runtime.agent.worker.stuck import ThreadWatch
from flotilla_runtime.agent.worker.vitals import Vitals
from flotilla_runtime.agent.worker.watchdog import Watchdog
from flotilla_runtime.contract import WorkerConfig
from flotilla_runtime.contract.failure_texts import what_failed

CLAIM_AT_ONCE: Final = 32
IDLE_SECONDS: Final = 1.0
RENEWALS_PER_LEASE: Final = 3
LAST_WORDS_SECONDS: Final = 5.0

log = structlog.get_logger(__name__)


class MeasuredCalls:
    """Calls whose durations are measured, by kind and outcome, and models that refuse, by name."""

    def __init__(self, calls: Calls, metrics: WorkerMetrics, clock: Clock) -> None:
        self.refusals: Final[dict[str, Refusals]] = {}
        self._calls = calls
        self._metrics = metrics
        self._clock = clock

    async def reservation(self, call: Call, session: Session, budget: Budget) -> tuple[Call, Amount]:
        """Return the call cut to what is left, and the most that it can use."""
        return await self._calls.reservation(call, session, budget)

    async def reconcile(self, call: Call, session: Session) -> Reconciled | None:
        """Find out whether an Unsafe call happened; None if nobody knows."""
        return await self._calls.reconcile(call, session)

    async def make(self, call: Call, session: Session) -> Reply:
        """Make one call and measure it."""
        started = self._clock.monotonic_seconds()
        reply = await self._calls.make(call, session)
        now = self._clock.monotonic_seconds()
        self._metrics.calls.labels(call.kind, reply.outcome).observe(now - started)
        if call.kind is CallKind.MODEL:
            before = self.refusals.get(call.target, NONE)
            self.refusals[call.target] = after_reply(before, is_refused=reply.is_refused, now=now)
        return reply


@dataclass(slots=True)
class Held:
    """A task that this worker was granted. It has a run when it is loaded."""

    claim: Claim
    run: TaskRun | None = None
    is_lost: bool = False

    def interrupt(self, reason: Interrupt) -> None:
        """Stop the run. A task that is not loaded yet is loaded as one that is to be cancelled."""
        self.is_lost = self.is_lost or reason is Interrupt.LOST
        if self.run is not None:
            self.run.interrupt(reason)


class Tracing(Protocol):
    """Traces the runs of tasks."""

    def traced(
        self, task: LoadedTask, journal: TaskJournal, calls: Calls, now_ms: Callable[[], int]
    ) -> tuple[TaskJournal, Calls]:
        """The journal and the calls of a run, traced."""

    def stop(self) -> None:
        """Send what waits to be sent, for some seconds; it blocks."""


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
        threads: Threads | None = None,
        metrics: WorkerMetrics | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        self.name: Final = name
        self.metrics: Final = metrics or WorkerMetrics()
        self._tracing = tracing
        self._store = store
        self._config = config
        self._clock = clock
        self._program = program
        self._calls = MeasuredCalls(calls, self.metrics, clock)
        watch = ThreadWatch(threads, self.metrics.left_behind, clock.monotonic_seconds)
        self.vitals: Final = Vitals(watch, clock.monotonic_seconds)
        self._patience = Patience(metrics=self.metrics, clock=clock)
        self._process = f"{name}#{new_request()}"
        self._revisions = Revisions(config.revision, config.adopted_path, clock.monotonic_seconds)
        self._held: dict[str, Held] = {}
        self._stopping = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._request = new_request()

    async def run(self, stopping: asyncio.Event) -> None:
        """Run tasks until `stopping` is set, then hand them over and return."""
        self._stopping = stopping
        renewing = asyncio.create_task(self._renew_leases())
        watching = asyncio.create_task(Watchdog(self.metrics.loop_lag.observe).run())
        try:
            await self._take_tasks()
            await self._hand_over()
        finally:
            for task in (renewing, watching):
                task.cancel()
            await asyncio.gather(renewing, watching, return_exceptions=True)

    async def _take_tasks(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            self.vitals.looked()
            try:
                if failures:  # renew first, or the next claim could take tasks that this worker still runs
                    await self._renew(dict(self._held))
                await self._take_some()
                self.vitals.answered()
                failures = 0
            except StoreUnavailableError as problem:
                failures += 1
                self.metrics.store_problems.inc()
                log.warning("store_unavailable", problem=problem.problem, failures=failures)
                await asyncio.sleep(STORE_BACKOFF.seconds_after(failures, random.uniform))

    async def _take_some(self) -> None:
        """Claim tasks for the free places, or wait for a task or for a free place."""
        free = 0 if self.vitals.is_stuck else self._config.concurrency - len(self._tasks)
        now = self._clock.monotonic_seconds()
        wanted = most_to_claim(self._calls.refusals.values(), min(free, CLAIM_AT_ONCE), now)
        if wanted <= 0:
            await self._wait_for_a_place()
            return
        claims = await self._claim(wanted)
        for claim in claims:
            self._start(claim)
        self.metrics.running.set(len(self._tasks))
        if not claims:
            await self._store.wait_for_work(IDLE_SECONDS, self._revisions.now())

    async def _wait_for_a_place(self) -> None:
        stopped = asyncio.create_task(self._stopping.wait())
        await asyncio.wait({*self._tasks, stopped}, timeout=IDLE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()

    async def _claim(self, wanted: int) -> list[Claim]:
        """Claim tasks by the same request until it is granted some, because an answer may have been lost."""
        claims = await self._store.claim(self._process, wanted, self._request, self._revisions.now())
        if claims:
            self._request = new_request()
        return claims

    def _start(self, claim: Claim) -> None:
        """Hold the task from now on.

        This worker may still have an earlier run of the task: when Redis did not answer for longer than a
        lease, a claim can come before the next renewal. The token of the earlier run is then stale.
        """
        if (earlier := self._held.get(claim.id)) is not None:
            if earlier.claim == claim:
                return  # the answer to a claim that was sent again
            earlier.interrupt(Interrupt.LOST)
        held = self._held[claim.id] = Held(claim)
        task = asyncio.create_task(self._run_one(held), name=claim.id)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run_one(self, held: Held) -> None:
        """Run one task. After any error that nobody thought of, another run takes the task over."""
        try:
            outcome = await self._loaded_and_run(held)
        except (LeaseLostError, StoreUnavailableError):
            outcome = RunOutcome.LOST
        except Exception:
            log.exception("task_run_crashed", task=held.claim.id)
            self.metrics.runs.labels("Crashed").inc()
            await self._say_crashed(held.claim)
            return
        finally:
            if self._held.get(held.claim.id) is held:
                del self._held[held.claim.id]
            self.metrics.running.set(len(self._held))
        self.metrics.runs.labels(outcome).inc()
        if outcome is RunOutcome.LOST:
            log.warning("task_lost", task=held.claim.id)

    async def _loaded_and_run(self, held: Held) -> RunOutcome:
        claim = held.claim
        try:
            task = await self._patience.answered(lambda: self._store.load(claim.id))
        except BrokenEntryError as problem:
            log.error("journal_broken", task=claim.id, problem=problem.problem)
            finish = _broken(problem)
            await self._patience.answered(lambda: self._store.finish(claim, finish))
            return RunOutcome.ENDED
        if task is None or held.is_lost:
            return RunOutcome.LOST
        is_newer = any(isinstance(entry, Other) for entry in task.entries)
        if is_newer or self._stopping.is_set():
            if is_newer:
                log.warning("journal_of_a_newer_version", task=claim.id)
            await self._patience.answered(
                lambda: self._store.release(claim, self._process, is_newer=is_newer)
            )
            return RunOutcome.HANDED_OVER
        held.run = TaskRun(claim, task, self._program.pinned, self._means(task))
        return await held.run.run()

    async def _say_crashed(self, claim: Claim) -> None:
        """If this does not reach Redis, the lease ends, which says the same."""
        try:
            await self._store.crashed(claim)
        except (LeaseLostError, StoreUnavailableError) as problem:
            log.warning("task_run_crashed_unsaid", task=claim.id, problem=what_failed(problem))

    def _means(self, task: LoadedTask) -> Means:
        left_seconds = task.record.limits.max_wall_seconds - task.elapsed_seconds
        began = self._clock.monotonic_seconds()
        patience = replace(self._patience, task_ends_at=began + left_seconds)
        journal: TaskJournal = PersistentJournal(self._store, patience)
        calls: Calls = self._calls
        if self._tracing is not None:

            def now_ms() -> int:
                return task.read_at + round((self._clock.monotonic_seconds() - began) * 1000)

            journal, calls = self._tracing.traced(task, journal, calls, now_ms)
        return Means(
            worker=self._process,
            journal=journal,
            calls=calls,
            clock=self._clock,
            on_pattern=self.metrics.count_pattern,
        )

    async def _renew_leases(self) -> None:
        """Renew the leases every third of a lease; a renewal that fails is tried again a third later."""
        while True:
            await asyncio.sleep(self._config.queue.lease_seconds / RENEWALS_PER_LEASE)
            held: Mapping[str, Held] = dict(self._held)
            if not held:
                continue
            try:
                await self._renew(held)
            except StoreUnavailableError as problem:
                self.metrics.store_problems.inc()
                log.warning("leases_not_renewed", problem=problem.problem, tasks=len(held))
            except Exception:
                log.exception("leases_not_renewed", tasks=len(held))

    async def _renew(self, held: Mapping[str, Held]) -> None:
        renewal = await self._store.renew(one.claim for one in held.values())
        for task_id in renewal.lost:
            held[task_id].interrupt(Interrupt.LOST)
        for task_id in renewal.cancelled:
            held[task_id].interrupt(Interrupt.CANCEL)

    async def _hand_over(self) -> None:
        await self._say_goodbye()
        runs = [held.run for held in self._held.values() if held.run is not None]
        for run in runs:
            run.leave()
        if self._tasks:
            log.info("handing_over", tasks=len(self._tasks))
            await asyncio.wait(self._tasks, timeout=self._config.handover_seconds)
        for held in list(self._held.values()):
            held.interrupt(Interrupt.LEAVE)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=LAST_WORDS_SECONDS)

    async def _say_goodbye(self) -> None:
        try:
            await self._store.leave(self._process, self._revisions.own)
        except StoreUnavailableError as problem:
            log.warning("store_unavailable", problem=problem.problem)


def _broken(problem: BrokenEntryError) -> Finish:
    return Finish(
        status=TaskStatus.FAILED,
        reason=EndReason.INFRASTRUCTURE,
        message=what_failed(problem),
        busy_ms={},
        calls={},
    )
