"""A fleet of processes on this machine: Redis, gateways, workers, and engine doubles behind HAProxy.

Each process can be killed and is then started again, as a kubelet does with a container: with the same name
and the same files. All of them die with this process.
"""

import json
import re
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from fleet.redis_site import RedisSite, SingleRedis, wait_until
from flotilla_runtime.contract import ENV_POD_NAME, GatewayAuth, GatewayConfig, WorkerConfig
from local_cluster.processes import Daemon, free_port

NAMESPACE: Final = "bench"
NAME: Final = "fleet"
FLEET: Final = f"{NAMESPACE}/{NAME}"
MODEL: Final = "double"
HAPROXY: Final = """
global
    maxconn 4000
defaults
    mode http
    timeout client 300s
    timeout server 300s
    timeout connect 2s
    option redispatch
    retries 1
frontend models
    bind 127.0.0.1:{port}
    default_backend doubles
backend doubles
    balance {balance}
    option httpchk GET /health
{servers}
"""


class Part(StrEnum):
    """The parts of a fleet that may be killed."""

    WORKER = "Worker"
    GATEWAY = "Gateway"
    REDIS = "Redis"
    DOUBLE = "Double"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How many processes there are, and what their configuration files say."""

    worker: Mapping[str, Any]
    gateway: Mapping[str, Any] = field(default_factory=lambda: {"auth": GatewayAuth.NONE})
    queue: Mapping[str, Any] = field(default_factory=dict)
    models: Sequence[Mapping[str, Any]] = ({},)
    limits: Mapping[str, Any] = field(default_factory=dict)
    double: Mapping[str, Any] = field(default_factory=dict)
    workers: int = 3
    gateways: int = 2
    doubles: int = 2
    balance: str = "leastconn"  # how HAProxy chooses among the doubles


@dataclass(slots=True, kw_only=True)
class Site:
    """The running fleet."""

    redis: RedisSite
    urls: list[str]
    status_urls: list[str]
    parts: dict[Part, list[Daemon]]
    double_log: Path

    def kill(self, part: Part, number: int) -> None:
        """Kill one process of a part, and start it again."""
        if part is Part.REDIS:
            self.redis.kill_primary()
            return
        daemon = self.parts[part][number]
        daemon.kill()
        daemon.start()

    def peak_mib(self, part: Part) -> float:
        """The most memory that a process of this part has taken since it was started."""
        return max(_peak_mib(daemon) for daemon in self.parts[part])


def worker_name(number: int) -> str:
    """The name of a worker's pod."""
    return f"worker-{number}"


@contextmanager
def site(folder: Path, shape: Shape, redis: RedisSite | None = None) -> Iterator[Site]:
    """Start the fleet; returns once a gateway of it answers."""
    servers = redis or SingleRedis(folder)
    with ExitStack() as stack:
        stack.callback(servers.stop)
        servers.start()
        queue = {"fleet": FLEET, **servers.queue(), **shape.queue}
        model_port, metrics = free_port(), [free_port() for _ in range(shape.gateways)]
        ports = [free_port() for _ in range(shape.gateways)]
        double_log = folder / "model.jsonl"
        parts = {
            Part.DOUBLE: _doubles(folder, shape, double_log),
            Part.WORKER: _workers(folder, shape, queue, model_port),
            Part.GATEWAY: _gateways(folder, shape, queue, list(zip(ports, metrics, strict=True))),
        }
        balancer = _balancer(folder, model_port, shape.balance, [_port(one) for one in parts[Part.DOUBLE]])
        for daemon in (balancer, *(one for each in parts.values() for one in each)):
            stack.callback(daemon.kill)
            daemon.start()
        running = Site(
            redis=servers,
            urls=[f"http://127.0.0.1:{port}" for port in ports],
            status_urls=[f"http://127.0.0.1:{port}" for port in metrics],
            parts=parts,
            double_log=double_log,
        )
        wait_until(
            lambda: all(answers(f"{url}/readyz") for url in running.status_urls), "gateways that are ready"
        )
        wait_until(lambda: answers(f"http://127.0.0.1:{model_port}/v1/models"), "a model that answers")
        yield running


def answers(url: str) -> bool:
    """Whether this URL answers with 200."""
    with suppress(urllib.error.URLError, OSError), urllib.request.urlopen(url, timeout=2) as answer:
        return bool(answer.status == 200)
    return False


def _doubles(folder: Path, shape: Shape, log: Path) -> list[Daemon]:
    config = _written(folder / "double.json", json.dumps({"model": MODEL, **shape.double}))
    return [
        _python(folder, f"double-{number}", "fleet.recorded_double", log, "--config", config, "--port", port)
        for number, port in enumerate(free_port() for _ in range(shape.doubles))
    ]


def _workers(folder: Path, shape: Shape, queue: Mapping[str, Any], model_port: int) -> list[Daemon]:
    model = {
        "role": "Default",
        "name": MODEL,
        "url": f"http://127.0.0.1:{model_port}/v1",
        "model": MODEL,
        "context_tokens": 8192,
    }
    daemons = []
    for number in range(shape.workers):
        config = WorkerConfig.model_validate(
            {
                "queue": queue,
                "models": [{**model, **each} for each in shape.models],
                "limits": shape.limits,
                "metrics_port": free_port(),
                **shape.worker,
            }
        )
        name = worker_name(number)
        path = _written(folder / f"{name}.json", config.model_dump_json())
        arguments = ("--config", path, "--tools-on-loopback")
        daemons.append(_python(folder, name, "flotilla_runtime.agent", *arguments, **{ENV_POD_NAME: name}))
    return daemons


def _gateways(
    folder: Path, shape: Shape, queue: Mapping[str, Any], ports: list[tuple[int, int]]
) -> list[Daemon]:
    daemons = []
    for number, (port, metrics_port) in enumerate(ports):
        config = GatewayConfig.model_validate(
            {
                "queue": queue,
                "namespace": NAMESPACE,
                "name": NAME,
                "limits": shape.limits,
                "port": port,
                "metrics_port": metrics_port,
                **shape.gateway,
            }
        )
        path = _written(folder / f"gateway-{number}.json", config.model_dump_json())
        daemons.append(
            _python(
                folder,
                f"gateway-{number}",
                "flotilla_runtime.gateway",
                "--config",
                path,
                **{ENV_POD_NAME: f"gateway-{number}"},
            )
        )
    return daemons


def _balancer(folder: Path, port: int, balance: str, doubles: list[int]) -> Daemon:
    servers = "\n".join(
        f"    server double-{number} 127.0.0.1:{one} check inter 200ms fastinter 100ms fall 1 rise 1"
        for number, one in enumerate(doubles)
    )
    path = _written(folder / "haproxy.cfg", HAPROXY.format(port=port, balance=balance, servers=servers))
    return Daemon("haproxy", ["haproxy", "-db", "-f", path], directory=folder, dies_with_parent=True)


def _python(folder: Path, name: str, module: str, *arguments: Any, **environment: str) -> Daemon:
    return Daemon(
        name,
        [sys.executable, "-m", module, *map(str, arguments)],
        directory=folder,
        environment=environment,
        dies_with_parent=True,
    )


def _peak_mib(daemon: Daemon) -> float:
    status = Path(f"/proc/{daemon.pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    if found is None:
        raise RuntimeError(f"{daemon.name} does not run: {daemon.log_tail()}")
    return int(found[1]) / 1024


def _port(daemon: Daemon) -> int:
    return int(daemon.argv[-1])


def _written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path
