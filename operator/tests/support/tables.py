"""What a test is parametrized with, for tests that every case of something is in a table."""

from collections.abc import Callable, Sequence
from typing import Any


def rows_of(test: Callable[..., None]) -> Sequence[Any]:
    """The rows of a test with one table."""
    (table,) = (mark for mark in vars(test)["pytestmark"] if mark.name == "parametrize")
    rows: Sequence[Any] = table.args[1]
    return rows
