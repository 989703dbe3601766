"""Runs both programs: for speed, for what a step takes in the database, and with a kill in the middle."""

import hashlib
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from agents.peers.postgres import asked, postgres, programs
from agents.store_alone import PROCESSES, RATE_SECONDS, TASKS_EACH
from local_cluster.directories import directories
from local_cluster.processes import Daemon

HERE: Final = Path(__file__).parent
PEERS: Final = {"dbos": HERE / "dbos_program.py", "langgraph": HERE / "langgraph_program.py"}
REQUIREMENTS: Final = HERE / "requirements.txt"
EFFECT_TASKS: Final = 20
EFFECT_STEPS: Final = 40
KILLED_AFTER_STEPS: Final = EFFECT_TASKS * EFFECT_STEPS // 4
ENDED_SECONDS: Final = 120.0


def run(folder: Path) -> dict[str, Any]:
    """The figures of both; empty where PostgreSQL is not installed."""
    binaries = programs()
    if binaries is None:
        print("no comparison: PostgreSQL is not installed (apt-get install postgresql)", flush=True)
        return {}
    python, figures = _environment(), {}
    with postgres(folder, binaries) as url:
        for name, program in PEERS.items():
            asked(binaries, url, f"create database {name}")
            asked(binaries, url, f"create database {name}_effects")
            command = [str(python), str(program), f"{url}/{name}"]
            _finished([*command, "rate", "0", "1"])  # makes its tables
            before = _bytes(binaries, url, name)
            steps = _rate(command)
            figures[f"{name}_steps_per_second"] = round(steps / RATE_SECONDS)
            figures[f"{name}_bytes_per_step"] = round((_bytes(binaries, url, name) - before) / steps)
            effects = [str(python), str(program), f"{url}/{name}_effects", "effects"]
            figures[f"{name}_effects_repeated"] = _repeated(folder, name, effects)
    return figures


def repeats(effects: Iterable[str]) -> int:
    """How many effects happened again."""
    return sum(count - 1 for count in Counter(effects).values())


def _environment() -> Path:
    """The Python of an environment with both packages, made once for each version of the requirements."""
    version = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()[:12]
    place = directories().cache / "peers" / version
    python = place / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", place], check=True)
        install = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*install, "-r", str(REQUIREMENTS)], check=True)
    return python


def _rate(command: list[str]) -> int:
    """The steps of all tasks, shared out among as many processes as the task store has."""
    asked_for = [*command, "rate", str(RATE_SECONDS), str(TASKS_EACH)]
    with ThreadPoolExecutor(PROCESSES) as threads:
        return sum(int(told) for told in threads.map(_finished, [asked_for] * PROCESSES))


def _repeated(folder: Path, name: str, command: list[str]) -> int:
    """Kill the program in the middle, start it again, and count the effects that happened twice."""
    path = folder / f"{name}-effects"
    path.touch()
    told = [*command, str(path), str(EFFECT_TASKS), str(EFFECT_STEPS)]
    program = Daemon(name, told, directory=folder, dies_with_parent=True)
    program.start()
    _wait_for(path, KILLED_AFTER_STEPS, program)
    program.kill()
    _finished(told)
    effects = path.read_text().splitlines()
    if len(set(effects)) != EFFECT_TASKS * EFFECT_STEPS:
        raise RuntimeError(f"{name} made {len(set(effects))} of {EFFECT_TASKS * EFFECT_STEPS} steps")
    return repeats(effects)


def _wait_for(path: Path, lines: int, program: Daemon) -> None:
    deadline = time.monotonic() + ENDED_SECONDS
    while len(path.read_text().splitlines()) < lines:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{program.name} made no {lines} steps: {program.log_tail()}")
        time.sleep(0.05)


def _finished(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=ENDED_SECONDS, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr[-2000:]}")
    return done.stdout.strip().splitlines()[-1] if done.stdout.strip() else ""


def _bytes(binaries: Path, url: str, database: str) -> int:
    return int(asked(binaries, url, f"select pg_database_size('{database}')"))
