"""The tiers: which verdict a run gets, that every test is in one, and what is tried again."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.environment import ensure
from engine.models import ensure_models
from local_cluster.binaries import TOOLS, binary
from local_cluster.declared import DECLARED, ENGINE, MODELS
from local_cluster.directories import CHECKOUT
from local_cluster.errors import BuildFailed
from local_cluster.newer_haproxy import newer_haproxies
from local_cluster.pytest_plugin import ENDS_RELEASE, TAKES_CLUSTER_DOWN
from tiers import __main__ as command
from tiers.__main__ import OTHERS, prepare, run_all, run_pytest, run_step
from tiers.pytest_plugin import NOTE_FAILURES
from tiers.tiers import RARE, TIERS, Run, Step, Tier, Verdict, chosen, needs, table

TIER = Tier(name="some", budget_seconds=100, steps=(Step(marks="some"), Step(marks="more")))


def run(*statuses: int, seconds: float = 1.0, again: tuple[str, ...] = ()) -> Run:
    return Run(tier=TIER, statuses=statuses or (0, 0), seconds=seconds, passed_again=again)


@pytest.mark.parametrize(
    ("ended", "verdict", "failed", "failed_if_strict"),
    [
        pytest.param(run(), Verdict.PASSED, False, False, id="in time"),
        pytest.param(run(seconds=1e5), Verdict.PASSED, False, False, id="a thousand times its budget"),
        pytest.param(run(1, 0), Verdict.FAILED, True, True, id="a test failed"),
        pytest.param(run(0, 5), Verdict.FAILED, True, True, id="a step found no test"),
        pytest.param(run(again=("a::b",)), Verdict.PASSED_AGAIN, False, True, id="a test failed at first"),
        pytest.param(run(1, 0, again=("a::b",)), Verdict.FAILED, True, True, id="and another one always"),
    ],
)
def test_a_tier_fails_with_its_tests_and_never_for_its_time(
    ended: Run, verdict: Verdict, failed: bool, failed_if_strict: bool
) -> None:
    assert ended.verdict == verdict
    assert (ended.failed(strict=False), ended.failed(strict=True)) == (failed, failed_if_strict)


def test_the_table_has_seconds_beside_the_budget_of_each_tier_and_their_sums() -> None:
    lines = table([run(seconds=12.4), run(seconds=230.0)]).splitlines()
    assert [line.split() for line in lines] == [
        ["tier", "seconds", "budget", "times"],
        ["some", "12", "100", "0.12", "passed"],
        ["some", "230", "100", "2.30", "passed"],
        ["in", "all", "242", "200", "1.21"],
    ]


def test_a_tier_that_there_is_not_is_named() -> None:
    with pytest.raises(ValueError, match="no such tier: unitt; there are unit, scenes, apiserver"):
        chosen(["unit", "unitt"])


NEEDS = ("scenes", "apiserver", "services", "cluster")
MARKS = (*NEEDS, RARE, ENDS_RELEASE, TAKES_CLUSTER_DOWN)


@pytest.mark.holds(
    "README.md",
    "`make test` runs the unit tests, the scenes, and the API server, services and end-to-end tests",
)
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


def test_make_test_needs_no_program_that_only_rare_tests_run() -> None:
    usual = set(needs([tier for tier in TIERS if tier.name != RARE]))
    assert {"argocd", "karpenter-kwok", "kube-apiserver-newest"}.isdisjoint(usual)
    assert {tier.name: tier.needs for tier in TIERS[:2]} == {"unit": (), "scenes": ()}
    (rare,) = chosen([RARE])
    assert set(rare.needs) == {*TOOLS, *OTHERS}
    assert usual < set(rare.needs)


@pytest.mark.parametrize("tier", TIERS, ids=lambda tier: tier.name)
def test_what_a_tier_needs_is_prepared_and_nothing_else(tier: Tier, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    monkeypatch.setattr(command, "binary", lambda name, progress: made.append(name))
    others = {name: lambda _, name=name: made.append(name) for name in OTHERS}
    monkeypatch.setattr(command, "OTHERS", others)
    prepare([tier])
    assert made == list(tier.needs)


@pytest.mark.parametrize(
    ("asked_for", "needs"),
    [
        pytest.param(lambda: binary("argocd"), ("etcd", "argocd-cli"), id="a program"),
        pytest.param(newer_haproxies, (), id="a newer HAProxy"),
        pytest.param(ensure, (MODELS,), id="the engine"),
        pytest.param(ensure_models, (ENGINE,), id="the models"),
    ],
)
def test_a_test_gets_nothing_that_its_tier_does_not_declare(
    asked_for: Callable[[], object], needs: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DECLARED, " ".join(needs))
    with pytest.raises(BuildFailed, match="does not declare it"):
        asked_for()


ASKING = """
import os, pytest
pytestmark = pytest.mark.services

