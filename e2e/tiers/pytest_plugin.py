"""Makes the mark `xdist_group` work: tests of one group run in one test process, with `--dist loadgroup`.

pytest-xdist 3.8 names a test's group at the end of an attribute `_nodeid` that pytest 9.2 no longer reads, so
every test would be in a group of its own. The name is put where pytest reads it.
"""

import pytest


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Runs after pytest-xdist's own hook, which writes `_nodeid`."""
    for item in items:
        grouped = vars(item).get("_nodeid")
        if grouped is not None and grouped != item.nodeid:
            item._id = type(item._id).parse(grouped)
