"""The HAProxy that a test meets: its behaviour differs by branch.

CHART is the branch of the chart's image, OLDEST the machine's own (2.6 in Debian 12), NEWEST what Debian's
experimental has beyond both.
"""

import subprocess
from pathlib import Path

import pytest

CHART = "chart"
OLDEST = "installed"
NEWEST = "experimental"
NEWEST_IN_TEST_ALL = pytest.param(NEWEST, marks=pytest.mark.rare)
ON_BOTH = pytest.mark.parametrize("haproxy", [CHART, OLDEST], indirect=True)
ON_EVERY = pytest.mark.parametrize("haproxy", [CHART, OLDEST, NEWEST_IN_TEST_ALL], indirect=True)

PARSER_TAKES_OUR_WORDS = (3, 2)
LOOKS_WHEN_IT_CONNECTS = (3, 0)


def branch(version: str) -> tuple[int, ...]:
    """The branch of a version: (3, 2) of 3.2.22-alpine."""
    return tuple(int(number) for number in version.split(".")[:2])


def branch_of(program: Path) -> tuple[int, ...]:
    """The branch that a program reports."""
    told = subprocess.run([program, "-v"], capture_output=True, text=True, check=True).stdout
    return branch(told.split()[2])


def branch_on_the_path() -> tuple[int, ...]:
    """The branch of the first HAProxy on the PATH."""
    return branch_of(Path("haproxy"))


def parser_takes_our_words() -> bool:
    """Whether what its parser refuses is answered in the router's words."""
    return branch_on_the_path() >= PARSER_TAKES_OUR_WORDS


def looks_for_callers_that_left_while_it_holds() -> bool:
    """Or only once it connects to a replica."""
    return branch_on_the_path() < LOOKS_WHEN_IT_CONNECTS
