"""The waits after failures: how they grow, and those of everything that tries again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flotilla_operator.cluster import queue, reflector
from flotilla_operator.objects.retries import RetryDelay


@pytest.mark.parametrize(
    ("backoff", "longest"),
    [
        pytest.param(
            queue.BACKOFF, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300], id="a key that was not reconciled"
        ),
        pytest.param(reflector.BACKOFF, [1, 2, 4, 8, 16, 30, 30], id="a list or a watch that failed"),
    ],
)
def test_a_wait_doubles_up_to_its_limit(backoff: RetryDelay, longest: list[float]) -> None:
    assert [backoff.seconds_after(failures, max) for failures in range(1, len(longest) + 1)] == longest


@pytest.mark.holds("architecture.md", "Failures back off per key with full jitter")
@pytest.mark.parametrize("failures", range(1, 12))
def test_jitter_is_full(failures: int) -> None:
    backoff = RetryDelay(base_seconds=1, limit_seconds=300)
    assert backoff.seconds_after(failures, min) == 0
    assert backoff.seconds_after(failures, lambda low, high: (low + high) / 2) == min(
        150, 2.0 ** (failures - 2)
    )


@given(
    backoff=st.builds(RetryDelay, base_seconds=st.floats(0, 1e3), limit_seconds=st.floats(0, 1e6)),
    failures=st.integers(1, 10**6),
)
def test_no_wait_is_longer_than_the_limit_however_many_failures_there_were(
    backoff: RetryDelay, failures: int
) -> None:
    longest = backoff.seconds_after(failures, max)
    assert 0 <= longest <= backoff.limit_seconds
    assert longest <= backoff.seconds_after(failures + 1, max)