def test_asking():
    assert os.environ["FLOTILLA_DECLARED"].split() == ["etcd", "helm"]
"""


def test_a_step_tells_its_tests_what_their_tier_declares(own_tests: Path) -> None:
    (own_tests / "test_asking.py").write_text(ASKING)
    step = Step(marks="services")
    assert run_step(step, last=True, folder=own_tests, needs=("etcd", "helm"))[0] == 0
    assert run_step(step, last=True, folder=own_tests)[0] != 0


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
    if runs() <= {failures}:
        raise {error}("at first")
"""


@pytest.fixture
def own_tests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for tests that pytest runs with our plugin and without the settings of this project."""
    folders = (CHECKOUT / "e2e", CHECKOUT / "operator")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(str(folder) for folder in folders))
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # the others take a second of each start
    plugins = " ".join(f"-p {name}" for name in ("tiers.pytest_plugin", "xdist", "pytest_timeout"))
    (tmp_path / "pytest.ini").write_text(f"[pytest]\naddopts = {plugins}\nmarkers =\n services\n once\n")
    return tmp_path


def test_a_step_reads_only_the_files_that_write_its_mark(own_tests: Path) -> None:
    shaky(own_tests, failures=0)
    (own_tests / "test_others.py").write_text("raise AssertionError('services: this file is read')")
    assert run_step(Step(marks="services", files_with="services"), last=True, folder=own_tests)[0] == 0
    assert run_step(Step(marks="services"), last=True, folder=own_tests)[0] != 0


def shaky(
    own_tests: Path, *, tests: int = 1, failures: int = 1, mark: str = "", error: str = "Exception"
) -> Path:
    text = SHAKY.format(tests=tests, failures=failures, mark=mark, error=error)
    (own_tests / "test_shaky.py").write_text(text)
    return own_tests


@pytest.mark.parametrize(
    ("tests", "failures", "mark", "passed_again"),
    [
        pytest.param(2, 2, "", 2, id="two fail once"),
        pytest.param(1, 2, "", 0, id="one fails twice"),
        pytest.param(3, 3, "", 0, id="three fail"),
        pytest.param(1, 1, "@pytest.mark.once", 0, id="one must hold every time"),
    ],
)
def test_what_fails_with_servers_is_tried_once_more_alone(
    own_tests: Path, tests: int, failures: int, mark: str, passed_again: int
) -> None:
    shaky(own_tests, tests=tests, failures=failures, mark=mark, error="AssertionError")
    step = Step(marks="services", options=("-n", "1", "--dist", "loadgroup"))
    status, again = run_step(step, last=True, folder=own_tests)
    assert (status, len(again)) == (0 if passed_again else 1, passed_again)
    assert all(test.endswith("]") for test in again)


@pytest.mark.parametrize(("error", "passed_again"), [("TimeoutError", 1), ("AssertionError", 0)])
def test_what_fails_without_servers_is_tried_once_more_where_time_ran_out(
    own_tests: Path, error: str, passed_again: int
) -> None:
    shaky(own_tests, error=error)
    step = Step(marks="services", options=("-n", "1"), with_servers=False)
    status, again = run_step(step, last=True, folder=own_tests)
    assert (status, len(again)) == (0 if passed_again else 1, passed_again)


@pytest.mark.parametrize(
    ("notes", "with_servers", "without"),
    [
        pytest.param({}, 0, 0, id="nothing failed"),
        pytest.param({"a::b": True, "a::c": True}, 2, 2, id="two ran out of time"),
        pytest.param({"a::b": True, "a::c": False}, 2, 0, id="one of two did"),
        pytest.param({"a::b": False}, 1, 0, id="one found a fault"),
        pytest.param({f"a::{name}": True for name in "bcd"}, 0, 0, id="three ran out of time"),
        pytest.param({"a": False}, 0, 0, id="a file could not be read"),
    ],
)
def test_which_failures_are_tried_again(
    tmp_path: Path, notes: dict[str, bool], with_servers: int, without: int
) -> None:
    noted = tmp_path / "failures.json"
    noted.write_text(json.dumps(notes))
    for servers, wanted in ((True, with_servers), (False, without)):
        assert len(Step(marks="some", with_servers=servers).tried_again(noted)) == wanted
    assert Step(marks="some").tried_again(tmp_path / "no such file") == ()


FAILING = """
import asyncio, os, subprocess, time, pytest
from tests.support.waiting import eventually

