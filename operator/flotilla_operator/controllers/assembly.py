"""What a process is made of, and who is told of whom."""

import os
import secrets
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from flotilla_operator.cluster.caches import Caches
from flotilla_operator.cluster.client import Client, load_configuration
from flotilla_operator.cluster.crash_points import CrashPoint
from flotilla_operator.cluster.events import Recorder
from flotilla_operator.cluster.lease import Fence, LeaderLease, LeaseSettings
from flotilla_operator.cluster.queue import Backoff, KeyedQueue, Spacing
from flotilla_operator.cluster.status import StatusLimiter
from flotilla_operator.cluster.writer import Writer
from flotilla_operator.controllers.config import OperatorConfig
from flotilla_operator.controllers.controller import Controller, World
from flotilla_operator.controllers.health import (
    Health,
    Probed,
    health_application,
    metrics_application,
    serve,
)
from flotilla_operator.controllers.mirrors import Mirrors
from flotilla_operator.controllers.reconciler import Hands, Reconciler, key_named
from flotilla_operator.controllers.secret_reader import CachedSecrets
from flotilla_operator.controllers.wakes import Wakes
from flotilla_operator.controllers.watching import KopfThread
from flotilla_operator.telemetry.measurements import Measurements
from flotilla_operator.telemetry.metrics import Metrics
from flotilla_operator.telemetry.scrape import Scraper

# At first shorter than a person notices, long enough for the many changes that one reconcile sets off.
SPACING = Spacing(in_burst_seconds=0.25, burst=10, sustained_seconds=2.0)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where this process runs and who it is."""

    kubeconfig: Path | None
    namespace: str
    identity: str

    @classmethod
    def from_environment(cls, kubeconfig: Path | None) -> "Place":
        """The pod's name and namespace from the downward API; the identity is new for every process."""
        name = os.environ.get("POD_NAME") or os.uname().nodename
        named = os.environ.get("KUBECONFIG")
        return cls(
            kubeconfig=kubeconfig or (Path(named) if named else None),
            namespace=os.environ.get("POD_NAMESPACE") or "default",
            identity=f"{name}_{secrets.token_hex(4)}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What runs."""

    config: OperatorConfig
    caches: Caches
    mirrors: Mirrors
    kopf: KopfThread
    fence: Fence
    lease: LeaderLease
    reconciler: Reconciler
    health: Health


async def assemble(
    controllers: Sequence[Controller[Any]],
    config: OperatorConfig,
    place: Place,
    reached: Callable[[CrashPoint], None],
    stack: AsyncExitStack,
) -> Parts:
    """Make the parts and connect them; nothing runs yet but the health and metrics servers."""
    fence = Fence(config.leader.renew_deadline_seconds)
    client = Client(await load_configuration(place.kubeconfig), before_write=fence.check)
    lease_client = Client(await load_configuration(place.kubeconfig))
    stack.push_async_callback(client.close)
    stack.push_async_callback(lease_client.close)

    caches, measurements, metrics = Caches(), Measurements(), Metrics()
    queue = _queue(config, metrics)
    wakes = Wakes(controllers, caches, queue.add)
    mirrors = Mirrors.of(controllers, config, caches, client, wakes, metrics)
    scraper = _scraper(config, measurements, queue, metrics)
    stack.push_async_callback(scraper.close)
    limiter = StatusLimiter(config.loop.status_interval_seconds)
    hands = Hands(
        queue=queue,
        writer=Writer(client, caches, limiter, on_change=wakes.changed, reached=reached),
        recorder=Recorder(client, place.identity, reached=reached),
        scraper=scraper,
        wakes=wakes,
        metrics=metrics,
    )
    world = World(caches=caches, measurements=measurements, config=config, secrets=CachedSecrets(client))
    health = _health(config, mirrors, queue, fence, metrics)
    await _serve(config, health, metrics, stack)
    return Parts(
        config=config,
        caches=caches,
        mirrors=mirrors,
        kopf=_kopf(controllers, config, place, mirrors),
        fence=fence,
        lease=LeaderLease(lease_client, fence, _lease_settings(config, place), reached=reached),
        reconciler=Reconciler(controllers, world, hands),
        health=health,
    )


def _queue(config: OperatorConfig, metrics: Metrics) -> KeyedQueue:
    backoff = Backoff(
        base_seconds=config.loop.backoff_base_seconds, limit_seconds=config.loop.backoff_limit_seconds
    )
    queue = KeyedQueue(backoff=backoff, spacing=SPACING, observer=metrics)
    metrics.depth_is(lambda: len(queue))
    return queue


def _scraper(
    config: OperatorConfig, measurements: Measurements, queue: KeyedQueue, metrics: Metrics
) -> Scraper:
    return Scraper(
        measurements,
        concurrency=config.scraping.concurrency,
        timeout_seconds=config.scraping.timeout_seconds,
        on_change=lambda owner: queue.add(key_named(owner)),
        observer=metrics,
    )


def _health(
    config: OperatorConfig, mirrors: Mirrors, queue: KeyedQueue, fence: Fence, metrics: Metrics
) -> Health:
    probed = Probed(
        reflectors=mirrors.reflectors,
        sweepers=mirrors.sweepers,
        queue=queue,
        leading=lambda: fence.leading,
        silence_seconds=config.loop.watch_silence_seconds,
        sweep_interval_seconds=config.loop.sweep_interval_seconds,
    )
    return Health(probed, metrics)


async def _serve(config: OperatorConfig, health: Health, metrics: Metrics, stack: AsyncExitStack) -> None:
    for application, port, name in (
        (health_application(health), config.health_port, "health"),
        (metrics_application(metrics), config.metrics_port, "metrics"),
    ):
        runner = await serve(application, port)
        stack.push_async_callback(runner.cleanup)
        log.info("serving", endpoint=name, port=port)


def _kopf(
    controllers: Sequence[Controller[Any]], config: OperatorConfig, place: Place, mirrors: Mirrors
) -> KopfThread:
    return KopfThread(
        [controller.resource for controller in controllers],
        namespaces=config.watch_namespaces,
        kubeconfig=place.kubeconfig,
        silence_seconds=config.loop.watch_silence_seconds,
        on_event=mirrors.feed,
    )


def _lease_settings(config: OperatorConfig, place: Place) -> LeaseSettings:
    return LeaseSettings(
        namespace=place.namespace,
        name=config.leader.lease_name,
        identity=place.identity,
        lease_duration_seconds=config.leader.lease_duration_seconds,
        renew_deadline_seconds=config.leader.renew_deadline_seconds,
        retry_period_seconds=config.leader.retry_period_seconds,
    )
