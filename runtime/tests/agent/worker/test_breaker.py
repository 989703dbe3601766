"""When a worker takes tasks while models refuse; that a worker heeds it is in test_worker.py."""

import pytest

from flotilla_runtime.agent.worker.breaker import NONE, Refusals, after_reply, most_to_claim


def heard(*replies: tuple[float, bool]) -> Refusals:
    """The state that replies at these times leave behind; True for a refusal."""
    state = NONE
    for now, is_refused in replies:
        state = after_reply(state, is_refused=is_refused, now=now)
    return state


@pytest.mark.holds("tasks.md", "Workers take no tasks while a model refuses their calls")
@pytest.mark.holds("recovery.md", "Workers take nothing while their models refuse")
@pytest.mark.parametrize(
    ("models", "now", "wanted"),
    [
        pytest.param([], 0, 9, id="nothing is known"),
        pytest.param([heard((0, False))], 1, 9, id="a model answers"),
        pytest.param([heard((0, True))], 1, 0, id="it has refused a second ago"),
        pytest.param([heard((0, True))], 5, 1, id="after five seconds one task tries it"),
        pytest.param([heard((0, True), (5, True))], 6, 0, id="it refuses still"),
        pytest.param([heard((0, True), (5, True))], 14.9, 0, id="now for ten seconds"),
        pytest.param([heard((0, True), (5, True))], 15, 1, id="and is tried again"),
        pytest.param(
            [heard((0, True), (1, True), (2, True))], 5, 1, id="calls that were under way count once"
        ),
        pytest.param([heard((0, True), (5, True), (6, False))], 6, 9, id="it answers again"),
        pytest.param([heard((0, False)), heard((0, True))], 1, 0, id="one of two models refuses"),
        pytest.param(
            [heard(*((100 * n, True) for n in range(9)))], 859, 0, id="a minute is the longest pause"
        ),
        pytest.param([heard(*((100 * n, True) for n in range(9)))], 860, 1, id="after which it is tried"),
    ],
)
def test_a_worker_takes_no_tasks_while_a_model_refuses(
    models: list[Refusals], now: float, wanted: int
) -> None:
    assert most_to_claim(models, 9, now) == wanted
    assert most_to_claim(models, 0, now) == 0
