"""Kills a process of a container from the node, as the out-of-memory killer would do it."""

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def kill(pod: Mapping[str, Any], command: bytes) -> None:
    """SIGKILL for the one process of the pod's only container that has this in its command line."""
    (container,) = pod["status"]["containerStatuses"]
    needle = container["containerID"].removeprefix("containerd://").encode()
    victims = [
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and command in _read(entry / "cmdline") and needle in _read(entry / "cgroup")
    ]
    assert len(victims) == 1, f"{pod['metadata']['name']} has {len(victims)} processes {command!r}"
    os.kill(victims[0], signal.SIGKILL)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
