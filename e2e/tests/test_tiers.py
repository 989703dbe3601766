"""The tiers: which verdict a run gets, that every test is in one, and that a slow tier fails."""

import subprocess
import sys
from pathlib import Path

import pytest

from local_cluster.directories import CHECKOUT
from local_cluster.pytest_plugin import ENDS_RELEASE, TAKES_CLUSTER_DOWN
from tiers.__main__ import run_step
from tiers.tiers import RARE, TIERS, Run, Step, Tier, Verdict, chosen, table

TIER = Tier(name="some", budget_seconds=100, steps=(Step(marks="some"), Step(marks="more")))


def run(*statuses: int, seconds: float = 1.0) -> Run:
    return Run(tier=TIER, statuses=statuses or (0, 0), seconds=seconds)


@pytest.mark.parametrize(
    ("ended", "verdict", "failed"),
    [
        pytest.param(run(), Verdict.PASSED, False, id="in time"),
        pytest.param(run(seconds=100.0), Verdict.PASSED, False, id="its whole budget"),
        pytest.param(run(seconds=150.0), Verdict.OVER_BUDGET, False, id="over its budget"),
        pytest.param(run(seconds=200.5), Verdict.TOO_SLOW, True, id="over twice its budget"),
        pytest.param(run(1, 0), Verdict.FAILED, True, id="a test failed"),
        pytest.param(run(0, 5), Verdict.FAILED, True, id="a step found no test"),
        pytest.param(run(1, 0, seconds=500.0), Verdict.FAILED, True, id="a test failed, slowly"),
    ],
)
def test_a_tier_fails_with_its_tests_or_at_twice_its_budget(
    ended: Run, verdict: Verdict, failed: bool
) -> None:
    assert (ended.verdict, ended.failed) == (verdict, failed)


def test_the_table_has_seconds_beside_the_budget_of_each_tier_and_their_sum() -> None:
    lines = table([run(seconds=12.4), run(seconds=230.0)]).splitlines()
    assert [line.split()[:3] for line in lines] == [
        ["tier", "seconds", "budget"],
        ["some", "12", "100"],
        ["some", "230", "100"],
        ["in", "all", "242"],
    ]
    assert lines[2].endswith("FAILED: took twice its budget")


def test_a_tier_that_there_is_not_is_named() -> None:
    with pytest.raises(ValueError, match="no such tier: unitt; there are unit, scenes, apiserver"):
        chosen(["unit", "unitt"])


NEEDS = ("scenes", "apiserver", "services", "cluster")
MARKS = (*NEEDS, RARE, ENDS_RELEASE, TAKES_CLUSTER_DOWN)


@pytest.mark.parametrize("alone", ["", ENDS_RELEASE, TAKES_CLUSTER_DOWN])
@pytest.mark.parametrize("rare", ["", RARE], ids=["usual", "rare"])
@pytest.mark.parametrize("needs", ["", *NEEDS])
def test_every_test_is_in_exactly_one_step_of_one_tier(needs: str, rare: str, alone: str) -> None:
    """Whatever marks a test has: pytest's expressions are Python's, with a mark in the place of a name."""
    marked = {mark: mark in {needs, rare, alone} for mark in MARKS}
    matching = [tier.name for tier in TIERS for step in tier.steps if eval(step.marks, {}, marked)]
    assert matching == [rare or needs or "unit"]


def test_marks_that_choose_the_files_of_a_step_stand_in_the_files_of_their_tests() -> None:
    chosen_by = {step.files_with for tier in TIERS for step in tier.steps} - {""}
    assert chosen_by == set(NEEDS)
    assert all(step.marks.startswith(step.files_with) for tier in TIERS for step in tier.steps)
    for folder in ("operator", "runtime", "cli", "e2e", "benchmarks"):
        for path in (CHECKOUT / folder).rglob("*.py"):
            if not path.name.startswith("test_"):
                text = path.read_text(encoding="utf-8")
                assert not any(f"pytest.mark.{mark}" in text for mark in chosen_by), f"{path} sets a mark"


