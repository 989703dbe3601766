"""Counters → rates that are never below zero and never huge."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flotilla_runtime.router.rates import SHORTEST_SECONDS, WINDOW_SECONDS, CounterRate, increase


@pytest.mark.parametrize(
    ("looks", "now", "rate"),
    [
        pytest.param([], 0, None, id="nobody has looked"),
        pytest.param([(0, 7)], 0, 0, id="what was before the first look counts for nothing"),
        pytest.param([(0, 0), (1, 1)], 1, 0.1, id="one request at the start is no burst"),
        pytest.param([(0, 0), (10, 10), (20, 40)], 20, 2, id="of the time that has passed"),
        pytest.param([(t, 3 * t) for t in range(0, 241, 2)], 240, 3, id="of the last minute"),
        pytest.param([(t, min(t, 30)) for t in range(0, 96, 5)], 95, 0, id="of which nothing is left"),
        pytest.param([(0, 500), (10, 510), (20, 4)], 20, 0.7, id="the counter began anew"),
        pytest.param([(0, 0), (5, 5)], 15, 0.5 * 10 / 15, id="the last look is not too old"),
        pytest.param([(0, 0), (5, 5)], 15.1, None, id="now it is"),
        pytest.param([(0, 0), (5, 5), (600, 9_000)], 600, 0, id="a gap is no burst"),
        pytest.param([(0, 0), (5, 5), (600, 9_000), (610, 9_020)], 610, 2, id="after it all begins anew"),
    ],
)
def test_the_rate_of_a_counter(looks: list[tuple[float, int]], now: float, rate: float | None) -> None:
    found = CounterRate()
    for at, total in looks:
        found.look(total, at)
    assert found.per_second(now) == (None if rate is None else pytest.approx(rate))


Steps = st.lists(
    st.tuples(st.floats(0.1, 15), st.integers(0, 100), st.sampled_from([False] * 4 + [True])),
    min_size=1,
    max_size=30,
)


@given(steps=Steps)
@settings(max_examples=25)
def test_whatever_a_counter_does_its_rate_lies_between_zero_and_what_came(
    steps: list[tuple[float, int, bool]],
) -> None:
    """With each step time passes, requests come, and sometimes HAProxy has begun anew before."""
    found, now, total, came = CounterRate(), 0.0, 0, 0
    for passed, more, anew in steps:
        now, came = now + passed, came + more
        total = more if anew else total + more
        found.look(total, now)
        rate = found.per_second(now)
        assert rate is not None
        assert 0 <= rate <= came / SHORTEST_SECONDS


@given(rate=st.integers(1, 1000), every=st.floats(0.1, 0.9), seconds=st.integers(10, 200))
@settings(max_examples=20)
def test_what_comes_evenly_is_told_as_it_is(rate: int, every: float, seconds: int) -> None:
    found = CounterRate()
    for look in range(int(seconds / every) + 1):
        found.look(int(rate * look * every), look * every)
    told = found.per_second(look * every)
    one = 2 / min(look * every, WINDOW_SECONDS)  # a request at either end
    assert told == pytest.approx(rate, rel=0.1 if seconds < 20 else 0.04, abs=one)


def test_a_counter_that_is_lower_has_begun_anew() -> None:
    assert [increase(5, total) for total in (5, 7, 0, 3)] == [0, 2, 0, 3]
