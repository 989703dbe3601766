"""Starts a tool executor: `python -m flotilla_runtime.agent.executor`."""

import argparse
import asyncio
import os
import signal
import socket
import sys
import time
from pathlib import Path

import structlog

from flotilla_runtime.agent.engine.run import Clock
from flotilla_runtime.agent.executor.executor import Executor
from flotilla_runtime.agent.executor.loading import load_checks, load_functions
from flotilla_runtime.agent.health import health_application
from flotilla_runtime.agent.store.connections import connect
from flotilla_runtime.agent.store.tool_requests import ToolRequests
from flotilla_runtime.agent.tools.python_tool import MOST_THREADS, Functions
from flotilla_runtime.agent.tools.references import ProgramError
from flotilla_runtime.agent.tools.runner import ToolRunner
from flotilla_runtime.contract import CONFIG_PATH, ENV_POD_NAME, EXIT_PERMANENT, ExecutorConfig, SecretError
from flotilla_runtime.logs import configure_logs
from flotilla_runtime.serving import serving

log = structlog.get_logger(__name__)


async def execute(config: ExecutorConfig) -> None:
    """Run functions until SIGTERM or SIGINT."""
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    try:
        tools, checks = load_functions(config.tools), load_checks(config.validators)
    except ProgramError as problem:
        # An executor's last line becomes the message of its pod, which the operator shows.
        sys.stderr.write(f"{problem}\n")
        sys.exit(EXIT_PERMANENT)
    queue = ToolRequests(connect(config.queue), config.queue, may_load=False)
    functions = Functions(max(MOST_THREADS, config.concurrency))
    runner = ToolRunner(tools, functions=functions, validators=checks)
    executor = Executor(
        name=os.environ.get(ENV_POD_NAME) or f"{socket.gethostname()}-{os.getpid()}",
        queue=queue,
        functions=runner,
        threads=runner.threads,
        config=config,
        clock=Clock(monotonic_seconds=time.monotonic),
    )
    async with serving(health_application(executor.vitals, executor.metrics.registry), config.metrics_port):
        log.info("executor_started", executor=executor.name, fleet=config.queue.fleet)
        await executor.run(stopping)
        log.info("executor_stopped", executor=executor.name)
    await runner.close()
    await queue.close()


def main() -> None:
    """Read the configuration and run functions."""
    parser = argparse.ArgumentParser(prog="flotilla_runtime.agent.executor", description=__doc__)
    parser.add_argument("--config", type=Path, default=Path(CONFIG_PATH))
    options = parser.parse_args()
    configure_logs()
    config = ExecutorConfig.model_validate_json(options.config.read_bytes())
    try:
        asyncio.run(execute(config))
    except SecretError as problem:
        sys.exit(str(problem))  # the last line of a pod becomes its message, which the operator shows


if __name__ == "__main__":
    main()
