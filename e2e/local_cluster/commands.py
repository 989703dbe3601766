"""Runs a program to its end; the error of a failed one ends with the program's own output."""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from local_cluster.errors import LocalClusterError

SHOWN_CHARACTERS = 3000


def run(
    argv: Sequence[str | Path],
    *,
    part: str,
    stdin: str | None = None,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    timeout_seconds: float = 1800,
) -> str:
    """The program's standard output; a LocalClusterError with the end of its output when it fails."""
    command = [str(word) for word in argv]
    result = subprocess.run(
        command,
        input=stdin,
        capture_output=True,
        text=True,
        env=environment,
        cwd=folder,
        timeout=timeout_seconds,
        check=False,
    )
    if result.returncode != 0:
        said = (result.stderr or result.stdout)[-SHOWN_CHARACTERS:]
        raise LocalClusterError(
            part=part,
            problem=f"`{' '.join(command[:4])} …` ended with exit status {result.returncode}:\n{said}",
            fix="The full command was: " + " ".join(command),
        )
    return result.stdout


def succeeds(argv: Sequence[str | Path], *, timeout_seconds: float = 60) -> bool:
    """Whether a program can be run and ends with exit status 0."""
    try:
        result = subprocess.run(
            [str(word) for word in argv], capture_output=True, timeout=timeout_seconds, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return result.returncode == 0
