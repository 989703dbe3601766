"""The waits after failures: how they grow, and those of everything that tries again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flotilla_runtime.agent.engine import unwinding
from flotilla_runtime.agent.retries import INDEX_RETRIES, MODEL_RETRIES, STORE_BACKOFF, TOOL_RETRIES
from flotilla_runtime.backoff import Backoff
from flotilla_runtime.indexing import embedding
from flotilla_runtime.models import fetch
from flotilla_runtime.router import pod_watch


@pytest.mark.parametrize(
    ("backoff", "longest"),
    [
        pytest.param(MODEL_RETRIES.backoff, [0.5, 1, 2, 4, 8, 16, 30, 30], id="a task's call of a model"),
        pytest.param(INDEX_RETRIES.backoff, [0.2, 0.4, 0.8, 1.6, 2, 2], id="a task's search"),
        pytest.param(STORE_BACKOFF, [0.1, 0.2, 0.4, 0.8, 1.6, 2, 2], id="a worker's request to Redis"),
        pytest.param(embedding.BACKOFF, [0.5, 1, 2, 4, 8, 16, 20, 20], id="a batch to embed"),
        pytest.param(fetch.BACKOFF, [2, 4, 8, 16, 32, 60, 60], id="the download of a model"),
        pytest.param(pod_watch.BACKOFF, [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 15, 15], id="a watch of pods"),
    ],
)
def test_a_wait_doubles_up_to_its_limit(backoff: Backoff, longest: list[float]) -> None:
    waits = [backoff.seconds_after(failures, max) for failures in range(1, len(longest) + 1)]
    assert waits == pytest.approx(longest)


def test_jitter_is_full_unless_a_part_of_each_wait_is_certain() -> None:
    assert Backoff(base_seconds=1, limit_seconds=10).seconds_after(3, min) == 0
    assert Backoff(base_seconds=1, limit_seconds=10, least_share=0.5).seconds_after(3, min) == 2


@pytest.mark.holds("agents.md", "Calls of tasks are tried again after pauses with full jitter")
@pytest.mark.parametrize(
    "backoff",
    [
        pytest.param(MODEL_RETRIES.backoff, id="a task's call of a model"),
        pytest.param(INDEX_RETRIES.backoff, id="a task's search"),
        pytest.param(TOOL_RETRIES.backoff, id="a task's call of a tool"),
        pytest.param(unwinding.BACKOFF, id="a compensation"),
    ],
)
def test_calls_of_tasks_are_tried_again_after_any_part_of_a_wait(backoff: Backoff) -> None:
    """So those that failed together come back spread over the whole wait."""
    assert [backoff.seconds_after(failures, min) for failures in (1, 5, 50)] == [0, 0, 0]


@given(
    backoff=st.builds(
        Backoff,
        base_seconds=st.floats(0, 1e3),
        limit_seconds=st.floats(0, 1e6),
        least_share=st.floats(0, 1),
    ),
    failures=st.integers(1, 10**6),
)
def test_no_wait_is_longer_than_the_limit_however_many_failures_there_were(
    backoff: Backoff, failures: int
) -> None:
    longest = backoff.seconds_after(failures, max)
    assert backoff.seconds_after(failures, min) <= longest <= backoff.limit_seconds
    assert longest <= backoff.seconds_after(failures + 1, max)
