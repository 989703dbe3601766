"""The router benchmark's figures, made of made-up runs: what is added, by whom the processors were used."""

import os
import subprocess

import pytest

from processor import apart, halves
from router.__main__ import WANTED
from router.latency import KEEPING, PLAIN, SIDES, Run, added, cores_used, middle_of, order, phases

QUIET = {"haproxy": 0.2, "agents": 0.1, "backend": 0.3, "load_generator": 0.4, "router": 0.3}

ANSWERS = {"without": (1, 900), "with": (3, 700), PLAIN: (2, 800), KEEPING: (1.5, 850)}  # ms, requests/s


def run(milliseconds: float, requests_per_second: float = 500) -> Run:
    figures = {f"p{quantile}_ms": milliseconds for quantile in (50, 95, 99)}
    return Run(figures={**figures, "requests_per_second": requests_per_second}, cores=QUIET)


def test_the_cores_of_a_role_are_its_time_over_the_clocks() -> None:
    before = {"haproxy": 10.0, "agents": 4.0, "backend": 1.0, "load_generator": 0.0}
    after = {"haproxy": 11.5, "agents": 4.5, "backend": 3.0, "load_generator": 4.0}
    assert cores_used(before, after, 5) == {
        "haproxy": 0.3,
        "agents": 0.1,
        "backend": 0.4,
        "load_generator": 0.8,
        "router": 0.4,
    }


@pytest.mark.holds("performance.md", "What the router adds is the difference of runs in alternation")
def test_with_and_without_take_turns_at_being_first_and_slow_streams_are_only_in_the_first_round() -> None:
    steps = [(side, phase.name) for side, phase in order(phases(6), rounds=3)]
    assert [side for side, name in steps if name == "steady"] == [
        *("without", "with"),
        *("with", "without"),
        *("without", "with"),
    ]
    assert [side for side, name in steps if name == "streams_50_ms"] == ["without", "with"]
    assert [side for side, name in steps if name == "saturated"][:4] == [*SIDES, PLAIN, KEEPING]


def test_processors_in_halves() -> None:
    assert halves({3, 1, 2, 0}) == (frozenset({0, 1}), frozenset({2, 3}))
    assert halves({5, 7, 6}) == (frozenset({5, 6}), frozenset({7}))
    assert halves({4}) == (frozenset({4}), frozenset({4}))


def test_while_they_are_apart_the_routers_and_all_else_have_their_own_processors() -> None:
    before = os.sched_getaffinity(0)
    rest, routers = halves(before)
    with subprocess.Popen(["sleep", "60"]) as one, subprocess.Popen(["sleep", "60"]) as other:
        with apart([one.pid], [other.pid]):
            assert [os.sched_getaffinity(each) for each in (one.pid, other.pid, 0)] == [routers, rest, rest]
        assert [os.sched_getaffinity(each) for each in (one.pid, other.pid, 0)] == [before] * 3
        one.kill()
        other.kill()


def test_one_slow_round_of_three_changes_no_figure() -> None:
    assert middle_of([run(2), run(90, 100), run(1)]).figures["p95_ms"] == 2


@pytest.mark.holds("performance.md", "What the router adds is the difference of runs in alternation")
def test_what_is_added_is_the_difference_and_every_figure_that_is_wanted_is_there() -> None:
    asked = phases(6)
    middle = {(phase.name, side): run(*ANSWERS[side]) for phase in asked for side in phase.sides}
    found = added(asked, middle)
    assert found["added_p95_ms"] == 2
    assert (found["requests_per_second"], found["requests_per_second_without"]) == (700, 900)
    assert found["requests_per_second_plain_haproxy"] == 800
    assert found["saturated_added_p95_ms_plain_haproxy"] == 1
    assert found["saturated_added_p95_ms_keeping_haproxy"] == 0.5
    assert found["router_cores"] == pytest.approx(0.3)
    assert found["cores"]["saturated_with"]["backend"] == 0.3
    assert {wanted.path[0] for wanted in WANTED} <= found.keys()
