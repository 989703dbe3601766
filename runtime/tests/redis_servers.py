"""Redis servers for the runtime's tests, each a process with its own temporary folder."""

import contextlib
import hashlib
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from flotilla_runtime.contract.redis_rights import TASK_COMMANDS, acl_rights
from leaks.planted import planted
from local_cluster.processes import free_port

ADMIN = "admin"
PASSWORD = planted("correct horse")
QUIET = "--no-auth-warning"
TASK_RIGHTS = acl_rights(TASK_COMMANDS)
ALL_RIGHTS = "+@all"


class RedisServer:
    """A real redis-server with the settings of the managed one; it can be killed and started again.

    Its default user has the rights of gateways and workers alone, so that every test shows that these are
    enough. `ask` is by another user, and so is a replica.
    """

    def __init__(
        self, folder: Path, *extra: str, program: str = "redis-server", rights: str = TASK_RIGHTS
    ) -> None:
        self._rights = rights.split()
        self.port = free_port()
        self.password = PASSWORD
        self._folder = folder
        self._extra = extra
        self._program = program
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def password_path(self) -> str:
        return str(self._folder / "password")

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def runs(self) -> bool:
        return self._process is not None

    def start(self) -> None:
        settings = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": str(self._folder),
            "appendonly": "yes",
            "appendfsync": "always",
            "save": "",
            "maxmemory-policy": "noeviction",
            "masteruser": ADMIN,
        }
        arguments = [part for name, value in settings.items() for part in (f"--{name}", value)]
        digest = f"#{hashlib.sha256(self.password.encode()).hexdigest()}"
        arguments += ["--user", "default", "on", "resetpass", digest, "~*", "&*", *self._rights]
        arguments += ["--user", ADMIN, "on", digest, "~*", "&*", "+@all"]
        (self._folder / "password").write_text(self.password)
        log = (self._folder / "redis.log").open("ab")
        self._process = subprocess.Popen(
            [self._program, *arguments, *self._extra], stdout=log, stderr=subprocess.STDOUT
        )
        deadline = time.monotonic() + 30
        while not self._answers():
            assert time.monotonic() < deadline, (self._folder / "redis.log").read_text()
            time.sleep(0.02)

    def stop(self, number: int = signal.SIGKILL) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(10)
            self._process = None

    def empty(self) -> None:
        """Take away what the stopped server has written, as if its volume were lost."""
        assert self._process is None
        shutil.rmtree(self._folder / "appendonlydir")

    def pause(self) -> None:
        """Let the process answer nothing, until it goes on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """The opposite of `pause`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def ask(self, *command: str) -> str:
        """Run a command, and return the output of redis-cli."""
        told = subprocess.run(
            [*("redis-cli", "-p", str(self.port), "--user", ADMIN, "-a", self.password), QUIET, *command],
            check=True,
            capture_output=True,
            text=True,
        )
        return told.stdout

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as link:
            link.sendall(f'AUTH "{self.password}"\r\nPING\r\n'.encode())
            return b"PONG" in link.recv(100)
        return False
