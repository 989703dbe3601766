"""Finds numbers in JSON that are none to most of its readers: NaN and the infinite ones. Pure.

Python reads and writes them, as it reads 1e999. Whoever else reads a task could not.
"""

import math
from collections.abc import Iterator
from typing import Any, Final

from pydantic_core import from_json

from flotilla_runtime.gateway.problems import FieldProblem

NO_NUMBER: Final = (
    "NaN and infinite numbers are no JSON, and not every reader takes them; send null, or a text"
)
SHOWN: Final = 10


def number_problems(body: bytes) -> list[FieldProblem]:
    """The fields of a body with such numbers. A body that is no JSON has none: whoever reads it says so."""
    try:
        told = from_json(body)
    except ValueError:
        return []
    found = (FieldProblem(field=field or "(body)", problem=NO_NUMBER) for field in not_finite(told))
    return [problem for problem, _ in zip(found, range(SHOWN), strict=False)]


def not_finite(value: Any, field: str = "") -> Iterator[str]:
    """The paths of such numbers within a value that was read as JSON, so it is not nested deeply."""
    match value:
        case float() if not math.isfinite(value):
            yield field
        case dict():
            for name, inner in value.items():
                yield from not_finite(inner, f"{field}.{name[:100]}".lstrip("."))
        case list():
            for place, inner in enumerate(value):
                yield from not_finite(inner, f"{field}.{place}".lstrip("."))
