"""The benchmark of patterns: what a task's figures are, and which must be there."""

import json
from typing import Any

import pytest

from fleet.facts import Entry, TaskFacts
from patterns.__main__ import WANTED, figures_of
from patterns.run import PATTERNS, Done, Outcome
from patterns.stories import CALLS, Mode, Order, Story
from wanted import misses


def done(story: Story, mode: Mode, *, calls: int = 2, is_whole: bool = True, seconds: float = 1.0) -> Done:
    entries = [
        Entry(number=number, type="Intended", at=0, fields={"call": f"c{number % calls}", "kind": "Tool"})
        for number in range(2 * calls)
    ]
    entries.append(Entry(number=0, type="Intended", at=0, fields={"call": "chosen", "kind": "Choice"}))
    result = json.dumps({"seconds": seconds, "is_whole": is_whole})
    facts = TaskFacts(id="t", fields={"result": result}, entries=tuple(entries))
    return Done(order=Order(story, mode, 0), facts=facts)


def outcome(**changes: Any) -> Outcome:
    tasks = [done(story, mode, **changes) for story in PATTERNS for mode in Mode]
    steps = [done(Story.STEPS, mode, **changes) for mode in (Mode.PATTERN, Mode.SEQUENTIAL)]
    return Outcome(done=[*tasks, *steps], closed_ms=[1.0] * 98 + [7.0, 99.0], kills=3)


def test_calls_that_were_made_again_count_once_and_choices_are_none() -> None:
    figures = figures_of(outcome(), seed=1)
    assert figures["fan_out"] == {
        "seconds": 1.0,
        "sequential_seconds": 1.0,
        "calls": 2,
        "completed": 1.0,
    }
    assert figures["map_reduce"]["sequential_seconds"] == round(CALLS / 111, 3)
    assert (figures["loser_closed_p99_ms"], figures["with_retries"], figures["without_retries"]) == (
        99.0,
        1,
        1,
    )


@pytest.mark.holds("performance.md", "The figures of the task benchmarks are what they count")
@pytest.mark.parametrize(
    ("changes", "missed"),
    [
        pytest.param({"calls": CALLS}, set(), id="all is as wanted"),
        pytest.param({"calls": CALLS - 1}, {"map_reduce"}, id="a call of the tree is missing"),
        pytest.param({"calls": CALLS, "seconds": 1.2}, {"fan_out"}, id="a barrier slower than the slowest"),
        pytest.param(
            {"calls": CALLS, "is_whole": False}, {*PATTERNS, "with_retries"}, id="tasks that lack results"
        ),
    ],
)
def test_a_miss_is_seen(changes: dict[str, Any], missed: set[str]) -> None:
    figures = figures_of(outcome(**changes), seed=1)
    assert {miss.wanted.path[0] for miss in misses(figures, WANTED)} == missed
