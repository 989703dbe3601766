"""Starts an agent worker: `python -m flotilla_runtime.agent`."""

import argparse
import asyncio
import os
import signal
import socket
import sys
import time
from pathlib import Path

import structlog
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from flotilla_runtime.agent.engine.run import Clock
from flotilla_runtime.agent.store.connections import connect
from flotilla_runtime.agent.store.s3 import opened
from flotilla_runtime.agent.store.task_store import TaskStore
from flotilla_runtime.agent.tools.references import ProgramError
from flotilla_runtime.agent.tools.runner import ToolRunner
from flotilla_runtime.agent.worker.calls import Caller, http_client
from flotilla_runtime.agent.worker.contexts import ContextLengths
from flotilla_runtime.agent.worker.loading import load_program
from flotilla_runtime.agent.worker.worker import Worker
from flotilla_runtime.contract import CONFIG_PATH, ENV_POD_NAME, EXIT_PERMANENT, WorkerConfig
from flotilla_runtime.logs import configure_logs
from flotilla_runtime.serving import serving

log = structlog.get_logger(__name__)


def health_application(worker: Worker) -> Starlette:
    """Liveness, readiness and metrics of a worker."""

    async def healthz(_: Request) -> Response:
        if worker.is_alive:
            return PlainTextResponse("ok")
        return PlainTextResponse("the worker has stopped looking for tasks", 503)

    async def readyz(_: Request) -> Response:
        return PlainTextResponse("ok") if worker.is_ready else PlainTextResponse("Redis does not answer", 503)

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(worker.metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return Starlette(
        routes=[Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", metrics)]
    )


async def work(config: WorkerConfig) -> None:
    """Work until SIGTERM or SIGINT."""
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    async with http_client(config) as client:
        contexts = ContextLengths(client, environment=os.environ, monotonic_seconds=time.monotonic)
        try:
            program = load_program(config, contexts.of)
        except ProgramError as problem:
            # A worker's last line becomes the message of its pod, which the operator shows.
            sys.stderr.write(f"{problem}\n")
            sys.exit(EXIT_PERMANENT)
        objects = opened(config.queue)
        store = TaskStore(connect(config.queue), config.queue, objects)
        tools = ToolRunner(program.tools)
        worker = Worker(
            name=os.environ.get(ENV_POD_NAME) or f"{socket.gethostname()}-{os.getpid()}",
            store=store,
            calls=Caller(client, config, environment=os.environ, context_of=contexts.of, tools=tools),
            config=config,
            program=program,
            clock=Clock(monotonic_seconds=time.monotonic),
        )
        async with serving(health_application(worker), config.metrics_port):
            log.info("worker_started", worker=worker.name, fleet=config.queue.fleet)
            await worker.run(stopping)
            log.info("worker_stopped", worker=worker.name)
        await tools.close()
        await store.close()
        if objects is not None:
            await objects.close()


def main() -> None:
    """Read the configuration and work."""
    parser = argparse.ArgumentParser(prog="flotilla_runtime.agent", description=__doc__)
    parser.add_argument("--config", type=Path, default=Path(CONFIG_PATH))
    options = parser.parse_args()
    configure_logs()
    asyncio.run(work(WorkerConfig.model_validate_json(options.config.read_bytes())))


if __name__ == "__main__":
    main()
