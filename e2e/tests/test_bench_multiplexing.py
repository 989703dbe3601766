"""The benchmark of multiplexing: what the figures are of, and which must be there; one short run of it."""

import json
import subprocess
import sys
from typing import Any

import pytest

from fleet.facts import Entry, TaskFacts
from multiplexing.__main__ import WANTED, figures_of
from multiplexing.figures import Load, late_death_extra, load_of
from multiplexing.plans import (
    CALLS,
    HISTORY_TOKENS,
    ROOM_TOKENS,
    SLOTS,
    WARM_TASKS,
    Order,
    double_config,
    grown,
    tool_ms,
)
from wanted import misses

BEGAN = 1_800_000_000_000


def task(number: int, *ends: float, cached: float = 1.0) -> TaskFacts:
    """A task whose calls ended after so many seconds, with prompts that grow by 100 tokens."""
    entries = []
    for place, end in enumerate(ends):
        tokens = 100 * (place + 1)
        known = {"input_tokens": tokens, "cached_input_tokens": round(cached * 100 * place)}
        entries.append(Entry(number=place, type="Done", at=BEGAN + round(1000 * end), fields=known))
    entries.append(Entry(number=9, type="Done", at=BEGAN, fields={"call": "a tool"}))
    ended = BEGAN + round(1000 * (max(ends) + 2))
    fields = {"startedAt": str(BEGAN), "endedAt": str(ended), "status": "Succeeded"}
    return TaskFacts(id=str(number), fields=fields, entries=tuple(entries))


def test_slots_that_are_always_busy_have_the_utilisation_one() -> None:
    """Each of the slots ends a call a second."""
    tasks = [task(number, *range(1, 31)) for number in range(SLOTS)]
    found = load_of(tasks, speed=1.0)
    assert found.utilisation == pytest.approx(1, abs=0.05)
    assert (found.warm_prefill_share, found.task_p95_seconds, found.seconds) == (1, 32, 32)
    half = load_of(tasks, speed=2.0)
    assert half.utilisation == pytest.approx(0.5, abs=0.03), "the same calls in twice the time of the story"
    assert half.task_p95_seconds == 64


def test_a_history_that_was_computed_again_is_cold() -> None:
    tasks = [task(0, 1, 2, 3), task(1, 1, 2, 3, cached=0.5)]
    assert load_of(tasks, speed=1.0).warm_prefill_share == 0.5


def test_tasks_that_did_not_end_leave_no_percentile() -> None:
    running = task(1, 1, 2)
    tasks = [task(0, 1, 2), TaskFacts(id="1", fields={**running.fields, "status": "Running"}, entries=())]
    assert load_of(tasks, speed=1.0).task_p95_seconds is None


def test_the_slowest_task_of_the_dead_replica_counts() -> None:
    assert late_death_extra([46.0, 48.5], [45.5, 60.0]) == 3.0
    assert late_death_extra([], [45.0]) is None is late_death_extra([45.0], [])


def test_the_room_is_that_of_sixteen_whole_histories() -> None:
    order = Order(task=3, seed=1)
    history = "".join(grown(order, step) for step in range(CALLS))
    assert len(history) == 4 * HISTORY_TOKENS < 4 * ROOM_TOKENS
    double = double_config(speed=1.0)
    room = double["kv_blocks"] * double["block_tokens"]
    assert WARM_TASKS * HISTORY_TOKENS <= room < (WARM_TASKS + 1) * HISTORY_TOKENS
    assert 1500 <= tool_ms(order, 0) <= 2500 != tool_ms(order, 0)
    assert tool_ms(Order(task=3, seed=1, even=True, speed=5), 0) == 400


def load(utilisation: float, warm: float = 1.0) -> Load:
    return Load(utilisation=utilisation, warm_prefill_share=warm, task_p95_seconds=30, seconds=90)


@pytest.mark.holds("performance.md", "The figures of the task benchmarks are what they count")
@pytest.mark.parametrize(
    ("own", "extra", "missed"),
    [
        pytest.param(load(0.86), 1.5, set(), id="all is as wanted"),
        pytest.param(load(0.75), 1.5, {"admission_of_best"}, id="a fixed number is much better"),
        pytest.param(load(0.9, warm=0.5), 1.5, {"warm_prefill_share"}, id="histories are computed again"),
        pytest.param(load(0.9), 9.0, {"late_death_extra_seconds"}, id="steps were repeated"),
        pytest.param(load(0.9), None, {"late_death_extra_seconds"}, id="nobody died"),
    ],
)
def test_a_miss_is_seen(own: Load, extra: float | None, missed: set[str]) -> None:
    figures = figures_of({"1": load(0.3), "3": load(0.9), "10": load(0.4), "admission": own}, extra)
    assert figures["utilisation"]["10"] == 0.4
    assert {miss.wanted.path[0] for miss in misses(figures, WANTED)} == missed


@pytest.mark.services
@pytest.mark.rare
def test_a_short_run_ends_with_every_figure() -> None:
    arguments = ["--tasks", "6", "--speed", "20", "--no-death", "--only-print"]
    ran = subprocess.run(
        [sys.executable, "-m", "multiplexing", *arguments],
        capture_output=True,
        text=True,
        timeout=180,
        check=True,
    )
    figures: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    for name in ("utilisation", "warm_prefill_share", "task_p95_seconds"):
        assert set(figures[name]) == {"1", "3", "10", "admission"}
        assert None not in figures[name].values()