def test_late_by_itself():
    raise TimeoutError("after a minute")

def test_late_in_a_group():
    raise ExceptionGroup("all late", [TimeoutError(), TimeoutError()])

def test_late_by_eventually():
    eventually(lambda: False, seconds=0)

def test_late_by_asyncio():
    async def wait():
        async with asyncio.timeout(0):
            await asyncio.sleep(60)
    asyncio.run(wait())

def test_late_by_a_command():
    subprocess.run(["sleep", "60"], timeout=0.01)

@pytest.mark.timeout(0.5)
def test_late_by_pytest():
    time.sleep(60)

@pytest.fixture
def late():
    raise TimeoutError("the server did not start")

def test_late_by_a_fixture(late):
    pass

def test_refuted():
    assert False

def test_refuted_in_a_group():
    raise ExceptionGroup("one late", [TimeoutError(), AssertionError()])

def test_refuted_before():
    try:
        assert False
    finally:
        raise TimeoutError

def test_refuted_where_a_time_out_was_to_come():
    with pytest.raises(TimeoutError):
        pass

@pytest.fixture
def late_in_the_end():
    yield
    raise TimeoutError("it did not stop")

def test_refuted_and_then_late(late_in_the_end):
    assert False

def test_refuted_by_the_death_of_its_process():
    if "PYTEST_XDIST_WORKER" in os.environ:
        os._exit(1)
    assert False

def test_passes():
    pass
"""


@pytest.mark.parametrize("options", [(), ("-n", "1")], ids=["in one process", "under xdist"])
def test_how_a_test_failed_is_read_from_its_report(own_tests: Path, options: tuple[str, ...]) -> None:
    (own_tests / "test_failing.py").write_text(FAILING)
    (own_tests / "test_broken.py").write_text("raise TimeoutError")
    notes = own_tests / "notes.json"
    chosen = ("test_failing.py",) if options else ("--continue-on-collection-errors",)
    outside = {name: value for name, value in os.environ.items() if name != "PYTEST_XDIST_WORKER"}
    run_pytest((*options, *chosen, f"{NOTE_FAILURES}={notes}"), outside, own_tests)
    noted: dict[str, bool] = json.loads(notes.read_text())
    if not options:
        assert noted.pop("test_broken.py") is False
    names = {test.partition("::")[2]: late for test, late in noted.items()}
    assert names == {name: name.startswith("test_late") for name in names}
    assert len(names) == FAILING.count("def test_") - 1


def test_the_command_fails_when_a_tier_finds_no_test(
    own_tests: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "CHECKOUT", shaky(own_tests))
    tier = Tier(name="none", budget_seconds=60, steps=(Step(marks="services and once"),))
    assert run_all([tier]) == 1
    assert capsys.readouterr().out.splitlines()[-2].split()[0::4] == ["none", "FAILED"]


@pytest.mark.parametrize(("strict", "status"), [(False, 0), (True, 1)])
def test_what_passed_only_when_tried_again_fails_the_strict_command(
    own_tests: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    strict: bool,
    status: int,
) -> None:
    monkeypatch.setattr(command, "CHECKOUT", shaky(own_tests, error="TimeoutError"))
    tier = Tier(name="shaky", budget_seconds=60, steps=(Step(marks="services", with_servers=False),))
    assert run_all([tier], strict=strict) == status
    told = capsys.readouterr().out.splitlines()
    assert told[-1] == "passed only when tried again: test_shaky.py::test_shaky[0]"
    assert told[-3].endswith("passed when tried again")


def test_the_table_names_what_passed_only_when_tried_again() -> None:
    assert (
        table([run(again=("some.py::test",))]).splitlines()[-1]
        == "passed only when tried again: some.py::test"
    )


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
