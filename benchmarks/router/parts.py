"""The programs that both halves of the benchmark start: load generator, routers and plain HAProxies."""

import hashlib
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flotilla_runtime.contract import RouterConfig
from flotilla_runtime.router.__main__ import write_files
from flotilla_runtime.router.files import RunFiles
from local_cluster.directories import directories
from local_cluster.processes import free_port
from processor import processor_seconds
from router.pods_api import ENGINE_LABELS, ROUTER_LABELS, engine_pod, pods_api, router_pod

ROUTERS = 2
STARTED_SECONDS = 120
SOURCES = Path(__file__).parent / "load"
BALANCER_CONFIG = """
global
    nbthread 1
    maxconn 8000
    no strict-limits
    tune.bufsize 65536
defaults
    mode http
    timeout client 600s
    timeout server 600s
    timeout connect 5s
    option {connections}
    option http-no-delay
frontend callers
    bind 127.0.0.1:{port}
    default_backend engines
backend engines
    balance {balance}
    http-response set-header X-Flotilla-Replica %s
{servers}
"""


def load_program() -> str:
    """The path of the compiled load generator and backend; built once for each version of its sources."""
    sources = sorted(SOURCES.iterdir())
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:12]
    target = directories().binaries / "router-load" / digest / "router-load"
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_suffix(f".{os.getpid()}")
        environment = {**os.environ, "CGO_ENABLED": "0"}
        subprocess.run(["go", "build", "-o", partial, "."], cwd=SOURCES, check=True, env=environment)
        partial.replace(target)
    return str(target)


def ask(*arguments: str) -> dict[str, Any]:
    """Run one of the program's commands and read its answer."""
    done = subprocess.run([load_program(), *arguments], capture_output=True, text=True, check=True)
    answer: dict[str, Any] = json.loads(done.stdout)
    if answer["failed"]:
        raise SystemExit(
            f"{answer['failed']} of {answer['requests']} requests failed; the arguments were {arguments}"
        )
    return answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Balancer:
    """The URL of a load balancer, and its processes."""

    url: str
    process_ids: tuple[int, ...]
    agent_ids: tuple[int, ...] = ()

    @property
    def all_ids(self) -> tuple[int, ...]:
        """The process ids of the balancers and of the agents."""
        return (*self.process_ids, *self.agent_ids)

    def processor_seconds(self) -> dict[str, float]:
        """The processor time of each role."""
        return {
            "haproxy": sum(map(processor_seconds, self.process_ids)),
            "agents": sum(map(processor_seconds, self.agent_ids)),
        }


def engine_addresses(count: int) -> tuple[str, ...]:
    """A loopback address for each engine, as each pod has an address."""
    return tuple(f"127.0.1.{number}" for number in range(1, count + 1))


@contextmanager
def running(*command: str, log: Path, **options: Any) -> Iterator[int]:
    """Run the command during the block; yields its process id."""
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, **options)
    try:
        yield process.pid
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def two_routers(folder: Path, engine_port: int, engines: int, *, max_num_seqs: int) -> Iterator[Balancer]:
    """Two routers and their agents on one port; the kernel distributes connections, as a Service does."""
    port = free_port()
    names = tuple(f"router-{number}" for number in range(ROUTERS))
    pods = [
        engine_pod(f"r{number}", number, ip) for number, ip in enumerate(engine_addresses(engines), start=1)
    ]
    with ExitStack() as stack:
        api = stack.enter_context(pods_api([*pods, *map(router_pod, names)]))
        process_ids, agent_ids = [], []
        for name in names:
            config = RouterConfig(
                name="m",
                namespace="bench",
                models=("m",),
                engine_selector=ENGINE_LABELS,
                router_selector=ROUTER_LABELS,
                run_directory=str(folder / name),
                port=port,
                metrics_port=free_port(),
                agent_port=free_port(),
                engine_port=engine_port,
                max_num_seqs=max_num_seqs,
            )
            process_id, agent_id = _start_router(stack, folder, name, config, api)
            process_ids.append(process_id)
            agent_ids.append(agent_id)
        yield Balancer(
            url=f"http://127.0.0.1:{port}", process_ids=tuple(process_ids), agent_ids=tuple(agent_ids)
        )


def _start_router(
    stack: ExitStack, folder: Path, name: str, config: RouterConfig, api: str
) -> tuple[int, int]:
    """Start HAProxy and its agent; returns when the agent has given it the replicas."""
    run = Path(config.run_directory)
    write_files(config, run)
    config_file = run / "config.json"
    config_file.write_text(config.model_dump_json(by_alias=True))
    haproxy = running("haproxy", "-db", "-f", str(run / RunFiles.CONFIG), log=folder / f"{name}.log")
    agent = running(
        *(sys.executable, "-m", "router_agent", "--config", str(config_file), "--api", api),
        *("--pod", name, "--address", "127.0.0.1"),
        log=folder / f"{name}-agent.log",
    )
    process_ids = stack.enter_context(haproxy), stack.enter_context(agent)
    wait_until_healthy(f"http://127.0.0.1:{config.agent_port}/readyz")
    return process_ids


def wait_until_healthy(url: str) -> None:
    """Send requests until an answer has status 200; raises after a time."""
    deadline = time.monotonic() + STARTED_SECONDS
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise SystemExit(f"{url} did not answer with status 200 in time")


@contextmanager
def plain_balancers(
    folder: Path, engine_port: int, engines: int, *, balance: str, keep_connections: bool = False
) -> Iterator[Balancer]:
    """Two HAProxies on one port without the router's rules. Like the routers they open a connection to the
    engine for each request, unless they are told to keep connections.
    """
    port = free_port()
    connections = "http-keep-alive" if keep_connections else "http-server-close"
    servers = "\n".join(
        f"    server r{number} {ip}:{engine_port}"
        for number, ip in enumerate(engine_addresses(engines), start=1)
    )
    config = folder / f"{balance}-{connections}.cfg"
    config.write_text(
        BALANCER_CONFIG.format(port=port, connections=connections, balance=balance, servers=servers)
    )
    with ExitStack() as stack:
        process_ids = [
            stack.enter_context(running("haproxy", "-db", "-f", str(config), log=folder / "balancer.log"))
            for _ in range(ROUTERS)
        ]
        time.sleep(1)
        yield Balancer(url=f"http://127.0.0.1:{port}", process_ids=tuple(process_ids))


def median(values: Sequence[float]) -> float:
    """The middle one."""
    return sorted(values)[len(values) // 2]
