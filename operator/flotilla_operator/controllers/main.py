"""Runs the operator's process: the order in which the parts start and stop.

Every process fills its caches. Only the leader reconciles, and only once every cache is complete. A new
leader first reads all pods anew, since the one before may have created some that the watch has not reported
yet. Beside its reconciles it looks for claims that an older operator made. A leader that loses the lease
stops its reconciles and waits for the lease again, with its caches warm. When a task that should run
forever ends, the process ends too, because a restart is cheaper than an operator that works only in part.
On SIGTERM the reconciles stop first, then the lease is released, so that another process leads within three
seconds.
"""

import asyncio
import signal
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from typing import Any, Final

import structlog

from flotilla_operator.cluster.crash_points import CrashPoint, go_on
from flotilla_operator.cluster.lease import NotLeadingError
from flotilla_operator.cluster.reflector import BACKOFF, FAILURES
from flotilla_operator.controllers.assembly import Parts, assemble
from flotilla_operator.controllers.config import OperatorConfig
from flotilla_operator.controllers.controller import Controller
from flotilla_operator.controllers.outside import Network, Place
from flotilla_operator.objects.resources import PODS, Resource
from flotilla_runtime.contract.failure_texts import what_failed

# Running reconciles get this long to end before they are cancelled. The lease is released after that.
GRACE_SECONDS: Final = 0.5

log = structlog.get_logger(__name__)


def run_process(
    controllers: Sequence[Controller[Any, Any]],
    config: OperatorConfig,
    place: Place,
    *,
    reached: Callable[[CrashPoint], None] = go_on,
) -> int:
    """Run the operator in this process; returns the exit code of an orderly stop."""
    asyncio.run(run(controllers, config, place, reached=reached))
    return 0


async def run(
    controllers: Sequence[Controller[Any, Any]],
    config: OperatorConfig,
    place: Place,
    *,
    reached: Callable[[CrashPoint], None] = go_on,
) -> None:
    """Run until SIGTERM or SIGINT; raises when a task ended that should run forever."""
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    async with AsyncExitStack() as stack:
        parts = await assemble(controllers, config, Network(place=place), reached, stack)
        await Operator(parts).run(stopping)


class Operator:
    """Runs the parts of one process."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def run(self, stopping: asyncio.Event) -> None:
        """Watch all the time, reconcile while leading, and stop the parts in order."""
        watching = [
            *(
                _task(reflector.run(), reflector.mirror.resource)
                for reflector in self._parts.mirrors.reflectors
            ),
            *(_task(sweeper.run(), sweeper.mirror.resource) for sweeper in self._parts.mirrors.sweepers),
            asyncio.create_task(self._parts.kinds.run(), name="kopf"),
            asyncio.create_task(self._parts.health.tick(), name="health"),
            asyncio.create_task(self._forget_old_deletions(), name="deletions"),
        ]
        leading = asyncio.create_task(self._lead(), name="leading")
        stopped = asyncio.create_task(stopping.wait(), name="stopping")
        try:
            done, _ = await asyncio.wait([*watching, leading, stopped], return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stopped}:
                task.result()
                raise RuntimeError(f"the task {task.get_name()!r} ended, which should run forever")
        finally:
            await _cancel([leading])
            await self._parts.lease.release()
            await _cancel([*watching, stopped])

    async def _lead(self) -> None:
        """Wait for complete caches, then reconcile whenever this process has the lease."""
        for watcher in self._parts.mirrors.watchers:
            await watcher.synced.wait()
        log.info("caches_complete")
        while True:
            await self._parts.lease.acquire()
            try:
                await self._reconcile_while_leading()
            except NotLeadingError as error:
                log.warning("leadership_lost", error=what_failed(error))

    async def _reconcile_while_leading(self) -> None:
        """Reconcile until the lease is lost, which raises `NotLeadingError`."""
        holding = asyncio.create_task(self._parts.lease.hold(), name="lease")
        working = asyncio.create_task(self._work(), name="workers")
        try:
            done, _ = await asyncio.wait([holding, working], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            await self._parts.reconciler.drain(GRACE_SECONDS if self._parts.fence.leading else 0.0)
            await _cancel([holding, working])

    async def _work(self) -> None:
        await self._read_pods_anew()
        reconciler = self._parts.reconciler
        reconciler.begin()
        workers = self._parts.config.loop.workers
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._parts.older_claims.release(), name="older claims")
                for number in range(workers):
                    group.create_task(reconciler.work(), name=f"worker {number}")
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def _read_pods_anew(self) -> None:
        """List all pods; repeated until the API server answers."""
        mirrors = [r.mirror for r in self._parts.mirrors.reflectors if r.mirror.resource == PODS]
        failures = 0
        while mirrors:
            try:
                await mirrors[0].list_anew()
            except FAILURES as error:
                failures += 1
                log.warning("pods_not_listed", error=what_failed(error))
                await asyncio.sleep(BACKOFF.seconds_after(failures, self._parts.clock.draw))
            else:
                mirrors.pop(0)

    async def _forget_old_deletions(self) -> None:
        while True:
            await asyncio.sleep(self._parts.config.loop.sweep_interval_seconds)
            self._parts.caches.forget_old_deletions()


def _task(work: Coroutine[Any, Any, None], resource: Resource) -> asyncio.Task[None]:
    return asyncio.create_task(work, name=f"watch of {resource.plural}")


async def _cancel(tasks: Sequence[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
