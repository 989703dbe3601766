"""The parts that both halves of the benchmark start: the compiled program, routers, plain balancers."""

import asyncio
import hashlib
import json
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flotilla_runtime.contract import RouterConfig, ServerState
from flotilla_runtime.router.__main__ import write_files
from flotilla_runtime.router.admin_socket import AdminSocket, RouterProcessError
from flotilla_runtime.router.files import RunFiles
from flotilla_runtime.router.pods import Replica
from flotilla_runtime.router.servers import Desired, plan
from local_cluster.directories import directories
from local_cluster.processes import free_port

ROUTERS = 2
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
    option http-server-close
frontend callers
    bind 127.0.0.1:{port}
    default_backend engines
backend engines
    balance {balance}
    http-response set-header X-Flotilla-Replica %s
{servers}
"""


def load_program() -> str:
    """The compiled load generator and backend, built once for these sources and kept in the cache."""
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
        raise SystemExit(f"{answer['failed']} of {answer['requests']} requests failed: {arguments}")
    return answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Balancer:
    """One address, and the processes behind it."""

    url: str
    process_ids: tuple[int, ...]

    def processor_seconds(self) -> float:
        """User and system time of all of them."""
        return sum(_processor_seconds(process_id) for process_id in self.process_ids)


def _processor_seconds(process_id: int) -> float:
    fields = Path(f"/proc/{process_id}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def engine_addresses(count: int) -> tuple[str, ...]:
    """One address of loopback for each engine, as pods have."""
    return tuple(f"127.0.1.{number}" for number in range(1, count + 1))


@contextmanager
def running(*command: str, log: Path, **options: Any) -> Iterator[int]:
    """A process while the block runs; its id."""
    with log.open("ab") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, **options)
    try:
        yield process.pid
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def two_routers(folder: Path, engine_port: int, engines: int, *, max_num_seqs: int) -> Iterator[Balancer]:
    """Two routers on one port: the kernel shares the connections out, as a Service does."""
    port = free_port()
    with ExitStack() as stack:
        process_ids = []
        for number in range(ROUTERS):
            run = folder / f"router-{number}"
            config = RouterConfig(
                name="m",
                namespace="bench",
                models=("m",),
                engine_selector={"app": "m"},
                router_selector={"app": "r"},
                run_directory=str(run),
                port=port,
                metrics_port=free_port(),
                engine_port=engine_port,
                max_num_seqs=max_num_seqs,
            )
            write_files(config, run)
            command = ("haproxy", "-db", "-f", str(run / RunFiles.CONFIG))
            process_ids.append(stack.enter_context(running(*command, log=folder / f"router-{number}.log")))
            asyncio.run(_add_replicas(config, engines))
        yield Balancer(url=f"http://127.0.0.1:{port}", process_ids=tuple(process_ids))


async def _add_replicas(config: RouterConfig, engines: int) -> None:
    """What the agent would do."""
    replicas = tuple(
        Replica(name=f"r{number}", id=number, ip=ip, state=ServerState.READY)
        for number, ip in enumerate(engine_addresses(engines), start=1)
    )
    socket = AdminSocket(RunFiles(config.run_directory))
    desired = Desired(replicas=replicas, live_routers=ROUTERS)
    deadline = time.monotonic() + 30
    while True:
        try:
            observed = await socket.observe(with_keys=False)
            break
        except RouterProcessError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.1)
    refused = await socket.execute(plan(config, desired, observed))
    if refused:
        raise SystemExit(f"HAProxy refused {refused}")


@contextmanager
def plain_balancers(folder: Path, engine_port: int, engines: int, *, balance: str) -> Iterator[Balancer]:
    """Two HAProxies on one port that know nothing of conversations."""
    port = free_port()
    servers = "\n".join(
        f"    server r{number} {ip}:{engine_port}"
        for number, ip in enumerate(engine_addresses(engines), start=1)
    )
    config = folder / f"{balance}.cfg"
    config.write_text(BALANCER_CONFIG.format(port=port, balance=balance, servers=servers))
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
