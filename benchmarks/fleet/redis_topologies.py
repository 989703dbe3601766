"""Redis under Sentinel and as a Cluster, from real redis-server processes whose primaries are killed."""

import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import redis
from redis.cluster import ClusterNode, RedisCluster

from fleet.redis_site import PASSWORD, Server, password_file, wait_until
from flotilla_runtime.contract import RedisTopology
from local_cluster.processes import Daemon, free_port

MASTER: Final = "mymaster"
CLUSTER_PRIMARIES: Final = 3
DOWN_AFTER_MS: Final = 1000
# As docs/tasks.md asks: a primary that is taken for dead, and lives, accepts nothing that nobody else has.
GUARDED: Final = {"min-replicas-to-write": "1", "min-replicas-max-lag": "10"}


class SentinelRedis:
    """A primary and a replica, watched by one Sentinel, which decides alone."""

    topology = RedisTopology.SENTINEL

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.servers = [Server(folder, f"redis-{number}", **GUARDED) for number in range(2)]
        self._port = free_port()
        self._sentinel = Daemon(
            "sentinel",
            ["redis-server", folder / "sentinel.conf", "--sentinel"],
            directory=folder,
            dies_with_parent=True,
        )
        self._asked: Any = redis.Redis(
            host="127.0.0.1", port=self._port, decode_responses=True, socket_timeout=5
        )

    def start(self) -> None:
        """Start the servers, then Sentinel."""
        first, second = self.servers
        first.start()
        second.start()
        second.client.replicaof("127.0.0.1", first.port)
        (self._folder / "sentinel.conf").write_text(
            f"port {self._port}\nbind 127.0.0.1\ndir {self._folder}\n"
            f"sentinel monitor {MASTER} 127.0.0.1 {first.port} 1\n"
            f'sentinel auth-pass {MASTER} "{PASSWORD}"\n'
            f"sentinel down-after-milliseconds {MASTER} {DOWN_AFTER_MS}\n"
            f"sentinel failover-timeout {MASTER} 3000\n"
        )
        self._sentinel.start()
        wait_until(self._is_whole, "a primary with its replica, known to Sentinel")

    def queue(self) -> dict[str, Any]:
        """The URL of Sentinel."""
        return {
            "url": f"redis://127.0.0.1:{self._port}/0",
            "password_path": password_file(self._folder),
            "topology": self.topology,
            "sentinel_master": MASTER,
        }

    def client(self) -> Any:
        """A client of the primary."""
        return self.primary().client

    def primary(self) -> Server:
        """The server that Sentinel names."""
        _, port = self._asked.execute_command("SENTINEL", "get-master-addr-by-name", MASTER)
        return next(server for server in self.servers if server.port == int(port))

    def kill_primary(self) -> None:
        """Kill the primary, wait for the failover, and bring it back as a replica."""
        killed = self.primary()
        killed.kill()
        wait_until(lambda: self.primary() is not killed, "a failover")
        killed.start()
        killed.client.replicaof("127.0.0.1", self.primary().port)  # Sentinel would do it after ten seconds
        wait_until(self._is_whole, "a primary with its replica, after a failover")

    def stop(self) -> None:
        """Kill all."""
        self._sentinel.kill()
        for server in self.servers:
            server.kill()

    def _is_whole(self) -> bool:
        with suppress(redis.RedisError, KeyError):
            seen = self._asked.execute_command("SENTINEL", "replicas", MASTER)
            return bool(seen) and has_replica(self.primary())
        return False


class ClusterRedis:
    """Three primaries with a replica each."""

    topology = RedisTopology.CLUSTER

    def __init__(self, folder: Path, key: str) -> None:
        self._folder = folder
        self._key = key
        settings = {**GUARDED, "cluster-enabled": "yes", "cluster-node-timeout": "2000"}
        count = 2 * CLUSTER_PRIMARIES
        # Redis' own choice, its port and 10,000, may be taken, or be no port.
        self.servers = [
            Server(folder, f"redis-{number}", **settings, **{"cluster-port": str(free_port())})
            for number in range(count)
        ]

    def start(self) -> None:
        """Start the servers, and make them a Cluster."""
        for server in self.servers:
            server.start()
        places = [f"127.0.0.1:{server.port}" for server in self.servers]
        command = ["redis-cli", "-a", PASSWORD, "--no-auth-warning", "--cluster", "create", *places]
        subprocess.run(
            [*command, "--cluster-replicas", "1", "--cluster-yes"], check=True, capture_output=True
        )
        wait_until(self._is_whole, "a whole Cluster")

    def queue(self) -> dict[str, Any]:
        """The URL of two of its nodes."""
        places = ",".join(f"127.0.0.1:{server.port}" for server in self.servers[:2])
        return {
            "url": f"redis://{places}",
            "password_path": password_file(self._folder),
            "topology": self.topology,
        }

    def client(self) -> Any:
        """A client of the primary that has the fleet's keys, which all have one hash tag."""
        return self.primary().client

    def primary(self) -> Server:
        """The primary of the fleet's slot, as the nodes tell that answer."""
        node: Any = ClusterNode
        nodes = [node("127.0.0.1", server.port) for server in self.servers if server.answers()]
        cluster: Any = RedisCluster(
            startup_nodes=nodes, password=PASSWORD, require_full_coverage=False, decode_responses=True
        )
        try:
            port = cluster.get_node_from_key(self._key).port
        finally:
            cluster.close()
        return next(server for server in self.servers if server.port == port)

    def kill_primary(self) -> None:
        """Kill the primary, wait for the failover, and bring it back as a replica."""
        killed = self.primary()
        killed.kill()
        wait_until(lambda: self.primary() is not killed, "a failover")
        killed.start()
        wait_until(self._is_whole, "a whole Cluster, after a failover")

    def stop(self) -> None:
        """Kill all."""
        for server in self.servers:
            server.kill()

    def _is_whole(self) -> bool:
        with suppress(redis.RedisError, redis.exceptions.RedisClusterException):
            told = [server.client.execute_command("CLUSTER", "INFO") for server in self.servers]
            return all("cluster_state:ok" in str(one) or _is_ok(one) for one in told) and has_replica(
                self.primary()
            )
        return False


def _is_ok(told: Any) -> bool:
    return isinstance(told, dict) and told.get("cluster_state") == "ok"


def has_replica(server: Server) -> bool:
    """Whether a replica follows this server and has caught up with it."""
    told: Any = server.client.info("replication")
    return any(
        str(name).startswith("slave") and isinstance(value, dict) and value.get("state") == "online"
        for name, value in told.items()
    )
