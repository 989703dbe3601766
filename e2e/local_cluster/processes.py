"""Starts, watches and stops long-running programs by process id.

A test's daemon dies with the test's process, even when that is killed. A daemon of the full cluster outlives
the command that started it. A file holds its process id and start time, so that a later command can find it
and a reused process id is never taken for it.
"""

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from local_cluster.errors import MissingPrerequisites, NotReady

POLL_SECONDS = 0.05
LOG_TAIL_BYTES = 2000
# Below the range that the kernel uses for outgoing connections, so no connection can take a free port.
PORT_RANGE = (20000, 32000)
# To the kernel the thread that starts a program is its parent. This one lasts as long as the process.
_starter = ThreadPoolExecutor(max_workers=1, thread_name_prefix="starter")


class Daemon:
    """One program with its log and its record of the running process."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str | Path],
        *,
        directory: Path,
        environment: Mapping[str, str] | None = None,
        dies_with_parent: bool,
    ) -> None:
        self.name = name
        self.argv = [str(part) for part in argv]
        self.log_path = directory / f"{name}.log"
        self._record = directory / f"{name}.pid"
        self._environment = {**os.environ, **(environment or {})}
        self._dies_with_parent = dies_with_parent
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The running process, or None."""
        if self._child is not None:
            return self._child.pid if self._child.poll() is None else None
        return recorded_pid(self._record)

    def start(self) -> None:
        """Start the program unless it is running."""
        if self.pid is not None:
            return
        prefix = [_program("setpriv"), "--pdeathsig", "KILL", "--"] if self._dies_with_parent else []
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("ab") as log:
            starting = _starter.submit(
                subprocess.Popen,
                [*prefix, *self.argv],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,
            )
            child: subprocess.Popen[bytes] = starting.result()
        self._child = child
        record = {"pid": child.pid, "started": start_ticks(child.pid)}
        self._record.write_text(json.dumps(record))

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the running process; SIGSTOP suspends it and SIGCONT continues it."""
        pid = self.pid
        if pid is not None:
            os.kill(pid, number)

    def stop(self, *, grace_seconds: float = 5.0) -> None:
        """Ask the program to end, and kill it when it still runs after the grace period."""
        pid = self.pid
        if pid is not None:
            end_process(pid, grace_seconds=grace_seconds, reap=self._reap)
        if self._child is not None:
            self._child.wait(timeout=10)  # a zombie's other threads may hold its port a moment longer
        self._child = None
        self._record.unlink(missing_ok=True)

    def kill(self) -> None:
        """Kill the program, without time to clean up."""
        self.stop(grace_seconds=0)

    def log_tail(self) -> str:
        """The end of the log, for error messages."""
        return self.log_path.read_text(errors="replace")[-LOG_TAIL_BYTES:] if self.log_path.exists() else ""

    def _reap(self) -> None:
        if self._child is not None:
            self._child.poll()


def wait_until(
    probe: Callable[[], bool], *, part: str, timeout_seconds: float, daemons: Sequence[Daemon] = ()
) -> None:
    """Poll until the probe returns true; raises NotReady at once when one of the daemons has ended."""
    deadline = time.monotonic() + timeout_seconds
    while not probe():
        ended = next((daemon for daemon in daemons if daemon.pid is None), None)
        if ended is not None:
            raise NotReady(
                part=ended.name,
                problem=f"the process ended during the start; its log ends with:\n{ended.log_tail()}",
                fix=f"Read the whole log: {ended.log_path}",
            )
        if time.monotonic() > deadline:
            tails = "\n".join(f"[{daemon.name}] {daemon.log_tail()}" for daemon in daemons)
            raise NotReady(
                part=part,
                problem=f"not ready after {timeout_seconds:.0f} s; the logs end with:\n{tails}",
                fix="Read the whole logs: " + ", ".join(str(daemon.log_path) for daemon in daemons),
            )
        time.sleep(POLL_SECONDS)


class Ports:
    """Gives out free ports and keeps them reserved, because a program listens on one only some time later."""

    def __init__(self) -> None:
        self._claims: list[socket.socket] = []

    def free(self) -> int:
        """A free TCP port on loopback; no other caller on this machine gets it while this object lives."""
        while True:
            port = random.randint(*PORT_RANGE)
            claim = socket.socket(socket.AF_UNIX)
            with socket.socket() as probe, suppress(OSError):
                claim.bind(f"\0flotilla-port-{port}")  # an abstract name, which goes with the process
                probe.bind(("127.0.0.1", port))
                self._claims.append(claim)
                return port
            claim.close()


free_port = Ports().free


def start_ticks(pid: int) -> int | None:
    """When the process started, in the kernel's ticks since boot; None when it is gone or a zombie."""
    with suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] in "ZX" else int(fields[19])
    return None


def recorded_pid(record: Path) -> int | None:
    """The process id of a record, when that process still runs and started at the recorded time."""
    with suppress(OSError, ValueError):
        found = json.loads(record.read_text())
        if found["started"] is not None and start_ticks(found["pid"]) == found["started"]:
            return int(found["pid"])
    return None


def end_process(pid: int, *, grace_seconds: float, reap: Callable[[], None] = lambda: None) -> None:
    """Send SIGTERM (and SIGCONT, if it is suspended), then SIGKILL after the grace; wait until it ends."""
    started = start_ticks(pid)
    with suppress(ProcessLookupError):
        if grace_seconds > 0:
            os.kill(pid, signal.SIGTERM)
            os.kill(pid, signal.SIGCONT)
            if _gone(pid, started, time.monotonic() + grace_seconds, reap):
                return
        os.kill(pid, signal.SIGKILL)
    _gone(pid, started, time.monotonic() + 10, reap)


def _gone(pid: int, started: int | None, deadline: float, reap: Callable[[], None]) -> bool:
    while time.monotonic() < deadline:
        reap()
        if start_ticks(pid) is None or start_ticks(pid) != started:
            return True
        time.sleep(POLL_SECONDS)
    return False


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise MissingPrerequisites(missing=[name], fix="apt-get install --yes util-linux")
    return found
