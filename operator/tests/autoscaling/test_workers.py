"""How many workers the queue asks for: the rules one by one, and what always holds."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flotilla_operator.autoscaling.workers import (
    Need,
    WorkerMemory,
    WorkerPolicy,
    WorkersDecision,
    WorkerSignals,
    WorkersReason,
    decide,
)
from tests.support.generated import seldom_drawn

NOW = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
POLICY = WorkerPolicy(min_replicas=0, max_replicas=5, concurrency=10)
LONG_IDLE = WorkerMemory(needs=(Need(at=NOW - timedelta(seconds=90), workers=0),))


def queue(waiting: int = 0, in_flight: int = 0, admitted: int | None = None) -> WorkerSignals:
    return WorkerSignals(waiting=waiting, in_flight=in_flight, admitted=admitted)


@pytest.mark.holds(
    "tasks.md",
    "Workers are ceil((waiting + in flight) / concurrency), at once upwards, after a quiet minute downwards",
)
@pytest.mark.holds("decisions/0015-steering-loop.md", "A restart of the loop scales nothing")
@pytest.mark.parametrize(
    ("signals", "policy", "memory", "current", "wanted", "reason"),
    [
        pytest.param(queue(), POLICY, WorkerMemory(), 0, 0, WorkersReason.IDLE, id="nothing to do"),
        pytest.param(queue(1), POLICY, WorkerMemory(), 0, 1, WorkersReason.TASKS, id="the first task"),
        pytest.param(queue(11), POLICY, WorkerMemory(), 1, 2, WorkersReason.TASKS, id="one task too many"),
        pytest.param(queue(15, 5), POLICY, WorkerMemory(), 1, 2, WorkersReason.TASKS, id="both count"),
        pytest.param(
            queue(40, 15, 16), POLICY, WorkerMemory(), 1, 2, WorkersReason.ADMISSION, id="the models are full"
        ),
        pytest.param(
            queue(4, 15, 16), POLICY, WorkerMemory(), 1, 2, WorkersReason.TASKS, id="they would be as many"
        ),
        pytest.param(
            queue(9, 25, 3),
            POLICY,
            WorkerMemory(),
            3,
            3,
            WorkersReason.ADMISSION,
            id="what has begun goes on",
        ),
        pytest.param(queue(1, 0, 0), POLICY, WorkerMemory(), 0, 1, WorkersReason.TASKS, id="one may begin"),
        pytest.param(queue(999), POLICY, WorkerMemory(), 1, 5, WorkersReason.MAXIMUM, id="more than allowed"),
        pytest.param(
            queue(),
            WorkerPolicy(min_replicas=2, max_replicas=5, concurrency=10),
            WorkerMemory(),
            0,
            2,
            WorkersReason.MINIMUM,
            id="always two",
        ),
        pytest.param(None, POLICY, LONG_IDLE, 3, 3, WorkersReason.NO_FIGURES, id="unknown changes nothing"),
        pytest.param(
            queue(), POLICY, WorkerMemory(), 3, 3, WorkersReason.QUIET_WINDOW, id="the memory is too short"
        ),
        pytest.param(queue(), POLICY, LONG_IDLE, 3, 0, WorkersReason.IDLE, id="quiet for long enough"),
        pytest.param(
            queue(),
            POLICY,
            WorkerMemory(needs=(*LONG_IDLE.needs, Need(at=NOW - timedelta(seconds=30), workers=2))),
            3,
            2,
            WorkersReason.IDLE,
            id="down to the most of the window",
        ),
    ],
)
def test_the_number_and_its_reason(
    signals: WorkerSignals | None,
    policy: WorkerPolicy,
    memory: WorkerMemory,
    current: int,
    wanted: int,
    reason: WorkersReason,
) -> None:
    decision, _ = decide(signals, policy, memory, current=current, now=NOW)
    assert (decision.wanted, decision.reason) == (wanted, reason)
    assert str(wanted) in decision.message


NUMBERS = st.sampled_from([0, 0, 0, 1, 9, 12, 30]) | st.integers(0, 120)
WITHOUT_TASKS = st.builds(queue)
MOMENTS = st.lists(
    st.tuples(WITHOUT_TASKS | st.builds(queue, NUMBERS, NUMBERS, st.none() | NUMBERS), st.floats(0.5, 40)),
    min_size=1,
    max_size=40,
)


def decided(moments: list[tuple[WorkerSignals, float]]) -> Iterator[tuple[WorkerSignals, WorkersDecision]]:
    memory, current, now = WorkerMemory(), 0, NOW
    for signals, seconds in moments:
        now += timedelta(seconds=seconds)
        decision, memory = decide(signals, POLICY, memory, current=current, now=now)
        current = decision.wanted
        yield signals, decision


def reasons(moments: list[tuple[WorkerSignals, float]]) -> set[WorkersReason]:
    return {decision.reason for _, decision in decided(moments)}


def test_moments_are_drawn_for_every_reason_that_these_bounds_allow() -> None:
    possible = set(WorkersReason) - {WorkersReason.MINIMUM, WorkersReason.NO_FIGURES}
    assert seldom_drawn(possible, reasons, MOMENTS) == {}


@given(MOMENTS)
def test_never_none_while_a_task_is_there_and_never_beyond_the_bounds(
    moments: list[tuple[WorkerSignals, float]],
) -> None:
    for signals, decision in decided(moments):
        tasks = signals.waiting + signals.in_flight
        most = tasks if signals.admitted is None else max(signals.in_flight, signals.admitted, 1)
        may_run = min(tasks, most)
        assert 0 <= decision.wanted <= 5
        assert decision.wanted > 0 or tasks == 0
        assert decision.wanted * 10 >= min(may_run, 50)


@pytest.mark.holds(
    "tasks.md", "No workers are started for tasks that admission holds back, and `bottleneck` names the model"
)
@given(st.builds(queue, NUMBERS, NUMBERS, NUMBERS))
def test_no_worker_is_started_that_would_find_no_task(signals: WorkerSignals) -> None:
    decision, _ = decide(signals, POLICY, WorkerMemory(), current=0, now=NOW)
    assert (decision.wanted - 1) * 10 < max(1, signals.at_work)
    assert signals.in_flight <= signals.at_work <= signals.waiting + signals.in_flight


def test_memory_holds_the_quiet_window_alone() -> None:
    memory = WorkerMemory()
    for second in range(600):
        now = NOW + timedelta(seconds=second)
        _, memory = decide(queue(second % 50), POLICY, memory, current=5, now=now)
    assert [(now - need.at).total_seconds() for need in memory.needs] == list(range(60, -1, -1))


def test_a_fleet_at_rest_comes_to_nothing_and_stays_there() -> None:
    memory, current, now = WorkerMemory(), 4, NOW
    seen = []
    for _ in range(30):
        now += timedelta(seconds=5)
        decision, memory = decide(queue(), POLICY, memory, current=current, now=now)
        current = decision.wanted
        seen.append(current)
    assert seen == [4] * 12 + [0] * 18
