"""As a program: a router's agent that listens on one address of loopback, as a pod has one of its own."""

import argparse
import asyncio
import signal
import sys
from pathlib import Path

from aiohttp import web

from flotilla_runtime.contract import RouterConfig
from flotilla_runtime.router.agent import RouterAgent
from flotilla_runtime.router.agent_http import application
from flotilla_runtime.router.pod_watch import KubernetesAccess


async def run(options: argparse.Namespace) -> None:
    """The agent and its server until SIGTERM."""
    config = RouterConfig.model_validate_json(options.config.read_text())
    access = KubernetesAccess(url=options.api, token_path=options.token, certificate_path=options.authority)
    agent = RouterAgent(config, access, own_pod=options.pod)
    runner = web.AppRunner(application(agent), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, options.address, config.agent_port).start()
    task = asyncio.create_task(agent.run())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        return
    finally:
        await runner.cleanup()


def main() -> int:
    """Run one agent."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--api", required=True)
    parser.add_argument("--token", type=Path, required=True)
    parser.add_argument("--authority", type=Path, required=True)
    parser.add_argument("--pod", required=True)
    parser.add_argument("--address", required=True)
    asyncio.run(run(parser.parse_args()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
