"""Searches what a run of the tests has written for planted secrets, and fails the run that has one.

Searched are: every status and every event that the fake API server stored (`told`), the audit logs of real
API servers, which hold the bodies of all statuses and events, all files `*.log`, `log` and `log-*.txt` below
pytest's temporary folder, the logs of the cluster's parts and pods where the run used it, and the captured
output of tests. Not searched is where a secret belongs: Secrets, kubeconfigs, files with other names. With
pytest-xdist a test process searches what its fake API servers stored, and the process that all report to
searches the rest. A finding names the place and the encoding, never the secret.

The keys and passwords that the operator makes in a test process (`secrets.token_urlsafe`) are planted too.
"""

import json
import secrets
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from leaks.finding import LONGEST, encodings_in
from leaks.planted import planted
from local_cluster.directories import directories
from local_cluster.pytest_plugin import BROUGHT_UP

CHUNK_BYTES = 2**24
LOGS = ("*.log", "log", "log-*.txt")
WORKER_OUTPUT = "leaks"
FOUND: set[str] = set()
REAL_TOKENS: Callable[[int | None], str] = secrets.token_urlsafe


def told(place: str, said: Mapping[str, Any] | None) -> None:
    """Search a status or an event when it is stored."""
    if said:
        _search(place, json.dumps(said).encode())


def _search(place: str, text: bytes) -> None:
    FOUND.update(f"{place}: {encoding}" for encoding in encodings_in(text))


def planted_token(size: int | None = None) -> str:
    """A random token with the mark."""
    return planted(REAL_TOKENS(size))


def pytest_configure() -> None:
    """Plant what the operator draws in this process."""
    secrets.token_urlsafe = planted_token  # type: ignore[assignment]


def pytest_unconfigure() -> None:
    """Draw as before."""
    secrets.token_urlsafe = REAL_TOKENS  # type: ignore[assignment]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Search what a test printed and logged."""
    for title, text in report.sections:
        if title.startswith("Captured"):
            _search(f"{report.nodeid}, {title.lower()}", text.encode(errors="replace"))


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over what a test process found."""
    FOUND.update(getattr(node, "workeroutput", {}).get(WORKER_OUTPUT, ()))


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Search the files, before the cluster is taken down, and fail the run that has a finding."""
    config = session.config
    if hasattr(config, "workeroutput"):
        config.workeroutput[WORKER_OUTPUT] = sorted(FOUND)
        return
    base: Path = config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]
    for folder in (base, *(cluster_folders() if config.stash.get(BROUGHT_UP, False) else ())):
        for path in logs_below(folder):
            search_file(path)
    if FOUND and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Name the places."""
    if FOUND:
        terminalreporter.section("planted secrets were found", red=True)
        for place in sorted(FOUND):
            terminalreporter.line(place)


def logs_below(folder: Path) -> Iterator[Path]:
    """The logs of what the tests started."""
    found = (path for pattern in LOGS for path in folder.rglob(pattern))
    return (path for path in found if path.is_file() and not path.is_symlink())


def cluster_folders() -> Iterator[Path]:
    """Where the full cluster's parts and pods log; its volumes are the pods' own."""
    return (directories().cluster / name for name in ("control-plane", "node"))


def search_file(path: Path) -> None:
    """Search a log piece by piece; pieces overlap, so that no secret stands between two."""
    before = b""
    with path.open("rb") as file:
        while piece := file.read(CHUNK_BYTES):
            _search(str(path), before + piece)
            before = piece[-LONGEST:]
