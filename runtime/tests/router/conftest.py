"""Which HAProxy a test runs: the machine's, or one of a later Debian release, then the first on the PATH."""

import os
from pathlib import Path

import pytest

from local_cluster.errors import LocalClusterError
from local_cluster.newer_haproxy import SUITE_OF_THE_CHART, SUITES, newer_haproxies

INSTALLED = "installed"


@pytest.fixture(scope="session")
def newer_programs() -> dict[str, Path]:
    """By suite. Where they cannot be had, the tests with the machine's own HAProxy are what is left."""
    try:
        return newer_haproxies()
    except LocalClusterError as problem:
        pytest.skip(str(problem))


@pytest.fixture(params=[INSTALLED, *SUITES])
def every_haproxy(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the oldest supported to the newest there is."""
    _use(request, monkeypatch)


@pytest.fixture(params=[INSTALLED, SUITE_OF_THE_CHART])
def each_haproxy(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest supported, and the branch of the chart's image."""
    _use(request, monkeypatch)


def _use(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == INSTALLED:
        return
    program = request.getfixturevalue("newer_programs").get(request.param)
    if program is None:
        pytest.skip(f"Debian's {request.param} has no HAProxy at the moment")
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
