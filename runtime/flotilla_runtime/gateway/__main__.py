"""Starts a gateway: `python -m flotilla_runtime.gateway`."""

import argparse
import asyncio
import contextlib
import itertools
import os
import random
import secrets
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from flotilla_runtime.agent.errors import StoreUnavailableError
from flotilla_runtime.agent.store.caller_rates import CallerRates
from flotilla_runtime.agent.store.connections import connect
from flotilla_runtime.agent.store.gateway_tasks import FORGET_AT_ONCE
from flotilla_runtime.agent.store.s3 import opened
from flotilla_runtime.agent.store.task_store import TaskStore
from flotilla_runtime.agent.store.texts import TextStore
from flotilla_runtime.backoff import Backoff
from flotilla_runtime.contract import CONFIG_PATH, ENV_POD_NAME, GatewayAuth, GatewayConfig, SecretError
from flotilla_runtime.contract.failure_texts import what_failed
from flotilla_runtime.gateway.a2a.endpoints import A2AFrontEnd
from flotilla_runtime.gateway.admitting import CapacityFile, say_admission
from flotilla_runtime.gateway.application import Measured, TaskAPI, status_application, task_application
from flotilla_runtime.gateway.auth import Authenticator, CallerKeys, NoAuthentication
from flotilla_runtime.gateway.callers import Callers
from flotilla_runtime.gateway.certificate import Certificate
from flotilla_runtime.gateway.desk import Desk
from flotilla_runtime.gateway.events import Sight
from flotilla_runtime.gateway.growth import Growth
from flotilla_runtime.gateway.metrics import GatewayMetrics
from flotilla_runtime.gateway.openai.endpoints import OpenAIFrontEnd
from flotilla_runtime.gateway.outside import Outside
from flotilla_runtime.gateway.replays import Replays
from flotilla_runtime.gateway.reviews import (
    Clocks,
    FleetName,
    KubernetesReviews,
    Reviewer,
    api_server_client,
)
from flotilla_runtime.gateway.service import Sources, TaskService, Traces
from flotilla_runtime.gateway.streams import Streams
from flotilla_runtime.logs import configure_logs
from flotilla_runtime.serving import serving

FORGET_EVERY_SECONDS: Final = 30.0
KNOCKS: Final = Backoff(base_seconds=0.5, limit_seconds=2.0, least_share=0.5)
LEAVE_AFTER_SECONDS: Final = 3.0  # a Service still sends requests for a moment after SIGTERM
GRACE_SECONDS: Final = 15
SERVICE: Final = "flotilla-gateway"

SOURCES: Final = Sources(
    monotonic_seconds=time.monotonic,
    wall_ms=lambda: time.time_ns() // 1_000_000,
    random_bits=secrets.randbits,
)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Redis:
    """The fleet's tasks, who tells when their journals grow, and whether Redis has answered."""

    store: TaskStore
    texts: TextStore
    growth: Growth
    rates: CallerRates | None
    reached: asyncio.Event


@contextlib.asynccontextmanager
async def authentication(
    config: GatewayConfig, environment: Mapping[str, str]
) -> AsyncIterator[Authenticator]:
    """The authenticator for the fleet's mode of authentication, for as long as the block runs."""
    match config.auth:
        case GatewayAuth.NONE:
            yield NoAuthentication()
        case GatewayAuth.SECRET:
            keys = CallerKeys(Path(config.callers_directory), config.trusted, config.approvers)
            await keys.refresh()
            following = asyncio.create_task(keys.follow())
            yield keys
            following.cancel()
        case GatewayAuth.KUBERNETES:
            fleet = FleetName(namespace=config.namespace, name=config.name)
            async with api_server_client(environment, config.cluster_ca_path) as client:
                yield KubernetesReviews(
                    Reviewer(client, Path(config.api_token_path)),
                    fleet,
                    Clocks(monotonic_seconds=time.monotonic, wall_seconds=time.time),
                    accepts_cluster_tokens=config.accepts_cluster_tokens,
                )


@contextlib.asynccontextmanager
async def certificate(config: GatewayConfig) -> AsyncIterator[Certificate | None]:
    """The certificate of a gateway that serves HTTPS, followed for as long as the block runs."""
    if config.tls_directory is None:
        yield None
        return
    served = Certificate(Path(config.tls_directory))
    served.refresh()
    following = asyncio.create_task(served.follow())
    yield served
    following.cancel()


async def forget_ended(store: TaskStore, every_seconds: float = FORGET_EVERY_SECONDS) -> None:
    """Remove tasks and conversations that ended long ago, forever: without this, Redis would fill up."""
    while True:
        forgotten = 0
        try:
            forgotten = max(await store.forget_ended(), await store.forget_conversations())
            await store.drop_payloads()
        except StoreUnavailableError as problem:
            log.warning("results_not_forgotten", problem=problem.problem)
        except Exception:
            log.exception("results_not_forgotten")
        await asyncio.sleep(0 if forgotten >= FORGET_AT_ONCE else every_seconds)


