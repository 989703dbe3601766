"""Attacks that docs/security.md lists, and the rules for reached, untried and unknown ones."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from local_cluster.directories import CHECKOUT
from strangers.__main__ import PAGE, played
from strangers.attacks import Played, Report, attacks_of, report
from strangers.plugin import OPTION

TABLES = """\
| who | what they reach |
|---|---|
| a user | a pod |

Text.

| who tries what | what stops it |
|---|---|
| A caller reads `/etc` | A key. |
| Another one fills the disk, and more | A limit. |

| who tries what | what stops it |
|---|---|
| A third waits | A deadline. |
"""
ROWS = ("A caller reads `/etc`", "Another one fills the disk, and more", "A third waits")
MARK = re.compile(r"@pytest\.mark\.attack\((.*?)\)\n(?:@|def |async def )", re.DOTALL)
TESTS = """\
import pytest

@pytest.fixture
def broken():
    raise OSError

@pytest.fixture
def leaves():
    yield
    raise OSError

@pytest.mark.attack("a", "b")
def test_passes(record_property):
    record_property("operator_peak_mib", 12.5)

@pytest.mark.attack("c")
def test_fails():
    assert False

@pytest.mark.attack("d")
def test_is_not_set_up(broken): ...

@pytest.mark.attack("e")
def test_does_not_end(leaves): ...

@pytest.mark.attack("f")
@pytest.mark.skip
def test_is_skipped(): ...

def test_is_none(): ...
"""


def one(attack: str, *, stopped: bool = True, mib: float | None = None) -> Played:
    return Played(attack=attack, test="t", stopped=stopped, operator_mib=mib)


def test_the_rows_of_each_table_of_attacks_are_found() -> None:
    assert attacks_of(TABLES) == ROWS


@pytest.mark.parametrize(
    ("tests", "reached", "untried", "unknown"),
    [
        pytest.param([one(row) for row in ROWS], (), (), (), id="each is stopped"),
        pytest.param([one(ROWS[0]), one(ROWS[2])], (), ROWS[1:2], (), id="one is not tried"),
        pytest.param(
            [*(one(row) for row in ROWS), one(ROWS[2], stopped=False)],
            ROWS[2:],
            (),
            (),
            id="one of two tests of a row finds a way",
        ),
        pytest.param([*(one(row) for row in ROWS), one("x")], (), (), ("x",), id="a row that is gone"),
        pytest.param([], (), ROWS, (), id="no test ran"),
    ],
)
def test_what_becomes_of_the_rows(
    tests: list[Played], reached: tuple[str, ...], untried: tuple[str, ...], unknown: tuple[str, ...]
) -> None:
    expected = Report(rows=ROWS, reached=reached, untried=untried, unknown=unknown, operator_peak_mib=None)
    assert report(ROWS, tests) == expected


def test_the_most_memory_counts() -> None:
    assert report([], [one("a", mib=1.0), one("b", mib=3.04), one("c")]).operator_peak_mib == 3.0


def test_a_test_that_does_not_pass_from_its_set_up_to_its_end_stops_nothing(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    (tmp_path / "test_attacks.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = attack\n")
    options = ["-p", "strangers.plugin", f"{OPTION}={notes}", "-p", "no:cacheprovider", "-n", "0"]
    subprocess.run(
        [sys.executable, "-m", "pytest", "--quiet", *options, str(tmp_path)],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(CHECKOUT / "benchmarks"), str(CHECKOUT / "e2e")]),
        },
        stdout=subprocess.DEVNULL,
        check=False,
    )
    found = list(played(notes))
    assert {attack.attack: attack.stopped for attack in found} == {
        "a": True,
        "b": True,
        "c": False,
        "d": False,
        "e": False,
        "f": False,
    }
    assert {attack.operator_mib for attack in found if attack.stopped} == {12.5}


@pytest.mark.holds("security.md", '`make bench-strangers` plays each row of the tables "who tries what"')
def test_each_attack_of_the_page_is_played_and_none_that_it_does_not_list() -> None:
    files = set(CHECKOUT.glob("*/tests/**/test_*.py")) - {Path(__file__)}
    marks = [mark for file in files for mark in MARK.findall(file.read_text(encoding="utf-8"))]
    in_tests = {row for mark in marks for row in re.findall(r'"([^"]+)"', mark)}
    assert in_tests == set(attacks_of(PAGE.read_text(encoding="utf-8")))
