"""When a request line counts, and where; that HAProxy's own lines do so is in test_router_recovery."""

from typing import Any

import pytest

from flotilla_runtime.router.metrics import RouterMetrics
from flotilla_runtime.router.request_log import RequestLog
from flotilla_runtime.router.tallies import Promise
from router_support.builders import record

STARTED = 5_000.0  # of the agent's clock
NOON = 1_800_000_000.0  # the time of day then


class Times:
    """Two clocks that go alike."""

    def __init__(self) -> None:
        self.passed = 0.0

    def clock(self) -> float:
        return STARTED + self.passed

    def wall(self) -> float:
        return NOON + self.passed


def log_of(times: Times, metrics: RouterMetrics) -> RequestLog:
    return RequestLog(metrics, Promise(), clock=times.clock, wall=times.wall)


def counted(metrics: RouterMetrics) -> float:
    samples = [sample for metric in metrics.registry.collect() for sample in metric.samples]
    return sum(sample.value for sample in samples if sample.name == "flotilla_router_requests_total")


@pytest.mark.holds(
    "router.md",
    "What the operator judges by is read again from HAProxy after a restart of the agent, each at its time",
)
@pytest.mark.parametrize(
    ("ended_before_start", "answers", "sessions", "in_metrics"),
    [
        pytest.param(-1, 1, 1, 1, id="a request of now"),
        pytest.param(60, 1, 1, 0, id="one that the agent before has counted"),
        pytest.param(660, 1, 0, 0, id="one whose conversation is over"),
        pytest.param(1860, 0, 0, 0, id="one of long ago"),
    ],
)
def test_a_line_counts_at_the_time_it_tells(
    ended_before_start: float, answers: int, sessions: int, in_metrics: int
) -> None:
    times, metrics = Times(), RouterMetrics()
    log = log_of(times, metrics)
    times.passed = 2
    log.count(record(conversation="one", ended_at=NOON - ended_before_start))
    tally = log.tally("a")
    assert (tally.answers, tally.sessions, counted(metrics)) == (answers, sessions, in_metrics)


@pytest.mark.holds(
    "router.md",
    "What the operator judges by is read again from HAProxy after a restart of the agent, each at its time",
)
def test_what_was_read_again_leaves_as_if_it_had_been_read_once() -> None:
    times = Times()
    log = log_of(times, RouterMetrics())
    for age in (1790, 590, 0):
        log.count(record(conversation=str(age), ended_at=NOON - age))
    assert (log.tally("a").answers, log.tally("a").sessions) == (3, 2)
    times.passed = 20
    assert (log.tally("a").answers, log.tally("a").sessions) == (2, 1)


@pytest.mark.parametrize(
    ("fields", "last"),
    [
        pytest.param({"ended_at": NOON + 30}, 30, id="a request"),
        pytest.param({"ended_at": NOON - 30}, 0, id="an old one, read again, makes nothing busy"),
        pytest.param({"ended_at": NOON + 30, "refused": "NoReplicas"}, 0, id="nor does a refused one"),
        pytest.param({"ended_at": NOON + 3600}, 40, id="a clock that was set back makes no future"),
    ],
)
def test_when_the_last_request_ended(fields: dict[str, Any], last: float) -> None:
    times = Times()
    log = log_of(times, RouterMetrics())
    times.passed = 40
    log.count(record(**fields))
    assert log.last_ended == STARTED + last


def test_kept_answers_are_told_for_the_time_since_the_agents_start() -> None:
    times = Times()
    log = log_of(times, RouterMetrics())
    assert log.kept_per_second == 0
    times.passed = 20
    for age in (19, 9, 1, 30):  # the last one ended before the start
        log.count(record(replica=str(age), ended_at=NOON + 20 - age))
    for fields in ({"status": 500}, {"aborted": True}, {"refused": "QueueTimeout"}, {"replica": None}):
        log.count(record(ended_at=NOON + 19, **fields))
    log.keep_only([])
    assert log.kept_per_second == 3 / 20
    times.passed = 60
    assert log.kept_per_second == 3 / 60
    times.passed = 65
    assert log.kept_per_second == 2 / 60
