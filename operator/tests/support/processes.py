"""An operator in a process of its own, which a test may stop, continue and kill."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local_cluster.processes import free_port
from tests.support.tiny_controller import IMAGES
from tests.support.waiting import DEADLINE_SECONDS

ROOT = Path(__file__).parents[3]
TINY = "tests.support.tiny_controller"
WHOLE = "flotilla_operator.controllers"
ANSWERS_WITHIN_SECONDS = 60
# For a test that waits until a lease is lost. A machine that stalls for five seconds loses it, too.
SHORT_LEADER = {"leaseDurationSeconds": 7, "renewDeadlineSeconds": 5, "retryPeriodSeconds": 1}
PATIENT_LEADER = {"leaseDurationSeconds": 30, "renewDeadlineSeconds": 25, "retryPeriodSeconds": 1}


@dataclass
class OperatorProcess:
    """A running operator and what it logged."""

    process: "subprocess.Popen[str]"
    log_path: Path
    ports: dict[str, int]
    start: Callable[[], "subprocess.Popen[str]"]

    def kill_and_start_again(self) -> None:
        """Act as a kubelet after the worst; whoever wants no wait for the lease deletes it."""
        self.process.kill()
        self.process.wait()
        self.process = self.start()

    def log(self) -> str:
        return self.log_path.read_text()

    def logged(self, event: str) -> bool:
        return f'"event": "{event}"' in self.log()

    def failures(self, since: int = 0) -> list[str]:
        """Errors of ours after so much of the log; what kopf says of a server that is starting is none."""
        lines = self.log()[since:].splitlines()
        return [line for line in lines if '"level": "error"' in line and '"logger": "flotilla' in line]

    def get(self, endpoint: str, path: str) -> tuple[int, str]:
        """Status and text; the status is 0 where nothing answers."""
        url = f"http://127.0.0.1:{self.ports[endpoint]}{path}"
        try:
            with urllib.request.urlopen(url, timeout=ANSWERS_WITHIN_SECONDS) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def ended(self, seconds: float = DEADLINE_SECONDS) -> int:
        return self.process.wait(seconds)

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def memory_mib(self, *, peak: bool = False) -> float:
        """Resident memory, now or the most there ever was."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(rf"{'VmHWM' if peak else 'VmRSS'}:\s+(\d+) kB", status)
        assert found
        return int(found[1]) / 1024


@contextmanager
def operator_process(
    folder: Path,
    kubeconfig: Path,
    *,
    module: str = TINY,
    python: str = sys.executable,
    checkout: Path = ROOT,
    crash_at: str = "",
    environment: dict[str, str] | None = None,
    **config: Any,
) -> Iterator[OperatorProcess]:
    """Start an operator; it is killed at the end. The whole one reads its configuration from a file.

    `checkout` is where its code is, and `python` an interpreter that has the packages which that needs.
    """
    log_path = folder / f"operator-{time.monotonic_ns()}.log"
    ports = {"health": free_port(), "metrics": free_port()}
    document = {
        "images": IMAGES,
        "healthPort": ports["health"],
        "metricsPort": ports["metrics"],
        "leader": PATIENT_LEADER,
        **config,
    }
    config_path = folder / "config.json"
    config_path.write_text(json.dumps(document))
    arguments = [f"--config={config_path}"] if module == WHOLE else []
    if module == WHOLE and checkout == ROOT:  # an older operator does not know it
        arguments.append("--milvus-on-loopback")
    variables = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(checkout / "operator"), str(checkout / "runtime")]),
        "KUBECONFIG": str(kubeconfig),
        "TINY_CONFIG": json.dumps(document),
        "CRASH_AT": crash_at,
        "POD_NAMESPACE": "default",
        **(environment or {}),
    }

    def start() -> "subprocess.Popen[str]":
        argv = [python, "-m", module, *arguments]
        with log_path.open("a") as log:
            return subprocess.Popen(argv, env=variables, stdout=log, stderr=subprocess.STDOUT, text=True)

    operator = OperatorProcess(start(), log_path, ports, start)
    try:
        yield operator
    finally:
        if operator.running:
            operator.signal(signal.SIGCONT)
            operator.process.kill()
        operator.process.wait()
