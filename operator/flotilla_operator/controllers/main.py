"""The process: in which order the parts start, and how they end.

Caches fill on every replica; only the leader takes keys from the queue, and not before every cache is
complete. Whatever should run for ever and ends is fatal, because a restart is cheap and half an operator is
not. On SIGTERM the reconciles stop first and the lease is given back next, so that the other replica leads
within three seconds; a lost lease ends the process at once.
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
from flotilla_operator.cluster.resources import Resource
from flotilla_operator.controllers.assembly import Parts, Place, assemble
from flotilla_operator.controllers.config import OperatorConfig
from flotilla_operator.controllers.controller import Controller

# Reconciles in progress get this long to end before they are cancelled; the lease is released after it.
GRACE_SECONDS: Final = 0.5

log = structlog.get_logger(__name__)


def run_process(
    controllers: Sequence[Controller[Any]],
    config: OperatorConfig,
    place: Place,
    *,
    reached: Callable[[CrashPoint], None] = go_on,
) -> int:
    """Run the operator as this process; returns the exit code of a wanted end."""
    try:
        asyncio.run(run(controllers, config, place, reached=reached))
    except NotLeadingError as error:
        log.error("leadership_lost", error=str(error))
        sys.stdout.flush()
        os._exit(1)
    return 0


async def run(
    controllers: Sequence[Controller[Any]],
    config: OperatorConfig,
    place: Place,
    *,
    reached: Callable[[CrashPoint], None] = go_on,
) -> None:
    """Run until SIGTERM or SIGINT; raises when something that should run for ever ended."""
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    async with AsyncExitStack() as stack:
        parts = await assemble(controllers, config, place, reached, stack)
        await Operator(parts).run(stopping)


class Operator:
    """Runs the parts of one process."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def run(self, stopping: asyncio.Event) -> None:
        """Watch always, reconcile while leading, end in order."""
        watching = [
            *(
                _task(reflector.run(), reflector.mirror.resource)
                for reflector in self._parts.mirrors.reflectors
            ),
            *(_task(sweeper.run(), sweeper.mirror.resource) for sweeper in self._parts.mirrors.sweepers),
            asyncio.create_task(self._parts.kopf.run(), name="kopf"),
            asyncio.create_task(self._parts.health.tick(), name="health"),
            asyncio.create_task(self._forget_old_deletions(), name="deletions"),
        ]
        leading = asyncio.create_task(self._lead(), name="leading")
        stopped = asyncio.create_task(stopping.wait(), name="stopping")
        try:
            done, _ = await asyncio.wait([*watching, leading, stopped], return_when=asyncio.FIRST_COMPLETED)
            for task in done - {stopped}:
                task.result()
                raise RuntimeError(f"{task.get_name()} ended")
        finally:
            await _cancel([leading])
            await self._parts.lease.release()
            await _cancel([*watching, stopped])

    async def _lead(self) -> None:
        """Wait for complete caches and for the lease, then reconcile as long as the lease is held."""
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
