"""Selects the HAProxy of a test: the fixture `haproxy` puts it first on the PATH.

A test that asks for the fixture runs with the branch of the chart's image. It runs with Debian's HAProxy too,
the oldest that Flotilla supports, but only in `make test-all`; the tests that name `ON_BOTH` or `ON_EVERY`
(router_support/haproxy_version.py) do so in `make test`. Without the chart's branch the tests fail.
"""

import os
from pathlib import Path

import pytest
import yaml

from local_cluster.directories import CHECKOUT
from local_cluster.newer_haproxy import SUITE_OF_THE_CHART, newer_haproxies
from router_support.haproxy_version import CHART, NEWEST, OLDEST, branch


@pytest.fixture(scope="session")
def charts_branch() -> tuple[int, ...]:
    """The branch of the chart's image."""
    chart = yaml.safe_load((CHECKOUT / "charts" / "flotilla" / "values.yaml").read_text())
    return branch(chart["images"]["haproxy"]["tag"])


@pytest.fixture(scope="session")
def charts_haproxy() -> Path:
    """The HAProxy that stands for the chart's image."""
    return newer_haproxies()[SUITE_OF_THE_CHART]


@pytest.fixture(params=[CHART, pytest.param(OLDEST, marks=pytest.mark.rare)])
def haproxy(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The HAProxy that the test's processes find."""
    if request.param == OLDEST:
        return
    program = request.getfixturevalue("charts_haproxy")
    if request.param == NEWEST:
        program = newer_haproxies().get(NEWEST)
        if program is None:
            pytest.skip(f"Debian's {NEWEST} has no HAProxy at the moment")
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
