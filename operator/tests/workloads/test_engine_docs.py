"""docs/engine.md has a row for each field of `spec.engine`, and for each value of those that have few.

What a row says of an engine on CPUs is held by the test that it names, or by the one that looks for the words
of a refusal; what a row says of the pod, by a test of the pod.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest

from flotilla_operator.api.base import ApiModel
from flotilla_operator.api.model_replica_set import Engine
from tests.support.field_reads import model_in
from tests.workloads.engine_settings import SETTINGS

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "engine.md").read_text()
REAL_TESTS = "operator/tests/workloads/test_engine_settings_real.py"
PASSED_ON = ("env", "resources")  # core/v1 shapes, each with one row
REFUSALS = {setting.name: setting.refusal for setting in SETTINGS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """The settings in the first cell of a row, where the first is the one under test, and its last cell."""

    settings: tuple[str, ...]
    verdict: str

    @property
    def fields(self) -> set[str]:
        """The settings without the case that a row is about."""
        return {setting.partition(", ")[0] for setting in self.settings}


def rows(page: str) -> list[Row]:
    lines = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| `")]
    return [Row(settings=tuple(re.findall("`([^`]+)`", cells[0])), verdict=cells[-1]) for cells in lines]


def fields_of(model: type[ApiModel], path: str = "") -> Iterator[str]:
    """Every field that holds no others, once for each value where it has few."""
    for field in model.model_fields.values():
        here, below = f"{path}{field.alias}", model_in(field.annotation)
        if below is None or here in PASSED_ON:
            yield from [f"{here}: {value}" for value in values_of(field.annotation)] or [here]
        else:
            yield from fields_of(below, f"{here}[]." if "tuple[" in str(field.annotation) else f"{here}.")


def values_of(annotation: Any) -> list[str]:
    if annotation is bool:
        return ["true", "false"]
    few = isinstance(annotation, type) and issubclass(annotation, StrEnum)
    return [str(value) for value in annotation] if few else []


def wrong_rows(page: str) -> list[str]:
    """What the page lacks, and what it says of nothing."""
    there, told = set(fields_of(Engine)), {field for row in rows(page) for field in row.fields}
    holders = {field.rpartition(".")[0].removesuffix("[]") for field in there}
    lacking = [f"{field} has no row" for field in sorted(there - told)]
    return lacking + [f"{field} is no setting" for field in sorted(told - there - holders)]


def test_every_field_has_a_row_and_every_row_is_of_a_field() -> None:
    assert wrong_rows(PAGE) == []


def test_a_row_that_is_missing_or_of_nothing_is_noticed() -> None:
    assert wrong_rows(PAGE.replace("| `maxNumSeqs` |", "| `maxSeqs` |")) == [
        "maxNumSeqs has no row",
        "maxSeqs is no setting",
    ]


def test_the_settings_under_test_are_those_of_the_rows() -> None:
    of_engines = {row.settings[0] for row in rows(PAGE) if not row.verdict.startswith("the pod's: ")}
    assert of_engines == set(REFUSALS)


@pytest.mark.parametrize("row", rows(PAGE), ids=lambda row: row.settings[0])
def test_every_row_says_what_a_test_holds(row: Row) -> None:
    setting, (verdict, _, reason) = row.settings[0], row.verdict.partition(": ")
    if verdict == "refused":
        assert reason == f"`{REFUSALS[setting]}`"
    elif verdict == "runs":
        assert REFUSALS[setting] is None
        assert f'"{setting}"' in source_of(f"{REAL_TESTS}::{reason}")
    else:
        assert verdict == "the pod's"
        assert f'"{setting.rpartition(".")[2]}"' in source_of(reason.strip("`"))


def source_of(test: str) -> str:
    """The lines of a test, `file::function`, with its table of cases."""
    path, _, name = test.partition("::")
    text = (ROOT / path).read_text()
    (found,) = (
        node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef) and node.name == name
    )
    first = min([found.lineno, *(decorator.lineno for decorator in found.decorator_list)])
    return "\n".join(text.splitlines()[first - 1 : found.end_lineno])


def test_the_files_that_the_page_names_are_there() -> None:
    named = re.findall(r"`((?:operator|runtime|e2e)/[^`:]+\.py)", PAGE)
    assert named
    assert [path for path in named if not (ROOT / path).is_file()] == []
