"""`python -m flotilla_runtime.router render --config FILE --to DIRECTORY`, then `… agent --config FILE`.

The operator runs these two commands in a router pod that looks like this:

- Volumes: `config` (ConfigMap with config.json, at /etc/flotilla in `render` and `agent`), `run` (emptyDir,
  at /run/flotilla in all three containers) and, with caller keys, `keys` (the secret, at
  `caller_keys_directory` in `render` and `agent`).
- Init container `render`: the runtime image with the args `flotilla_runtime.router render`.
- Container `haproxy`: args `haproxy -W -db -f /run/flotilla/haproxy.cfg`; the ports router and metrics;
  readiness and liveness GET /health on the metrics port.
- Container `agent`: the runtime image with the args `flotilla_runtime.router agent`; POD_NAME from
  metadata.name; liveness GET /healthz and readiness GET /readyz on the agent's port.
- Both containers have the preStop hook httpGet /v1/drained on the agent's port. The pod's grace period is
  `drain_deadline_seconds` plus 30 seconds.
- All containers run as the same user, so that they share the admin socket. Root file systems are read-only;
  there are no sysctls and no capabilities.
- The service account may get, list and watch pods in its namespace; its token is mounted.
"""

import argparse
import asyncio
import logging
import os
import signal
import socket
import sys
from pathlib import Path

import structlog

from flotilla_runtime import contract
from flotilla_runtime.contract import ListenFamily, RouterConfig
from flotilla_runtime.contract.failure_texts import tell_uncaught, traced
from flotilla_runtime.router.admin_socket import write_run_file
from flotilla_runtime.router.agent import RouterAgent
from flotilla_runtime.router.agent_http import serve
from flotilla_runtime.router.caller_keys import map_text, read_caller_keys
from flotilla_runtime.router.files import RunFiles
from flotilla_runtime.router.haproxy import render
from flotilla_runtime.router.pod_watch import KubernetesAccess


def main(arguments: list[str]) -> int:
    """Run one of the two commands."""
    options = _parser().parse_args(arguments)
    config = RouterConfig.model_validate_json(Path(options.config).read_text("utf-8"))
    if options.command == "render":
        family = usable_family(config.listen_family, has_ipv6=has_ipv6())
        write_files(
            config.model_copy(update={"listen_family": family}), Path(options.to or config.run_directory)
        )
    else:
        tell_uncaught()
        structlog.configure(
            processors=[
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                traced,
                structlog.processors.JSONRenderer(),
            ],
            wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        )
        asyncio.run(run_agent(config, KubernetesAccess.in_pod(), own_pod=os.environ["POD_NAME"]))
    return 0


def usable_family(wanted: ListenFamily, *, has_ipv6: bool) -> ListenFamily:
    """IPv4 in place of both families on a node without IPv6, where HAProxy would not start with both."""
    return ListenFamily.IPV4 if wanted is ListenFamily.DUAL and not has_ipv6 else wanted


def has_ipv6() -> bool:
    """Whether this pod can open an IPv6 listener."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::", 0))
    except OSError:
        return False
    return True


def write_files(config: RouterConfig, directory: Path) -> None:
    """Write all files with which HAProxy starts, including the keys of the known callers."""
    texts = render(config)
    if config.caller_keys_directory is not None:
        texts[RunFiles.KEYS_MAP] = map_text(read_caller_keys(Path(config.caller_keys_directory)).by_hash)
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        write_run_file(RunFiles(str(directory)), name, text)


async def run_agent(
    config: RouterConfig, access: KubernetesAccess, *, own_pod: str, address: str | None = None
) -> None:
    """Run the agent and its HTTP server until SIGTERM.

    HAProxy gets its own SIGTERM, after its own preStop hook. `address` limits the server to one address, on a
    machine where several pods share a network.
    """
    agent = RouterAgent(config, access, own_pod=own_pod)
    runner = await serve(agent, port=config.agent_port, family=config.listen_family, address=address)
    task = asyncio.create_task(agent.run())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        return
    finally:
        await runner.cleanup()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m flotilla_runtime.router")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("render", "write the files with which HAProxy starts"),
        ("agent", "keep HAProxy's servers up to date"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument(
            "--config",
            default=contract.CONFIG_PATH,
            help="the router's configuration (default: %(default)s)",
        )
        if name == "render":
            command.add_argument(
                "--to", help="the directory to write to (default: run_directory of the configuration)"
            )
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
