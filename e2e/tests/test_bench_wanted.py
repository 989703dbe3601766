"""How a benchmark's figures are held against what is wanted of them."""

import json
from typing import Any

import pytest

from wanted import Wanted, at_least, at_most, conclude, exactly, known_to_miss, misses, under

FIGURES: dict[str, Any] = {"ratio": 3.0, "broken": 0, "serves": True, "share": {"with headers": 0.95}}


@pytest.mark.holds(
    "performance.md",
    "A benchmark names each figure that is not as wanted, ends with 1, and its last line is one JSON object",
)
@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        pytest.param(under(3.1, "ratio"), None, id="under its limit"),
        pytest.param(
            under(3, "ratio"), "missed: ratio is 3, wanted under 3", id="a limit is not under itself"
        ),
        pytest.param(at_most(3, "ratio"), None, id="but at most itself"),
        pytest.param(at_most(2.9, "ratio"), "missed: ratio is 3, wanted at most 2.9", id="more than at most"),
        pytest.param(exactly(0, "broken"), None, id="none broken"),
        pytest.param(
            exactly(1, "broken"), "missed: broken is 0, wanted exactly 1", id="none where one should"
        ),
        pytest.param(exactly(1, "serves"), None, id="true is one"),
        pytest.param(at_least(0.95, "share", "with headers"), None, id="a figure of one policy"),
        pytest.param(
            at_least(0.96, "share", "with headers"),
            "missed: with headers of share is 0.95, wanted at least 0.96",
            id="too little of one policy",
        ),
        pytest.param(
            under(3, "share", "without"),
            "missed: without of share was not measured, wanted under 3",
            id="no key",
        ),
        pytest.param(
            under(3, "ratio", "p95"),
            "missed: p95 of ratio was not measured, wanted under 3",
            id="a key too far",
        ),
        pytest.param(
            known_to_miss(under(2, "ratio")),
            "missed (known, see docs/performance.md): ratio is 3, wanted under 2",
            id="a miss that is known",
        ),
    ],
)
def test_a_figure_that_is_not_as_wanted_is_told(wanted: Wanted, told: str | None) -> None:
    assert [str(miss) for miss in misses(FIGURES, [wanted])] == ([] if told is None else [told])


@pytest.mark.holds(
    "performance.md",
    "A benchmark names each figure that is not as wanted, ends with 1, and its last line is one JSON object",
)
@pytest.mark.parametrize(
    ("wanted", "only_print", "status"),
    [
        pytest.param([at_most(3, "ratio")], False, 0, id="all as wanted"),
        pytest.param([at_most(3, "ratio"), under(3, "ratio")], False, 1, id="one of two missed"),
        pytest.param([under(3, "ratio")], True, 0, id="missed, and only to be printed"),
        pytest.param([known_to_miss(under(3, "ratio"))], False, 0, id="only a known miss"),
        pytest.param([known_to_miss(under(3, "ratio")), under(2, "ratio")], False, 1, id="and another"),
    ],
)
def test_a_benchmark_fails_on_a_miss_and_ends_with_its_figures(
    wanted: list[Wanted], only_print: bool, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert conclude(FIGURES, wanted, only_print=only_print) == status
    *told, last = capsys.readouterr().out.splitlines()
    assert json.loads(last) == FIGURES
    assert told == [str(miss) for miss in misses(FIGURES, wanted)]
