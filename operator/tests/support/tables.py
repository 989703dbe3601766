"""Reads the tables of parametrized tests, so that a test can check that a table has a row for every case."""

from collections.abc import Callable
from typing import Any


def column(test: Callable[..., Any], name: str) -> list[Any]:
    """The values of one argument in the rows of a test with one table."""
    (table,) = (mark for mark in vars(test)["pytestmark"] if mark.name == "parametrize")
    names, rows = table.args
    return [row.values[names.index(name)] for row in rows]
