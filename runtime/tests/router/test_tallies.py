"""Figures by replica from request records; that HAProxy's lines lead to them is in test_router_recovery."""

from typing import Any

import pytest

from flotilla_runtime.router.tallies import SESSIONS_KEPT, Promise, Tallies, Tally
from router_support.builders import record


@pytest.mark.holds("router.md", "What the router refused is no answer of the replica's")
@pytest.mark.parametrize(
    ("promise", "fields", "tally"),
    [
        pytest.param({}, {}, (1, 0, 1), id="nothing is promised, so every good answer keeps it"),
        pytest.param({}, {"status": 503}, (1, 1, 0), id="500 and above has failed"),
        pytest.param({}, {"status": 429}, (1, 0, 1), id="a caller's fault has not"),
        pytest.param({}, {"aborted": True}, (0, 0, 0), id="a caller that left is no answer"),
        pytest.param(
            {}, {"status": 503, "refused": "QueueTimeout"}, (0, 0, 0), id="nor is one that ended in the queue"
        ),
        pytest.param(
            {}, {"status": 503, "refused": "ReplicaUnauthorized"}, (0, 0, 0), id="nor one between two keys"
        ),
        pytest.param({}, {"replica": None}, (0, 0, 0), id="nor is what no replica saw"),
        pytest.param({"first_byte_seconds": 0.4}, {}, (1, 0, 0), id="the first byte came late"),
        pytest.param({"total_seconds": 4.0}, {}, (1, 0, 1), id="the end came in time"),
        pytest.param({"total_seconds": 3.0}, {}, (1, 0, 0), id="the end came late"),
        pytest.param(
            {"first_byte_seconds": 1.0},
            {"first_byte_seconds": None, "status": 502},
            (1, 1, 0),
            id="no byte came at all",
        ),
    ],
)
def test_an_answer(promise: dict[str, float], fields: dict[str, Any], tally: tuple[int, int, int]) -> None:
    tallies = Tallies(Promise(**promise))
    assert tallies.count(record(**fields), 0.0) is bool(tally[2])
    found = tallies.of("a", 0.0)
    assert (found.answers, found.failed, found.kept) == tally


@pytest.mark.holds("router.md", "`sessions` counts the conversations of the last ten minutes")
def test_conversations_are_counted_once_and_for_ten_minutes() -> None:
    tallies = Tallies(Promise())
    for at, conversation in ((0, "one"), (100, "two"), (300, "one")):
        tallies.count(record(conversation=conversation), at)
    assert tallies.of("a", 300).sessions == 2
    assert tallies.of("a", 701).sessions == 1
    assert tallies.of("a", 900).sessions == 0


@pytest.mark.holds("router.md", "`attainment` is the share of the last half hour that kept the promise")
def test_answers_are_forgotten_after_half_an_hour() -> None:
    tallies = Tallies(Promise())
    for at in (0, 30, 1000):
        tallies.count(record(), at)
    assert tallies.of("a", 1799).answers == 3
    assert tallies.of("a", 1800).answers == 1


def test_memory_is_bounded_and_what_is_gone_is_forgotten() -> None:
    tallies = Tallies(Promise())
    for number in range(SESSIONS_KEPT + 5):
        tallies.count(record(conversation=str(number)), 0.0)
    assert tallies.of("a", 0.0).sessions == SESSIONS_KEPT
    tallies.keep_only(["b"])
    assert tallies.of("a", 0.0) == Tally()
