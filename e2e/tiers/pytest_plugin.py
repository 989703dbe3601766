"""Three things that the tiers need of pytest.

`--files-with=MARK` reads only the test files that write this mark. Each test process imports every test file
there is, which takes 14 seconds; few of them have tests that need a cluster.

`--note-failures=FILE` writes each test that failed, and whether nothing but time ran out in it: pytest's own
time-out of a test, a `TimeoutError` (of asyncio, of `eventually`) or one of a client or a command.

The mark `xdist_group` works: tests of one group run in one test process, with `--dist loadgroup`.
pytest-xdist 3.8 names a test's group at the end of an attribute `_nodeid` that pytest 9.2 no longer reads, so
every test would be in a group of its own. The name is put where pytest reads it.
"""

import json
from collections.abc import Generator
from pathlib import Path

import pytest

FILES_WITH = "--files-with"
NOTE_FAILURES = "--note-failures"
TIME_OUTS = frozenset({"TimeoutError", "TimeoutException", "TimeoutExpired"})  # asyncio, httpx, subprocess
TIME_OUT_OF_PYTEST = "from pytest-timeout"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options."""
    parser.addoption(FILES_WITH, default="", metavar="MARK", help="read only test files that write this mark")
    parser.addoption(NOTE_FAILURES, default="", metavar="FILE", help="write which tests failed, and how")


def pytest_configure(config: pytest.Config) -> None:
    """Note failures in the process that all others report to."""
    if config.getoption(NOTE_FAILURES) and not hasattr(config, "workerinput"):
        config.pluginmanager.register(FailureNotes(config), "failure-notes")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out a test file that does not write the mark; None leaves the decision to others."""
    mark: str = config.getoption(FILES_WITH)
    if not mark or collection_path.suffix != ".py" or not collection_path.name.startswith("test_"):
        return None
    return True if f"pytest.mark.{mark}" not in collection_path.read_text(encoding="utf-8") else None


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Runs after pytest-xdist's own hook, which writes `_nodeid`."""
    for item in items:
        grouped = vars(item).get("_nodeid")
        if grouped is not None and grouped != item.nodeid:
            item._id = type(item._id).parse(grouped)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    call: pytest.CallInfo[None],
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Say in the report, which pytest-xdist hands on, whether time ran out."""
    report = yield
    vars(report)["timed_out"] = call.excinfo is not None and timed_out(call.excinfo.value)
    return report


class FailureNotes:
    """Hears what failed in all test processes, and writes it at the end."""

    def __init__(self, config: pytest.Config) -> None:
        self.path = Path(config.getoption(NOTE_FAILURES))
        self.failures: dict[str, bool] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a failed test; a process that died left a report of which nobody knows what ran out."""
        if report.failed:
            self._note(report.nodeid, by_time=getattr(report, "timed_out", False))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note a file that could not be read."""
        if report.failed:
            self._note(report.nodeid, by_time=False)

    def pytest_sessionfinish(self) -> None:
        """Write the notes."""
        self.path.write_text(json.dumps(self.failures), encoding="utf-8")

    def _note(self, test: str, *, by_time: bool) -> None:
        self.failures[test] = by_time and self.failures.get(test, True)


def timed_out(error: BaseException) -> bool:
    """Whether time ran out and nothing else was wrong: no assertion had failed before."""
    before = error.__cause__ or error.__context__
    while before is not None:
        if isinstance(before, AssertionError):
            return False
        before = before.__cause__ or before.__context__
    if isinstance(error, BaseExceptionGroup):
        return all(timed_out(one) for one in error.exceptions)
    if any(ancestor.__name__ in TIME_OUTS for ancestor in type(error).__mro__):
        return True
    return isinstance(error, pytest.fail.Exception) and TIME_OUT_OF_PYTEST in str(error)
