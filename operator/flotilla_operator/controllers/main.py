"""Runs the operator's process: the order in which the parts start and stop.

Every process fills its caches. Only the leader reconciles, and only once every cache is complete. When a task
that should run forever ends, the process ends too, because a restart is cheaper than an operator that works
only in part. On SIGTERM the reconciles stop first, then the lease is released, so that another process leads
within three seconds. A lost lease ends the process at once.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from typing import Any, Final

import structlog

from flotilla_operator.cluster.crash_points import CrashPoint, go_on
from flotilla_operator.cluster.lease import NotLeadingError
from flotilla_operator.controllers.assembly import Parts, assemble
from flotilla_operator.controllers.config import OperatorConfig
from flotilla_operator.controllers.controller import Controller
from flotilla_operator.controllers.outside import Network, Place
from flotilla_operator.objects.resources import Resource

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
    try:
        asyncio.run(run(controllers, config, place, reached=reached))
    except NotLeadingError as error:
        log.error("leadership_lost", error=str(error))
        sys.stdout.flush()
        os._exit(1)
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
        """Wait for complete caches and for the lease, then reconcile while the lease is held."""
        for watcher in self._parts.mirrors.watchers:
            await watcher.synced.wait()
        log.info("caches_complete")
        await self._parts.lease.acquire()
        workers = [
            asyncio.create_task(self._parts.reconciler.work(), name=f"worker {number}")
            for number in range(self._parts.config.loop.workers)
        ]
        holding = asyncio.create_task(self._parts.lease.hold(), name="lease")
        try:
            done, _ = await asyncio.wait([holding, *workers], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            await self._parts.reconciler.drain(GRACE_SECONDS if self._parts.fence.leading else 0.0)
            await _cancel([holding, *workers])

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
