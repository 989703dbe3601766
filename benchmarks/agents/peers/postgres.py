"""A PostgreSQL of its own, with the settings that it has by default: it syncs each transaction."""

import os
import pwd
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from local_cluster.processes import Daemon, free_port

USER: Final = "nobody"  # it refuses to run as root
FOLDERS: Final = "/usr/lib/postgresql"
STARTED_SECONDS: Final = 30.0
POLL_SECONDS: Final = 0.1


def programs() -> Path | None:
    """The folder of PostgreSQL's programs; None where it is not installed."""
    found = sorted(Path(FOLDERS).glob("*/bin/initdb"))
    return found[-1].parent if found else None


@contextmanager
def postgres(folder: Path, binaries: Path) -> Iterator[str]:
    """A running server; its URL without the name of a database."""
    data, port = folder / "data", free_port()
    data.mkdir(parents=True)
    prefix = _as_somebody(folder)
    told = ["-D", str(data), "-U", "bench", "-A", "trust", "--locale", "C", "-E", "UTF8"]
    subprocess.run([*prefix, str(binaries / "initdb"), *told], check=True, capture_output=True)
    command = [
        str(binaries / "postgres"),
        "-D",
        str(data),
        "-p",
        str(port),
        "-k",
        str(data),
        "-h",
        "127.0.0.1",
    ]
    server = Daemon("postgres", [*prefix, *command], directory=folder, dies_with_parent=True)
    server.start()
    try:
        _wait(binaries, port, server)
        yield f"postgresql://bench@127.0.0.1:{port}"
    finally:
        server.stop()


def asked(binaries: Path, url: str, statement: str) -> str:
    """Output of psql for a statement."""
    command = [str(binaries / "psql"), f"{url}/postgres", "-Atc", statement]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _as_somebody(folder: Path) -> list[str]:
    """Prefix of a command that must not run as root. The folder is then that user's."""
    if os.geteuid() != 0:
        return []
    user = pwd.getpwnam(USER)
    for place in (folder, *folder.parents[:-2]):
        place.chmod(place.stat().st_mode | 0o111)
    shutil.chown(folder / "data", user.pw_uid, user.pw_gid)
    (folder / "data").chmod(0o700)
    return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", "--"]


def _wait(binaries: Path, port: int, server: Daemon) -> None:
    deadline = time.monotonic() + STARTED_SECONDS
    ready = [str(binaries / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
    while subprocess.run(ready, check=False).returncode:
        if time.monotonic() > deadline:
            raise TimeoutError(f"PostgreSQL did not start: {server.log_tail()}")
        time.sleep(POLL_SECONDS)
