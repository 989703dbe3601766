"""Makes the parts of the operator's process and connects them."""

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import structlog

from flotilla_operator.cluster.caches import Caches
from flotilla_operator.cluster.client import Client
from flotilla_operator.cluster.crash_points import CrashPoint
from flotilla_operator.cluster.events import Recorder
from flotilla_operator.cluster.lease import Fence, LeaderLease, LeaseSettings
from flotilla_operator.cluster.queue import KeyedQueue, Spacing
from flotilla_operator.cluster.status import StatusLimiter
from flotilla_operator.cluster.writer import Writer
from flotilla_operator.controllers.absent_nodes import AbsentNodesByCache
from flotilla_operator.controllers.config import OperatorConfig
from flotilla_operator.controllers.controller import Controller, World
from flotilla_operator.controllers.health import (
    Health,
    Probed,
    health_application,
    metrics_application,
)
from flotilla_operator.controllers.mirrors import Mirrors
from flotilla_operator.controllers.older_claims import OlderClaims
from flotilla_operator.controllers.outside import Clock, Outside, Place, Watch
from flotilla_operator.controllers.reconciler import Hands, Reconciler, key_named
from flotilla_operator.controllers.secret_reader import CachedSecrets
from flotilla_operator.controllers.steering import SteeringLoop
from flotilla_operator.controllers.wakes import Wakes
from flotilla_operator.objects.retries import RetryDelay
from flotilla_operator.telemetry.measurements import Measurements
from flotilla_operator.telemetry.metrics import Metrics
from flotilla_operator.telemetry.scrape import Scraper

# The first interval is too short for a person to notice, and long enough to gather the many changes that one
# reconcile causes.
SPACING = Spacing(in_burst_seconds=0.25, burst=10, sustained_seconds=2.0)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The parts that one process runs."""

    config: OperatorConfig
    clock: Clock
    caches: Caches
    mirrors: Mirrors
    kinds: Watch
    fence: Fence
    lease: LeaderLease
    reconciler: Reconciler
    older_claims: OlderClaims
    metrics: Metrics
    health: Health


async def assemble(
    controllers: Sequence[Controller[Any, Any]],
    config: OperatorConfig,
    outside: Outside,
    reached: Callable[[CrashPoint], None],
    stack: AsyncExitStack,
) -> Parts:
    """Make the parts and connect them. Only the health and metrics servers run already."""
    clock, place = outside.clock, outside.place
    fence = Fence(config.leader.renew_deadline_seconds, clock=clock.monotonic)
    client = Client(await outside.connect(fence.check))
    lease_client = Client(await outside.connect())
    watch_client = Client(await outside.connect_for_watches())
    for one in (client, lease_client, watch_client):
        stack.push_async_callback(one.close)

    caches, measurements, metrics = Caches(), Measurements(), Metrics()
    queue = _queue(config, metrics, clock)
    wakes = Wakes(controllers, caches, queue.add, queue.add_by_itself)
    mirrors = Mirrors.of(controllers, config, caches, watch_client, wakes, metrics, clock.draw)
    steering = SteeringLoop(
        measurements,
        queue,
        figures_interval_seconds=config.loop.status_interval_seconds,
        now=clock.now,
        monotonic=clock.monotonic,
    )
    scraper = _scraper(config, measurements, steering, metrics, outside)
    stack.push_async_callback(scraper.close)
    limiter = StatusLimiter(config.loop.status_interval_seconds, clock=clock.monotonic)
    hands = Hands(
        queue=queue,
        writer=Writer(
            client,
            caches,
            limiter,
            on_change=wakes.changed,
            quiet=config.restrict.enabled,
            reached=reached,
            clock=clock.monotonic,
            now=clock.now,
        ),
        recorder=Recorder(client, place.identity, clock=clock.monotonic, now=clock.now, reached=reached),
        scraper=scraper,
        steering=steering,
        wakes=wakes,
        metrics=metrics,
    )
    world = World(
        caches=caches,
        measurements=measurements,
        config=config,
        secrets=CachedSecrets(client, clock=clock.monotonic),
        decisions=steering,
        absent_nodes=AbsentNodesByCache(client, caches, clock=clock.monotonic),
        steady=clock.monotonic,
    )
    health = _health(config, mirrors, queue, fence, metrics)
    await _serve(config, health, metrics, outside, stack)
    kinds = [controller.resource for controller in controllers]
    settings = _lease_settings(config, place)
    return Parts(
        config=config,
        clock=clock,
        caches=caches,
        mirrors=mirrors,
        kinds=outside.watch(kinds, config, mirrors.feed),
        fence=fence,
        lease=LeaderLease(
            lease_client, fence, settings, clock=clock.monotonic, now=clock.now, reached=reached
        ),
        reconciler=Reconciler(controllers, world, hands, now=clock.now),
        older_claims=OlderClaims(client, caches, draw=clock.draw),
        metrics=metrics,
        health=health,
    )


def _queue(config: OperatorConfig, metrics: Metrics, clock: Clock) -> KeyedQueue:
    backoff = RetryDelay(
        base_seconds=config.loop.backoff_base_seconds, limit_seconds=config.loop.backoff_limit_seconds
    )
    queue = KeyedQueue(backoff=backoff, spacing=SPACING, draw=clock.draw, observer=metrics)
    metrics.depth_is(lambda: len(queue))
    return queue


def _scraper(
    config: OperatorConfig,
    measurements: Measurements,
    steering: SteeringLoop,
    metrics: Metrics,
    outside: Outside,
) -> Scraper:
    return Scraper(
        measurements,
        fetcher=outside.fetcher(config),
        on_answer=lambda owner: steering.answered(key_named(owner)),
        observer=metrics,
        now=outside.clock.now,
        draw=outside.clock.draw,
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


async def _serve(
    config: OperatorConfig, health: Health, metrics: Metrics, outside: Outside, stack: AsyncExitStack
) -> None:
    for application, port, name in (
        (health_application(health), config.health_port, "health"),
        (metrics_application(metrics), config.metrics_port, "metrics"),
    ):
        await outside.serve(application, port, stack)
        log.info("serving", endpoint=name, port=port)


def _lease_settings(config: OperatorConfig, place: Place) -> LeaseSettings:
    return LeaseSettings(
        namespace=place.namespace,
        name=config.leader.lease_name,
        identity=place.identity,
        lease_duration_seconds=config.leader.lease_duration_seconds,
        renew_deadline_seconds=config.leader.renew_deadline_seconds,
        retry_period_seconds=config.leader.retry_period_seconds,
    )
