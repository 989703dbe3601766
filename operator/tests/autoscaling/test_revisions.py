"""How workers are divided among the revisions of a fleet: rows, and what always holds."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flotilla_operator.autoscaling.revisions import Older, decide_revisions
from flotilla_operator.autoscaling.workers import (
    Need,
    WorkerMemory,
    WorkerPolicy,
    WorkerSignals,
    WorkersReason,
)

NOW = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
LONG_IDLE = WorkerMemory(needs=(Need(at=NOW - timedelta(seconds=90), workers=0),))


def older(revision: str, tasks: int | None, current: int = 0) -> Older:
    return Older(revision=revision, tasks=tasks, current=current)


def tasks(count: int) -> WorkerSignals:
    return WorkerSignals(waiting=count, in_flight=0)


def policy(most: int = 5, least: int = 0) -> WorkerPolicy:
    return WorkerPolicy(min_replicas=least, max_replicas=most, concurrency=10)


@pytest.mark.holds(
    "tasks.md",
    "Each revision has workers for its own tasks, `maxReplicas` in sum, and one at least for each "
    "that has a task",
)
@pytest.mark.parametrize(
    ("signals", "others", "bounds", "current", "shares", "reason"),
    [
        pytest.param(tasks(15), [], policy(), 0, [("new", 2)], WorkersReason.TASKS, id="one revision"),
        pytest.param(
            tasks(15),
            [older("a", 11, 2)],
            policy(),
            0,
            [("new", 2), ("a", 2)],
            WorkersReason.TASKS,
            id="each its own",
        ),
        pytest.param(
            tasks(0),
            [older("a", 5, 3)],
            policy(),
            0,
            [("new", 0), ("a", 1)],
            WorkersReason.IDLE,
            id="no new task",
        ),
        pytest.param(
            tasks(99),
            [older("a", 35), older("b", 35)],
            policy(),
            0,
            [("new", 1), ("a", 3), ("b", 1)],
            WorkersReason.MAXIMUM,
            id="the oldest first, and each has one",
        ),
        pytest.param(
            tasks(9),
            [older("a", 1)],
            policy(1),
            0,
            [("new", 1), ("a", 1)],
            WorkersReason.TASKS,
            id="one more",
        ),
        pytest.param(
            tasks(0),
            [older("a", 1)],
            policy(1, least=1),
            0,
            [("new", 0), ("a", 1)],
            WorkersReason.IDLE,
            id="the least number is of all",
        ),
        pytest.param(
            tasks(0),
            [older("a", 0, 2)],
            policy(),
            0,
            [("new", 0), ("a", 0)],
            WorkersReason.IDLE,
            id="suspended",
        ),
        pytest.param(
            None,
            [older("a", None, 2)],
            policy(),
            4,
            [("new", 4), ("a", 2)],
            WorkersReason.NO_FIGURES,
            id="unknown changes nothing",
        ),
    ],
)
def test_each_revision_gets_its_share(
    signals: WorkerSignals | None,
    others: list[Older],
    bounds: WorkerPolicy,
    current: int,
    shares: list[tuple[str, int]],
    reason: WorkersReason,
) -> None:
    decision, _ = decide_revisions(
        signals, bounds, LONG_IDLE, revision="new", current=current, older=others, now=NOW
    )
    assert (list(decision.by_revision), decision.reason) == (shares, reason)
    assert decision.wanted == sum(number for _, number in shares)


COUNTS = st.integers(0, 80)


@pytest.mark.holds(
    "tasks.md",
    "Each revision has workers for its own tasks, `maxReplicas` in sum, and one at least for each "
    "that has a task",
)
@given(COUNTS, st.lists(COUNTS, max_size=5), st.integers(1, 6), st.integers(0, 6))
def test_whoever_has_tasks_has_a_worker_and_the_sum_is_bounded(
    new: int, others: list[int], most: int, least: int
) -> None:
    listed = [older(f"r{position}", count) for position, count in enumerate(others)]
    bounds = policy(most, min(least, most))
    decision, _ = decide_revisions(
        tasks(new), bounds, LONG_IDLE, revision="new", current=0, older=listed, now=NOW
    )
    asked = {"new": new, **{one.revision: one.tasks or 0 for one in listed}}
    for revision, number in decision.by_revision:
        assert number > 0 or asked[revision] == 0
        assert number <= most
    with_tasks = sum(count > 0 for count in asked.values())
    assert decision.wanted <= max(most, with_tasks)
