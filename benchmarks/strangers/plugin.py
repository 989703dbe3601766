"""Notes in a file what became of each test that plays an attack."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from strangers.attacks import MARK, Played

OPTION = "--attacks-file"
MEMORY = "operator_peak_mib"
PASSED = pytest.StashKey[set[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """The file to which a line of JSON is added for each attack."""
    parser.addoption(OPTION, type=Path, help="where to note what became of each attack")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """A test stops its attack where its set-up, its call and its end all pass."""
    result: pytest.TestReport = yield  # type: ignore[assignment]
    item.stash.setdefault(PASSED, set())
    if result.passed:
        item.stash[PASSED].add(result.when)
    if result.when == "teardown":
        _note(item)
    return result  # type: ignore[return-value]


def _note(item: pytest.Item) -> None:
    file: Path = item.config.getoption(OPTION)
    stopped = item.stash[PASSED] == {"setup", "call", "teardown"}
    memory = dict(item.user_properties).get(MEMORY)
    with file.open("a", encoding="utf-8") as notes:
        for mark in item.iter_markers(MARK):
            for attack in mark.args:
                mib = float(str(memory)) if memory is not None else None
                played = Played(attack=attack, test=item.nodeid, stopped=stopped, operator_mib=mib)
                notes.write(json.dumps(asdict(played)) + "\n")
