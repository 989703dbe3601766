"""Long-running programs: started, watched, stopped by process id, and found again by a later command.

A daemon of a test dies with the test's process, even when that is killed. A daemon of the full
cluster outlives the command that started it; its id and start time stand in a file, so that a
reused process id is never mistaken for it.
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
from contextlib import suppress
from pathlib import Path

from local_cluster.errors import MissingPrerequisites, NotReady

POLL_SECONDS = 0.05
LOG_TAIL_BYTES = 2000
# Below the range that the kernel hands out to outgoing connections, so nothing takes it meanwhile.
PORT_RANGE = (20000, 32000)


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
        """Start the program unless it runs already."""
        if self.pid is not None:
            return
        prefix = [_program("setpriv"), "--pdeathsig", "KILL", "--"] if self._dies_with_parent else []
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("ab") as log:
            child = subprocess.Popen(
                [*prefix, *self.argv],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,
            )
        self._child = child
        record = {"pid": child.pid, "started": start_ticks(child.pid)}
        self._record.write_text(json.dumps(record))

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the running process: SIGSTOP and SIGCONT make it hang and go on."""
        pid = self.pid
        if pid is not None:
            os.kill(pid, number)

    def stop(self, *, grace_seconds: float = 5.0) -> None:
        """Ask the program to end, and kill it when it has not after the grace."""
        pid = self.pid
        if pid is not None:
            end_process(pid, grace_seconds=grace_seconds, reap=self._reap)
        if self._child is not None:
            self._child.wait(timeout=10)  # a zombie's other threads may hold its port a moment longer
        self._child = None
        self._record.unlink(missing_ok=True)

    def kill(self) -> None:
        """End the program without giving it a chance to tidy up."""
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
    """Poll until the probe holds; fail at once when one of the daemons has ended."""
    deadline = time.monotonic() + timeout_seconds
    while not probe():
        ended = next((daemon for daemon in daemons if daemon.pid is None), None)
        if ended is not None:
            raise NotReady(
                part=ended.name,
                problem=f"it ended while starting:\n{ended.log_tail()}",
                fix=f"Its log is {ended.log_path}.",
            )
        if time.monotonic() > deadline:
            tails = "\n".join(f"[{daemon.name}] {daemon.log_tail()}" for daemon in daemons)
            raise NotReady(
                part=part,
                problem=f"not ready after {timeout_seconds:.0f} s\n{tails}",
                fix="Logs: " + ", ".join(str(daemon.log_path) for daemon in daemons),
            )
        time.sleep(POLL_SECONDS)


class Ports:
    """Hands out ports and keeps them claimed, since one is listened on only a little after it was given."""

    def __init__(self) -> None:
        self._claims: list[socket.socket] = []

    def free(self) -> int:
        """A TCP port on loopback that nothing listens on and that nobody else is given while this lives."""
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
    """The process a record names, when it is the very one that was recorded."""
    with suppress(OSError, ValueError):
        found = json.loads(record.read_text())
        if found["started"] is not None and start_ticks(found["pid"]) == found["started"]:
            return int(found["pid"])
    return None


def end_process(pid: int, *, grace_seconds: float, reap: Callable[[], None] = lambda: None) -> None:
    """SIGTERM (and SIGCONT, for one that was stopped), then SIGKILL after the grace; waits for the end."""
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
