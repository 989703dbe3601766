"""Serves liveness, readiness and metrics over HTTP.

Liveness fails only for what a restart can mend: an event loop that runs late, a watch without any activity,
sweeps that stopped, a reconcile that never ends, a queue that nobody takes keys from. An API server that is
unreachable fails it only after minutes, because attempts of watches and sweeps count as activity. Readiness
means that every cache is complete. A process that does not lead is ready too: its caches are filled.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from flotilla_operator.cluster.queue import KeyedQueue
from flotilla_operator.cluster.reflector import Reflector, Sweeper
from flotilla_operator.telemetry.metrics import Metrics

TICK_SECONDS: Final = 1.0
LAG_LIMIT_SECONDS: Final = 20.0
RUN_LIMIT_SECONDS: Final = 300.0
WAIT_LIMIT_SECONDS: Final = 300.0
SILENCES_UNTIL_BLIND: Final = 3
SWEEPS_UNTIL_BLIND: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """The parts that the probes check."""

    reflectors: Sequence[Reflector]
    sweepers: Sequence[Sweeper]
    queue: KeyedQueue
    leading: Callable[[], bool]
    silence_seconds: float
    sweep_interval_seconds: float


class Health:
    """Finds problems; `tick` must run as long as the process does."""

    def __init__(self, probed: Probed, metrics: Metrics) -> None:
        self._probed = probed
        self._metrics = metrics
        self._lag_seconds = 0.0

    async def tick(self) -> None:
        """Measure every second how late the event loop runs."""
        loop = asyncio.get_running_loop()
        while True:
            expected = loop.time() + TICK_SECONDS
            await asyncio.sleep(TICK_SECONDS)
            self._lag_seconds = max(0.0, loop.time() - expected)
            self._metrics.lagged(self._lag_seconds)
            self._metrics.leads(leading=self._probed.leading())

    def problems(self) -> list[str]:
        """The problems that a restart may mend."""
        probed, now = self._probed, asyncio.get_running_loop().time()
        found = []
        if self._lag_seconds > LAG_LIMIT_SECONDS:
            found.append(f"the event loop ran {self._lag_seconds:.0f} s late")
        for reflector in probed.reflectors:
            age = now - reflector.active_at
            if age > SILENCES_UNTIL_BLIND * probed.silence_seconds:
                found.append(
                    f"the watch of {reflector.mirror.resource.plural} has shown no activity for {age:.0f} s"
                )
        for sweeper in probed.sweepers:
            age = now - sweeper.attempted_at
            if age > SWEEPS_UNTIL_BLIND * probed.sweep_interval_seconds:
                found.append(f"{sweeper.mirror.resource.plural} have not been listed for {age:.0f} s")
        if (run := probed.queue.longest_run_seconds()) > RUN_LIMIT_SECONDS:
            found.append(f"a reconcile has been running for {run:.0f} s")
        if probed.leading() and self._stuck(now):
            found.append(
                f"objects wait to be reconciled, and none was taken for {now - probed.queue.taken_at:.0f} s"
            )
        return found

    def missing(self) -> list[str]:
        """The resources whose caches are not complete yet."""
        watchers: list[Reflector | Sweeper] = [*self._probed.reflectors, *self._probed.sweepers]
        return sorted({w.mirror.resource.plural for w in watchers if not w.synced.is_set()})

    def _stuck(self, now: float) -> bool:
        queue = self._probed.queue
        return queue.longest_wait_seconds() > WAIT_LIMIT_SECONDS and now - queue.taken_at > WAIT_LIMIT_SECONDS


def health_application(health: Health) -> web.Application:
    """`/healthz` and `/readyz`: 200 when nothing is wrong, else 503 with the problems."""

    async def healthz(_request: web.Request) -> web.Response:
        return _verdict(health.problems())

    async def readyz(_request: web.Request) -> web.Response:
        return _verdict([f"{plural} have not been listed yet" for plural in health.missing()])

    application = web.Application()
    application.router.add_get("/healthz", healthz)
    application.router.add_get("/readyz", readyz)
    return application


def metrics_application(metrics: Metrics) -> web.Application:
    """`/metrics` in Prometheus text."""

    async def expose(_request: web.Request) -> web.Response:
        return web.Response(
            body=generate_latest(metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )

    application = web.Application()
    application.router.add_get("/metrics", expose)
    return application


async def serve(application: web.Application, port: int) -> web.AppRunner:
    """Serve on all IPv4 and IPv6 addresses; returns the runner to clean up."""
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, None, port).start()
    return runner


def _verdict(problems: Sequence[str]) -> web.Response:
    return web.Response(text="\n".join(problems or ["ok"]) + "\n", status=503 if problems else 200)
