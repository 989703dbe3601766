"""Changes of a status that are written at once. That the others wait their turn: test_writer."""

from typing import Any

import pytest

from flotilla_operator.cluster.status import is_urgent


def waiting(*since: str, more: int = 0) -> dict[str, Any]:
    groups = [{"name": f"g-{at}", "phase": "Waiting", "sinceTime": at} for at in since]
    return {"groups": groups, "moreWaiting": [{"sinceTime": "old", "replicas": more}] if more else []}


LOADING = {"groups": [{"name": "g", "phase": "Loading", "sinceTime": "new"}]}


@pytest.mark.parametrize(
    ("before", "after", "urgent"),
    [
        pytest.param({"readyReplicas": 1}, {"readyReplicas": 2}, False, id="a figure"),
        pytest.param({"url": "a"}, {"url": "b"}, True, id="what somebody waits for"),
        pytest.param({}, {"backoff": {"failures": 1}}, True, id="a failure that is counted"),
        pytest.param(waiting(), waiting("old"), True, id="a replica begins to wait, or waits again"),
        pytest.param(waiting("old"), waiting("old", "old"), True, id="another one of the same age"),
        pytest.param(waiting("old"), waiting("old", more=1), True, id="another one that is not named"),
        pytest.param(waiting("old"), waiting(), False, id="one has its pods"),
        pytest.param(waiting("old"), waiting(more=1), False, id="one that is no longer named"),
        pytest.param(waiting(), LOADING, False, id="the age of one that loads"),
    ],
)
def test_what_is_written_at_once(before: dict[str, Any], after: dict[str, Any], urgent: bool) -> None:
    assert is_urgent(before, after) == urgent
