"""Starts an agent worker: `python -m flotilla_runtime.agent`."""

import argparse
import asyncio
import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Final

import structlog

from flotilla_runtime.agent.engine.run import Clock
from flotilla_runtime.agent.graphs.loading import prepare
from flotilla_runtime.agent.health import health_application
from flotilla_runtime.agent.store.connections import connect
from flotilla_runtime.agent.store.s3 import opened
from flotilla_runtime.agent.store.salts import Salts
from flotilla_runtime.agent.store.task_store import TaskStore
from flotilla_runtime.agent.store.texts import TextStore
from flotilla_runtime.agent.store.worker_tasks import new_request
from flotilla_runtime.agent.tools.addresses import AddressCheck
from flotilla_runtime.agent.tools.http_tool import HttpTools
from flotilla_runtime.agent.tools.references import ProgramError
from flotilla_runtime.agent.tools.runner import ToolRunner
from flotilla_runtime.agent.worker.calls import Caller, http_client
from flotilla_runtime.agent.worker.contexts import ContextLengths
from flotilla_runtime.agent.worker.executors import AskingSettings, Executors
from flotilla_runtime.agent.worker.levers import under_levers
from flotilla_runtime.agent.worker.loading import load_program, load_tools, load_validators
from flotilla_runtime.agent.worker.metrics import WorkerMetrics
from flotilla_runtime.agent.worker.patience import until_answered
from flotilla_runtime.agent.worker.texts import Texts
from flotilla_runtime.agent.worker.tool_watch import ToolWatch
from flotilla_runtime.agent.worker.worker import RENEWALS_PER_LEASE, Tracing, Worker
from flotilla_runtime.contract import CONFIG_PATH, ENV_POD_NAME, EXIT_PERMANENT, SecretError, WorkerConfig
from flotilla_runtime.logs import configure_logs
from flotilla_runtime.serving import serving

SERVICE: Final = "flotilla-worker"

log = structlog.get_logger(__name__)


def tracing_of(config: WorkerConfig, metrics: WorkerMetrics, instance: str) -> Tracing | None:
    """Return the tracer of the tasks, or None where the configuration asks for no traces."""
    if config.telemetry is None:
        return None
    # To load OpenTelemetry is a good part of a worker's start, and of its memory.
    from flotilla_runtime.agent.traces.export import exporter_of
    from flotilla_runtime.agent.worker.traced import Tracer

    exporter = exporter_of(config.telemetry, metrics.spans, service=SERVICE, instance=instance)
    return Tracer(exporter, config)


async def work(config: WorkerConfig, addresses: AddressCheck | None = None) -> None:
    """Work until SIGTERM or SIGINT."""
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    async with http_client(config) as client:
        contexts = ContextLengths(client, environment=os.environ, monotonic_seconds=time.monotonic)
        http = HttpTools(addresses=addresses)
        prepare(config.graph)
        try:
            catalogue = load_tools(config.tools, http)
            program = load_program(config, contexts.of, catalogue)
            validators = load_validators(config.validators)
        except ProgramError as problem:
            # A worker's last line becomes the message of its pod, which the operator shows.
            sys.stderr.write(f"{problem}\n")
            sys.exit(EXIT_PERMANENT)
        objects = opened(config.queue)
        redis = connect(config.queue)
        store = TaskStore(redis, config.queue, objects)
        texts = Texts(TextStore(redis, config.queue.fleet))
        showing = asyncio.create_task(texts.follow())
        name = os.environ.get(ENV_POD_NAME) or f"{socket.gethostname()}-{os.getpid()}"
        executors = _executors(config, store, name)
        elsewhere, before = (executors, None) if config.has_executors else (None, executors)
        tools = ToolRunner(catalogue, http, elsewhere=elsewhere, before=before, validators=validators)
        watch = ToolWatch(catalogue, store.tool_reports)
        metrics = WorkerMetrics()
        tracing = tracing_of(config, metrics, name)
        salts = Salts(redis, store.keys)
        caller = Caller(
            client,
            config,
            environment=os.environ,
            context_of=contexts.of,
            tools=tools,
            texts=texts,
            salt_of=lambda tenant: until_answered(lambda: salts.of(tenant), lambda _: None),
        )
        worker = Worker(
            name=name,
            store=store,
            calls=under_levers(
                caller,
                config,
                redis,
                client,
                environment=os.environ,
                tools=catalogue,
                context_of=contexts.of,
                registry=metrics.registry,
            ),
            config=config,
            program=program,
            clock=Clock(monotonic_seconds=time.monotonic),
            threads=tools.threads,
            metrics=metrics,
            tracing=tracing,
        )
        async with serving(health_application(worker.vitals, worker.metrics.registry), config.metrics_port):
            log.info("worker_started", worker=worker.name, fleet=config.queue.fleet)
            following = asyncio.create_task(executors.run())
            watching = asyncio.create_task(watch.run())
            await watch.looked(stopping)
            await worker.run(stopping)
            watching.cancel()
            await executors.close()
            following.cancel()
            if tracing is not None:
                await asyncio.to_thread(tracing.stop)
            log.info("worker_stopped", worker=worker.name)
        showing.cancel()
        await catalogue.close()
        await tools.close()
        await store.close()
        if objects is not None:
            await objects.close()


def _executors(config: WorkerConfig, store: TaskStore, name: str) -> Executors:
    settings = AskingSettings(
        process=f"{name}#{new_request()}",
        revision=config.revision,
        has_executors=config.has_executors,
        look_seconds=config.queue.lease_seconds / RENEWALS_PER_LEASE,
        most_lost=config.queue.max_attempts,
    )
    return Executors(store.tool_requests, settings)


def main() -> None:
    """Read the configuration and work."""
    parser = argparse.ArgumentParser(prog="flotilla_runtime.agent", description=__doc__)
    parser.add_argument("--config", type=Path, default=Path(CONFIG_PATH))
    parser.add_argument(
        "--tools-on-loopback", action="store_true", help="let tools reach this machine; for tests alone"
    )
    options = parser.parse_args()
    configure_logs()
    config = WorkerConfig.model_validate_json(options.config.read_bytes())
    try:
        asyncio.run(work(config, AddressCheck(allow_loopback=options.tools_on_loopback)))
    except SecretError as problem:
        sys.exit(str(problem))  # the last line of a pod becomes its message, which the operator shows


if __name__ == "__main__":
    main()
