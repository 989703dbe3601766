"""The tiers: which verdict a run gets, that every test is in one, and that a slow tier fails."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from local_cluster.directories import CHECKOUT
from local_cluster.pytest_plugin import ENDS_RELEASE, TAKES_CLUSTER_DOWN
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


def test_the_tests_of_a_group_run_in_one_process(tmp_path: Path) -> None:
    (tmp_path / "test_groups.py").write_text(GROUPED)
    options = ("-n", "2", "--dist", "loadgroup", "-p", "tiers.pytest_plugin", "--rootdir", str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(tmp_path / "test_groups.py")],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(CHECKOUT / "e2e")},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    ran = {group: (tmp_path / group).read_text().split() for group in ("one", "other")}
    assert [(len(processes), len(set(processes))) for processes in ran.values()] == [(8, 1), (8, 1)]
