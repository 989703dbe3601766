"""Runs the real engine on this machine, for tests and by hand."""

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from engine.entrypoint import PACKAGES_VARIABLE
from engine.environment import EngineError, Environment

ENTRYPOINT = Path(__file__).with_name("entrypoint.py")
START_TIMEOUT_SECONDS = 420  # 15 s on an idle machine; more while a cluster starts on the same two cores
STOP_TIMEOUT_SECONDS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningEngine:
    """An engine that is healthy."""

    url: str
    process_id: int
    log: Path


def command(engine: Environment, arguments: Sequence[str], port: int) -> list[str]:
    """The command that serves on 127.0.0.1; `arguments` are those of `vllm serve`, the model first."""
    return [
        *(str(engine.python), str(ENTRYPOINT), *arguments),
        *("--host", "127.0.0.1", "--port", str(port)),
    ]


def process_environment(engine: Environment) -> dict[str, str]:
    """This process's environment, and the variable that names the folder of the engine's packages."""
    return {**os.environ, PACKAGES_VARIABLE: str(engine.packages)}


@contextmanager
def started(
    engine: Environment,
    arguments: Sequence[str],
    port: int,
    log: Path,
    variables: Mapping[str, str] | None = None,
) -> Iterator["subprocess.Popen[bytes]"]:
    """The engine's process; it and its children are stopped when the block ends.

    `variables` are added to its environment.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            command(engine, arguments, port),
            env={**process_environment(engine), **(variables or {})},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def running(
    engine: Environment,
    arguments: Sequence[str],
    port: int,
    log: Path,
    variables: Mapping[str, str] | None = None,
) -> Iterator[RunningEngine]:
    """A healthy engine; it is stopped when the block ends."""
    with started(engine, arguments, port, log, variables) as process:
        url = f"http://127.0.0.1:{port}"
        _wait_until_healthy(process, url, log)
        yield RunningEngine(url=url, process_id=process.pid, log=log)


def _wait_until_healthy(process: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=2):
                return
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            time.sleep(0.3)
    tail = log.read_text(errors="replace")[-3000:]
    outcome = "ended" if process.poll() is not None else f"was not healthy after {START_TIMEOUT_SECONDS} s"
    raise EngineError(f"the engine {outcome}; its log {log} ends with:\n{tail}")


def replace_this_process(engine: Environment, arguments: Sequence[str], port: int) -> None:
    """Replace this process by the engine, so that signals reach it and it writes to this terminal."""
    sys.stdout.flush()
    line = command(engine, arguments, port)
    os.execve(line[0], line, process_environment(engine))
