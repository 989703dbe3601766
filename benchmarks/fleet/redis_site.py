"""Real redis-servers as processes, each with a folder of its own; the simplest site is one alone.

A server that was killed is started again on the same folder, as a kubelet does with a container.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Protocol

import redis

from flotilla_runtime.contract import RedisTopology
from local_cluster.processes import Daemon, free_port

PASSWORD: Final = "correct horse"
WAITED_SECONDS: Final = 60.0
POLL_SECONDS: Final = 0.05
SETTINGS: Final = {
    "bind": "127.0.0.1",
    "appendonly": "yes",
    "appendfsync": "always",
    "save": "",
    "maxmemory": "1gb",
    "maxmemory-policy": "noeviction",
    "requirepass": PASSWORD,
    "masterauth": PASSWORD,
    "repl-diskless-sync-delay": "0",
}


class Server:
    """One redis-server."""

    def __init__(self, folder: Path, name: str, **settings: str) -> None:
        self.port: Final = free_port()
        self.name: Final = name
        place = folder / name
        place.mkdir(parents=True)
        told = {**SETTINGS, "port": str(self.port), "dir": str(place), **settings}
        arguments = [part for key, value in told.items() for part in (f"--{key}", value)]
        self._daemon = Daemon(name, ["redis-server", *arguments], directory=place, dies_with_parent=True)
        self.client: Final[Any] = redis.Redis(
            host="127.0.0.1", port=self.port, password=PASSWORD, decode_responses=True, socket_timeout=5
        )

    def start(self) -> None:
        """Start it, and wait until it answers and has read its file."""
        self._daemon.start()
        wait_until(self.answers, f"{self.name} to answer")

    def kill(self) -> None:
        """Kill it, without time to write anything."""
        self._daemon.kill()
        self.client.connection_pool.disconnect()

    def answers(self) -> bool:
        """Whether it answers, and is not loading."""
        with suppress(redis.RedisError):
            return bool(self.client.ping())
        return False


class RedisSite(Protocol):
    """The servers of one fleet."""

    topology: RedisTopology

    def start(self) -> None:
        """Start all servers, and wait until tasks can be written."""

    def queue(self) -> dict[str, Any]:
        """The part of the fleet's configuration that concerns it."""

    def client(self) -> Any:
        """A client of redis-py for the checker."""

    def kill_primary(self) -> None:
        """Kill the server that has the fleet's keys, and bring it back."""

    def stop(self) -> None:
        """Kill all servers."""


class SingleRedis:
    """One server."""

    topology = RedisTopology.SINGLE

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.server = Server(folder, "redis")

    def start(self) -> None:
        """Start it."""
        self.server.start()

    def queue(self) -> dict[str, Any]:
        """Its URL, with the password in a file."""
        return {
            "url": f"redis://127.0.0.1:{self.server.port}/0",
            "password_path": password_file(self._folder),
        }

    def client(self) -> Any:
        """A client of it."""
        return self.server.client

    def kill_primary(self) -> None:
        """Kill it, and start it on the same folder."""
        self.server.kill()
        self.server.start()

    def stop(self) -> None:
        """Kill it."""
        self.server.kill()


def password_file(folder: Path) -> str:
    """The file with the password."""
    path = folder / "password"
    path.write_text(PASSWORD)
    return str(path)


def wait_until(holds: Callable[[], bool], what: str, *, seconds: float = WAITED_SECONDS) -> None:
    """Return once it holds."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:.0f} s in vain for {what}")
        time.sleep(POLL_SECONDS)
