"""Reads the marks `holds` from test files, without importing them.

`@pytest.mark.holds("install.md", "A digest wins over a tag")` on a test says that it holds this promise of
docs/install.md. A test has one mark for each promise. `case="id"` names the one case of a parametrised test
that holds it.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeGuard

MARK = "pytest.mark.holds"


@dataclass(frozen=True, slots=True, order=True)
class Held:
    """A promise of a page, and a test that holds it: `path::name`."""

    page: str
    promise: str
    test: str


def held_in(source: str, path: str) -> list[Held]:
    """The promises that the tests of a file hold. Raises ValueError for a mark that cannot be read."""
    if MARK not in source:
        return []
    tree = ast.parse(source)
    on_tests = [(name, mark) for name, test in _tests(tree) for mark in test.decorator_list if _is_mark(mark)]
    all_marks = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and _is_mark(node)]
    if astray := {id(mark): mark for mark in all_marks}.keys() - {id(mark) for _, mark in on_tests}:
        line = min(mark.lineno for mark in all_marks if id(mark) in astray)
        raise ValueError(f"{path}:{line}: {MARK} must be a decorator of a test")
    return [_held(mark, f"{path}::{name}", f"{path}:{mark.lineno}") for name, mark in on_tests]


def _tests(
    parent: ast.Module | ast.ClassDef, prefix: str = ""
) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for node in parent.body:
        if isinstance(node, ast.ClassDef):
            yield from _tests(node, f"{prefix}{node.name}::")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            yield prefix + node.name, node


def _is_mark(node: ast.AST) -> TypeGuard[ast.Call]:
    return isinstance(node, ast.Call) and ast.unparse(node.func) == MARK


def _held(mark: ast.expr, test: str, place: str) -> Held:
    assert isinstance(mark, ast.Call)
    texts = [_text(one) for one in mark.args]
    cases = {word.arg: _text(word.value) for word in mark.keywords}
    if len(texts) != 2 or not all(texts) or not cases.keys() <= {"case"} or None in cases.values():
        raise ValueError(f'{place}: {MARK} takes the page and the promise as texts, and case="…"')
    page, promise = map(str, texts)
    if any(mark in promise for mark in (" | ", "\n")) or promise != promise.strip():
        raise ValueError(f"{place}: a promise is one line without bars and spaces at its ends")
    return Held(page, promise, f"{test}[{cases['case']}]" if cases else test)


def _text(node: ast.expr) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None
