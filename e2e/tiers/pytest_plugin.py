"""Two things that the tiers need of pytest.

`--files-with=MARK` reads only the test files that write this mark. Each test process imports every test file
there is, which takes 14 seconds; few of them have tests that need a cluster.

The mark `xdist_group` works: tests of one group run in one test process, with `--dist loadgroup`.
pytest-xdist 3.8 names a test's group at the end of an attribute `_nodeid` that pytest 9.2 no longer reads, so
every test would be in a group of its own. The name is put where pytest reads it.
"""

from pathlib import Path

import pytest

FILES_WITH = "--files-with"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the option."""
    parser.addoption(FILES_WITH, default="", metavar="MARK", help="read only test files that write this mark")


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