def test_the_command_fails_when_a_tier_finds_no_test() -> None:
    """Through the command itself, on a tier that exists only there."""
    script = (
        "import sys; from tiers import __main__ as m; from tiers.tiers import Step, Tier;"
        "step = Step(marks='services and apiserver', options=('e2e/tests/test_tiers.py',));"
        "sys.exit(m.run_all([Tier(name='none', budget_seconds=60, steps=(step,))]))"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=CHECKOUT / "e2e")
    assert done.returncode == 1
    assert done.stdout.splitlines()[-2].split()[0::3] == ["none", "FAILED"]


SHAKY = """
import pathlib, pytest

pytestmark = pytest.mark.services
COUNT = pathlib.Path(__file__).with_name("count")

def runs():
    COUNT.write_text((COUNT.read_text() if COUNT.exists() else "") + "x")
    return len(COUNT.read_text())

@pytest.mark.parametrize("number", range({tests}))
{mark}
@pytest.mark.xdist_group("a group")
def test_shaky(number):
    assert runs() > {failures}
"""


@pytest.fixture
def own_tests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for tests that pytest runs with our plugin and without the settings of this project."""
    monkeypatch.setenv("PYTHONPATH", str(CHECKOUT / "e2e"))
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\naddopts = -p tiers.pytest_plugin\nmarkers =\n services\n once\n"
    )
    return tmp_path


def test_a_step_reads_only_the_files_that_write_its_mark(own_tests: Path) -> None:
    (own_tests / "test_shaky.py").write_text(SHAKY.format(tests=1, failures=0, mark=""))
    (own_tests / "test_others.py").write_text("raise AssertionError('services: this file is read')")
    assert run_step(Step(marks="services", files_with="services"), last=True, folder=own_tests)[0] == 0
    assert run_step(Step(marks="services"), last=True, folder=own_tests)[0] != 0


@pytest.mark.parametrize(
    ("tests", "failures", "mark", "servers", "passed_again"),
    [
        pytest.param(2, 2, "", True, 2, id="two fail once"),
        pytest.param(1, 2, "", True, 0, id="one fails twice"),
        pytest.param(3, 3, "", True, 0, id="three fail"),
        pytest.param(1, 1, "@pytest.mark.once", True, 0, id="one must hold every time"),
        pytest.param(1, 1, "", False, 0, id="one fails without a server"),
    ],
)
def test_what_fails_is_tried_once_more_alone(
    own_tests: Path, tests: int, failures: int, mark: str, servers: bool, passed_again: int
) -> None:
    (own_tests / "test_shaky.py").write_text(SHAKY.format(tests=tests, failures=failures, mark=mark))
    step = Step(marks="services", options=("-n", "1", "--dist", "loadgroup"), with_servers=servers)
    status, again = run_step(step, last=True, folder=own_tests)
    assert (status, len(again)) == (0 if passed_again else 1, passed_again)
    assert all(test.endswith("]") for test in again)


def test_the_table_names_what_passed_only_when_tried_again() -> None:
    ended = Run(tier=TIER, statuses=(0, 0), seconds=1.0, passed_again=("some.py::test",))
    assert table([ended]).splitlines()[-1] == "passed only when tried again: some.py::test"


GROUPED = """
import os, pathlib, pytest

@pytest.mark.parametrize("number", range(8))
@pytest.mark.xdist_group("one")
def test_one(number):
    with pathlib.Path(__file__).with_name("one").open("a") as ran:
        ran.write(f"{os.getpid()}\\n")

@pytest.mark.parametrize("number", range(8))
@pytest.mark.xdist_group("other")
def test_other(number):
    with pathlib.Path(__file__).with_name("other").open("a") as ran:
        ran.write(f"{os.getpid()}\\n")
"""


def test_the_tests_of_a_group_run_in_one_process(own_tests: Path) -> None:
    (own_tests / "test_groups.py").write_text(GROUPED)
    command = [sys.executable, "-m", "pytest", "-n", "2", "--dist", "loadgroup"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=own_tests)
    assert done.returncode == 0, done.stdout + done.stderr
    ran = {group: (own_tests / group).read_text().split() for group in ("one", "other")}
    assert [(len(processes), len(set(processes))) for processes in ran.values()] == [(8, 1), (8, 1)]
