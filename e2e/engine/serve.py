"""Runs the real engine on this machine, for tests and for a look."""

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from engine.entrypoint import PACKAGES_VARIABLE
from engine.environment import EngineError, Environment

ENTRYPOINT = Path(__file__).with_name("entrypoint.py")
START_TIMEOUT_SECONDS = 240  # 15 s on a quiet machine; two cores may be shared with a cluster that starts
STOP_TIMEOUT_SECONDS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningEngine:
    """An engine that answers."""

    url: str
    process_id: int
    log: Path


def command(engine: Environment, arguments: Sequence[str], port: int) -> list[str]:
    """The line that serves on the loopback interface; `arguments` are those of `vllm serve`, model first."""
    return [
        *(str(engine.python), str(ENTRYPOINT), *arguments),
        *("--host", "127.0.0.1", "--port", str(port)),
    ]


def process_environment(engine: Environment) -> dict[str, str]:
    """This process's environment and where the packages are."""
    return {**os.environ, PACKAGES_VARIABLE: str(engine.packages)}


@contextmanager
def started(
    engine: Environment, arguments: Sequence[str], port: int, log: Path
) -> Iterator["subprocess.Popen[bytes]"]:
    """The engine's process while the block runs; it and its children are gone after it."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command(engine, arguments, port),
            env=process_environment(engine),
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
def running(engine: Environment, arguments: Sequence[str], port: int, log: Path) -> Iterator[RunningEngine]:
    """Serve while the block runs."""
    with started(engine, arguments, port, log) as process:
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
    raise EngineError(f"the engine did not become healthy; its log ends with:\n{tail}")


def replace_this_process(engine: Environment, arguments: Sequence[str], port: int) -> None:
    """Become the engine, so that signals reach it and its log is ours."""
    sys.stdout.flush()
    line = command(engine, arguments, port)
    os.execve(line[0], line, process_environment(engine))
