"""Docstrings begin with a noun or a verb: one that begins like a question must be read twice."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
ROOTS = ("runtime", "cli", "operator", "e2e", "benchmarks")
BEGINS_BADLY = re.compile(r"\s*(What|Which|Who|Whose|The ones?)\b")
DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def bad_beginnings(source: str) -> Iterator[tuple[int, str]]:
    """The docstrings that break the rule: the line each stands on, and its first line."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, DOCUMENTED):
            continue
        text = ast.get_docstring(node)
        if text is not None and BEGINS_BADLY.match(text):
            yield node.body[0].lineno, text.splitlines()[0]


@pytest.mark.parametrize("root", ROOTS)
def test_no_docstring_begins_with_a_question(root: str) -> None:
    files = [path for path in sorted((ROOT / root).rglob("*.py")) if ".venv" not in path.parts]
    assert files
    found = [
        f"{path.relative_to(ROOT)}:{line}: {text}"
        for path in files
        for line, text in bad_beginnings(path.read_text(encoding="utf-8"))
    ]
    assert found == [], "begin with a noun or a verb: say what it returns, does or is"


@pytest.mark.parametrize(
    ("text", "is_bad"),
    [
        pytest.param("What a call costs at most.", True, id="what"),
        pytest.param("\n    Which tasks a list shows.", True, id="which, on the next line"),
        pytest.param("Who may search.", True, id="who"),
        pytest.param("The one line that is printed.", True, id="the one"),
        pytest.param("The highest cost of a call.", False, id="a noun"),
        pytest.param("Return what a call costs.", False, id="a verb"),
        pytest.param("Whatever is left of it.", False, id="another word"),
    ],
)
@pytest.mark.parametrize("head", ["", "class A:\n    ", "def a():\n    ", "async def a():\n    "])
def test_the_beginnings_that_break_the_rule(head: str, text: str, is_bad: bool) -> None:
    assert bool(list(bad_beginnings(f'{head}"""{text}"""'))) is is_bad
