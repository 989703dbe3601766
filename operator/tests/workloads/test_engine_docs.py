"""docs/engine.md has a row for each field of `spec.engine`, and for each value of those that have few.

What a row says of an engine on CPUs is held by the test that it names, or by the one that looks for the words
of a refusal; what a row says of the pod, by a test of the pod.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest

from flotilla_operator.api.base import ApiModel
from flotilla_operator.api.model_replica_set import Engine
from tests.support.field_reads import model_in
from tests.support.real_engines import spec_for_tests
from tests.support.tables import column
from tests.workloads import test_model_files, test_model_replica_set
from tests.workloads.engine_settings import BY_NAME, SETTINGS
from tests.workloads.test_engine_settings_real import ON_THE_EMBEDDER, SHOWN_BY

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "engine.md").read_text()
PASSED_ON = ("env", "resources")  # core/v1 shapes, each with one row
REFUSALS = {setting.name: setting.refusal for setting in SETTINGS}


def name_of(test: Callable[..., Any]) -> str:
    """The name by which the page names a test of the operator."""
    return f"operator/{test.__module__.replace('.', '/')}.py::{test.__name__}"


BUILDS = test_model_replica_set.test_an_engine_is_built_for_what_it_runs_on
THREADS = test_model_replica_set.test_cpu_engines_share_cores_without_binding
FILES = test_model_files.test_the_container_is_told_each_thing_with_its_field_and_rank
# The values of `spec.engine` in the table of each test of the pod.
ENGINES_OF_PODS: Mapping[str, list[dict[str, Any]]] = {
    name_of(BUILDS): [spec.get("engine", {}) for spec in column(BUILDS, "spec")],
    name_of(THREADS): [{"resources": resources} for resources in column(THREADS, "resources")],
    name_of(FILES): column(FILES, "engine"),
}


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
    """Fields that the page lacks, and those that it invents."""
    there, told = set(fields_of(Engine)), {field for row in rows(page) for field in row.fields}
    holders = {field.rpartition(".")[0].removesuffix("[]") for field in there}
    lacking = [f"{field} has no row" for field in sorted(there - told)]
    return lacking + [f"{field} is no setting" for field in sorted(told - there - holders)]


@pytest.mark.holds(
    "engine.md",
    "Every field of `spec.engine` has a row on the page, and each row is held by the test that it names",
)
def test_every_field_has_a_row_and_every_row_is_of_a_field() -> None:
    assert wrong_rows(PAGE) == []


def test_a_row_that_is_missing_or_of_nothing_is_noticed() -> None:
    assert wrong_rows(PAGE.replace("| `maxNumSeqs` |", "| `maxSeqs` |")) == [
        "maxNumSeqs has no row",
        "maxSeqs is no setting",
    ]


def test_the_settings_under_test_are_those_of_the_rows() -> None:
    of_engines = {row.settings[0] for row in rows(PAGE) if not row.verdict.startswith("pod only: ")}
    assert of_engines == set(REFUSALS)


@pytest.mark.holds(
    "engine.md",
    "Every field of `spec.engine` has a row on the page, and each row is held by the test that it names",
)
@pytest.mark.parametrize("row", rows(PAGE), ids=lambda row: row.settings[0])
def test_every_row_says_what_a_test_holds(row: Row) -> None:
    setting, (verdict, _, reason) = row.settings[0], row.verdict.partition(": ")
    if verdict == "refused":
        assert reason == f"`{REFUSALS[setting]}`"
    elif verdict == "runs":
        assert REFUSALS[setting] is None
        assert setting in SHOWN_BY[reason]
    else:
        assert verdict == "pod only"
        assert any(is_set(setting, engine) for engine in ENGINES_OF_PODS[reason.strip("`")])


def is_set(setting: str, engine: Mapping[str, Any]) -> bool:
    """True if a `spec.engine` has this setting; `adapters[].rank` means any adapter's rank."""
    first, _, rest = setting.partition(".")
    value = engine.get(first.removesuffix("[]"))
    if not rest:
        return value is not None
    return any(is_set(rest, one) for one in (value or () if first.endswith("[]") else [value or {}]))


def test_the_embedder_that_tests_share_has_the_adapter_of_its_row() -> None:
    (adapter,) = Engine.model_validate(BY_NAME[ON_THE_EMBEDDER].engine).adapters
    assert spec_for_tests("Embed").engine.adapters == (adapter,)


def test_the_files_that_the_page_names_are_there() -> None:
    named = re.findall(r"`((?:operator|runtime|e2e)/[^`:]+\.py)", PAGE)
    assert named
    assert [path for path in named if not (ROOT / path).is_file()] == []
