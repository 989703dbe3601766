"""When a circuit opens, tries and closes. That calls heed it is in test_limited_calls.py."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flotilla_runtime.agent.levers.circuits import (
    CLOSED,
    FIRST_OPEN_SECONDS,
    LAST_CALLS,
    LONGEST_OPEN_SECONDS,
    MOST_FAILURES_IN_A_ROW,
    Circuit,
    CircuitState,
    Ended,
    Pass,
    asked,
    ended,
)

OK, BAD, NONE = Ended.ANSWERED, Ended.FAILED, Ended.NOT_MADE
USUAL, TRIAL = Pass(may_call=True), Pass(may_call=True, is_trial=True)


def after(*calls: Ended, at: float = 0.0) -> Circuit:
    circuit = CLOSED
    for how in calls:
        circuit = ended(circuit, USUAL, how, at)
    return circuit


@pytest.mark.holds(
    "agents.md",
    "A circuit opens after five failures in a row or half of the last twenty calls, lets one call "
    "try, and waits longer each time",
)
@pytest.mark.parametrize(
    ("calls", "state"),
    [
        pytest.param([BAD] * 4, CircuitState.CLOSED, id="four failures in a row"),
        pytest.param([BAD] * 5, CircuitState.OPEN, id="five failures in a row"),
        pytest.param([*[BAD] * 4, OK, *[BAD] * 4], CircuitState.CLOSED, id="an answer in between"),
        pytest.param([*[BAD] * 4, NONE, BAD], CircuitState.OPEN, id="a call that was not made says nothing"),
        pytest.param([OK, BAD] * 9, CircuitState.CLOSED, id="half of too few calls"),
        pytest.param([OK, BAD] * 10, CircuitState.OPEN, id="half of the last twenty"),
        pytest.param([OK, OK, BAD] * 20, CircuitState.CLOSED, id="a third of them"),
    ],
)
def test_it_opens_when_too_many_calls_have_failed(calls: list[Ended], state: CircuitState) -> None:
    assert after(*calls).state is state


@pytest.mark.holds(
    "agents.md",
    "A circuit opens after five failures in a row or half of the last twenty calls, lets one call "
    "try, and waits longer each time",
)
@pytest.mark.holds(
    "agents.md",
    "While a circuit tries, others ask again; a trial that was not made, or is cancelled, leaves "
    "its place to the next call",
)
def test_an_open_circuit_says_when_to_try_and_lets_one_call_try() -> None:
    opened = after(*[BAD] * MOST_FAILURES_IN_A_ROW, at=100)
    assert asked(opened, 101)[1] == Pass(may_call=False, retry_after_seconds=FIRST_OPEN_SECONDS - 1)
    trying, passed = asked(opened, 105)
    assert (trying.state, passed) == (CircuitState.HALF_OPEN, TRIAL)
    assert not asked(trying, 106)[1].may_call, "others wait for the trial"
    assert ended(trying, USUAL, OK, 106) == trying, "a call from before counts no more"
    assert ended(trying, TRIAL, OK, 106) == CLOSED


@pytest.mark.holds(
    "agents.md",
    "A circuit opens after five failures in a row or half of the last twenty calls, lets one call "
    "try, and waits longer each time",
)
def test_a_trial_that_fails_opens_it_for_twice_as_long_up_to_a_bound() -> None:
    circuit, now, opened_for = after(*[BAD] * 5), 0.0, []
    for _ in range(6):
        opened_for.append(circuit.until - now)
        now = circuit.until
        circuit, passed = asked(circuit, now)
        circuit = ended(circuit, passed, BAD, now)
    assert opened_for == [5, 10, 20, LONGEST_OPEN_SECONDS, LONGEST_OPEN_SECONDS, LONGEST_OPEN_SECONDS]


@pytest.mark.holds(
    "agents.md",
    "While a circuit tries, others ask again; a trial that was not made, or is cancelled, leaves "
    "its place to the next call",
)
def test_a_trial_that_was_not_made_leaves_its_place_to_the_next_call() -> None:
    trying, passed = asked(after(*[BAD] * 5), 10)
    again, second = asked(ended(trying, passed, NONE, 11), 11)
    assert (again.state, second) == (CircuitState.HALF_OPEN, TRIAL)


@pytest.mark.holds(
    "agents.md",
    "A circuit opens after five failures in a row or half of the last twenty calls, lets one call "
    "try, and waits longer each time",
)
@given(st.lists(st.tuples(st.sampled_from(list(Ended)), st.floats(0, 20)), max_size=60))
def test_a_call_may_always_be_made_again_within_the_longest_time(ends: list[tuple[Ended, float]]) -> None:
    circuit, now = CLOSED, 0.0
    for how, passed_seconds in ends:
        now += passed_seconds
        circuit, passed = asked(circuit, now)
        if passed.may_call:
            circuit = ended(circuit, passed, how, now)
        assert len(circuit.last) <= LAST_CALLS
        assert circuit.state is not CircuitState.HALF_OPEN, "its one call has ended"
    assert asked(circuit, now + LONGEST_OPEN_SECONDS)[1].may_call
