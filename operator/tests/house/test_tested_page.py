"""docs/tested.md has a section for each page, and each of its rows names tests that exist, or "untested".

docs/agents.md has a table of failures and one of costs; each of their rows names tests that exist, too.
"""

import ast
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest

from tested_page.tree import page_of_this_checkout

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"
PAGE = DOCS / "tested.md"
SECTION = re.compile(r"## \[(?P<title>[^\]]+)\]\((?P<link>[^)]+)\)")
TEST = re.compile(r"`(?P<path>[\w/.-]+\.py)::(?P<name>[^`\[]+)(?:\[[^`]*\])?`")
UNTESTED = re.compile(r"untested(?: \(.+\))?")
AGENTS = DOCS / "agents.md"
FAILURES = {
    "Cascading failure",
    "Head-of-line blocking",
    "Lost updates",
    "Partial fan-out",
    "Rate-limit cascade",
    "Thundering herd",
}
LEVERS = {"Batch class", "Caching", "Lazy parallelism", "Model routing", "Prompt cancellation"}

Rows = list[tuple[str, str]]


def sections_of(text: str) -> dict[Path, Rows]:
    """The rows of each page: what it promises, and the cell that says what holds it."""
    found: dict[Path, Rows] = {}
    rows: Rows = []
    for line in text.splitlines():
        if section := SECTION.fullmatch(line):
            rows = found.setdefault((DOCS / section["link"]).resolve(), [])
        elif line.startswith("| ") and line != "| promise | test |":
            promise, _, cell = line.removeprefix("| ").removesuffix(" |").rpartition(" | ")
            rows.append((promise, cell))
    return found


def pages_without_a_section(text: str) -> list[str]:
    """The README and the pages of docs/ and docs/start/ have one; a decision has one if it promises."""
    pages = {ROOT / "README.md", *DOCS.glob("*.md"), *(DOCS / "start").glob("*.md")} - {PAGE}
    return sorted(page.name for page in pages - sections_of(text).keys())


def faults_of(cell: str) -> list[str]:
    """Faults of the cell that says what holds a promise."""
    if UNTESTED.fullmatch(cell):
        return []
    tests = list(TEST.finditer(cell))
    if not tests or ", ".join(test[0] for test in tests) != cell:
        return [f"neither tests nor untested: {cell}"]
    return [f"no such test: {test[0]}" for test in tests if test["name"] not in names_in(test["path"])]


@cache
def names_in(path: str) -> frozenset[str]:
    """`function` and `Class::function`; nothing where there is no such file."""
    file = ROOT / path
    if not file.is_file():
        return frozenset()
    return frozenset(_tests_of(ast.parse(file.read_text(encoding="utf-8"))))


def _tests_of(parent: ast.Module | ast.ClassDef, prefix: str = "") -> Iterator[str]:
    for node in parent.body:
        if isinstance(node, ast.ClassDef):
            yield from _tests_of(node, f"{prefix}{node.name}::")
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            yield prefix + node.name


def test_every_page_has_a_section() -> None:
    assert pages_without_a_section(PAGE.read_text(encoding="utf-8")) == []


def test_the_page_is_what_the_marks_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == page_of_this_checkout(), "run make generate"


def test_every_section_is_of_a_page_and_has_rows() -> None:
    found: Mapping[Path, Rows] = sections_of(PAGE.read_text(encoding="utf-8"))
    assert [page for page, rows in found.items() if not page.is_file() or not rows] == []


def test_every_test_that_the_page_names_exists() -> None:
    rows = [row for some in sections_of(PAGE.read_text(encoding="utf-8")).values() for row in some]
    assert rows
    assert {promise: faults for promise, cell in rows if (faults := faults_of(cell))} == {}


def test_no_promise_stands_twice_in_a_section() -> None:
    for rows in sections_of(PAGE.read_text(encoding="utf-8")).values():
        promises = [promise for promise, _ in rows]
        assert sorted(set(promises)) == sorted(promises)


def rows_below(text: str, header: str) -> list[list[str]]:
    """The rows of the table with this header."""
    _, _, below = text.partition(f"{header}\n")
    table = below.split("\n\n")[0].splitlines()[1:]
    return [row.removeprefix("| ").removesuffix(" |").split(" | ") for row in table]


@pytest.mark.holds(
    "agents.md", "Each way of failing and each cost in the tables has a defence whose tests exist"
)
def test_every_failure_and_every_cost_has_a_defence_with_tests_that_exist() -> None:
    text = AGENTS.read_text(encoding="utf-8")
    failures = rows_below(text, "| failure | defence | tests |")
    costs = rows_below(text, "| cost | lever | tests |")
    assert {failure.split(":")[0] for failure, _, _ in failures} == FAILURES
    assert {lever.split(":")[0] for _, lever, _ in costs} == LEVERS
    assert [faults_of(tests) for _, _, tests in [*failures, *costs]] == [[]] * 11
    assert not any(UNTESTED.fullmatch(tests) for _, _, tests in [*failures, *costs])


THIS = "operator/tests/house/test_tested_page.py"


@pytest.mark.parametrize(
    ("cell", "faults"),
    [
        pytest.param(f"`{THIS}::test_a_fault_of_a_row_is_noticed`", [], id="a test that exists"),
        pytest.param(f"`{THIS}::test_a_fault_of_a_row_is_noticed[one]`", [], id="one case of it"),
        pytest.param("untested", [], id="untested"),
        pytest.param("untested (measured by `make bench`)", [], id="untested, and measured"),
        pytest.param(f"`{THIS}::test_no`", [f"no such test: `{THIS}::test_no`"], id="no such test"),
        pytest.param(f"`{THIS}::THIS`", [f"no such test: `{THIS}::THIS`"], id="a name that is no test"),
        pytest.param("`a/b.py::test_c`", ["no such test: `a/b.py::test_c`"], id="no such file"),
        pytest.param("", ["neither tests nor untested: "], id="nothing"),
        pytest.param("by hand", ["neither tests nor untested: by hand"], id="other words"),
        pytest.param(
            f"`{THIS}::test_every_page_has_a_section` and others",
            [f"neither tests nor untested: `{THIS}::test_every_page_has_a_section` and others"],
            id="a test and other words",
        ),
    ],
)
def test_a_fault_of_a_row_is_noticed(cell: str, faults: list[str]) -> None:
    assert faults_of(cell) == faults


def test_a_page_without_a_section_is_noticed() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert pages_without_a_section(text.replace("](router.md)", "](placement.md)")) == ["router.md"]


def test_tests_of_a_class_are_found_by_both_names() -> None:
    path = "operator/tests/controllers/model_replica_set/test_groups.py"
    assert "TestAGroupOfTwoStages::test_is_created_whole_pinned_and_gated" in names_in(path)