async def reach(store: TaskStore, reached: asyncio.Event) -> None:
    """Set the event after Redis' first answer.

    The pod of a new Redis is ready some seconds before the Service leads to it from every node. A problem is
    logged once, and again only when it becomes another.
    """
    said = ""
    for failures in itertools.count(1):
        try:
            await store.ping()
        except Exception as error:
            if what_failed(error) != said:
                said = what_failed(error)
                log.warning("redis_awaited", problem=said)
        else:
            reached.set()
            return
        await asyncio.sleep(KNOCKS.seconds_after(failures, random.uniform))


@contextlib.asynccontextmanager
async def redis(config: GatewayConfig, environment: Mapping[str, str]) -> AsyncIterator[Redis]:
    """The tasks in Redis, from which old results are removed for as long as the block runs."""
    client, reached = connect(config.queue, environment), asyncio.Event()
    objects = opened(config.queue)
    store = TaskStore(client, config.queue, objects)
    growth = Growth(client, store.keys.events)
    if config.queue.url is None:
        reached.set()
    beside = [
        asyncio.create_task(forget_ended(store)),
        asyncio.create_task(growth.follow()),
        asyncio.create_task(reach(store, reached)),
    ]
    rate = config.requests_per_minute
    yield Redis(
        store=store,
        texts=TextStore(client, config.queue.fleet),
        growth=growth,
        rates=None if rate is None else CallerRates(client, config.queue.fleet, rate),
        reached=reached,
    )
    for task in beside:
        task.cancel()
    await store.close()
    if objects is not None:
        await objects.close()


def traces_of(config: GatewayConfig, metrics: GatewayMetrics, instance: str) -> Traces | None:
    """Return the listener that traces tasks, or None where the configuration asks for no traces."""
    if config.telemetry is None:
        return None
    from flotilla_runtime.agent.traces.export import exporter_of  # it loads OpenTelemetry
    from flotilla_runtime.gateway.traces import GatewayTraces

    exporter = exporter_of(config.telemetry, metrics.spans, service=SERVICE, instance=instance)
    return GatewayTraces(exporter, config.name, SOURCES.wall_ms)


async def serve(config: GatewayConfig, environment: Mapping[str, str]) -> None:
    """Serve until SIGTERM or SIGINT, then let the requests in flight end.

    A gateway of a managed Redis is ready once Redis has answered it, and stays ready when Redis goes away:
    callers then read a 503 that says so. With an external Redis it is ready as soon as it takes requests,
    because the operator asks ready gateways whether Redis answers. One that serves HTTPS is ready once it
    has a certificate.
    """
    takes_requests, told_to_stop, stopping = asyncio.Event(), asyncio.Event(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told_to_stop.set)
    async with (
        redis(config, environment) as held,
        authentication(config, environment) as authenticator,
        certificate(config) as served,
    ):
        metrics = GatewayMetrics()
        traces = traces_of(config, metrics, environment.get(ENV_POD_NAME) or socket.gethostname())
        capacity = CapacityFile(config.capacity_path, time.monotonic)
        service = TaskService(held.store, config, SOURCES, traces=traces, capacity=capacity.now)
        admitting = asyncio.create_task(say_admission(service.admission, service.say_admission))
        desk = Desk(
            service=service,
            sight=Sight(store=held.store, texts=held.texts, growth=held.growth, stopping=stopping),
            callers=Callers(authenticator, held.rates),
            outside=Outside(service, held.store, config.queue),
            replays=Replays(service, held.store, config),
            max_body_bytes=config.max_body_bytes,
            streams=Streams(config.streams_per_caller),
        )
        front_ends = [
            *(OpenAIFrontEnd(desk, config.name, config.agents).routes() if config.serves_openai else ()),
            *(A2AFrontEnd(desk, config).routes() if config.serves_a2a else ()),
        ]
        tasks = Measured(task_application(TaskAPI(desk), front_ends), metrics, time.monotonic)
        status = status_application(
            service,
            metrics,
            ready=lambda: (
                takes_requests.is_set()
                and held.reached.is_set()
                and not told_to_stop.is_set()
                and (not served or served.usable)
            ),
            certificate_problem=lambda: served.problem if served else None,
        )
        tls = served.context if served else None
        async with (
            serving(status, config.metrics_port),
            serving(tasks, config.port, tls=tls, grace_seconds=GRACE_SECONDS),
        ):
            takes_requests.set()
            log.info("gateway_started", fleet=config.queue.fleet, auth=config.auth, https=tls is not None)
            await told_to_stop.wait()
            await asyncio.sleep(LEAVE_AFTER_SECONDS)
            stopping.set()
            held.growth.wake_all()
        admitting.cancel()
        if traces is not None:
            await asyncio.to_thread(traces.stop)


def main() -> None:
    """Read the configuration and serve."""
    parser = argparse.ArgumentParser(prog="flotilla_runtime.gateway", description=__doc__)
    parser.add_argument("--config", type=Path, default=Path(CONFIG_PATH))
    options = parser.parse_args()
    configure_logs()
    try:
        asyncio.run(serve(GatewayConfig.model_validate_json(options.config.read_bytes()), os.environ))
    except SecretError as problem:
        sys.exit(str(problem))  # the last line of a pod becomes its message, which the operator shows


if __name__ == "__main__":
    main()
