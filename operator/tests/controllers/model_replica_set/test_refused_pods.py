"""A set whose pods the API server refuses: it backs off, and asks for nothing in the plans of others.

That others find out about it: test_observe. With a real quota: test_refused_pods_apiserver. A group of which
the last pod is refused: test_groups.
"""

from datetime import datetime, timedelta
from typing import Any

import pytest

from flotilla_operator.controllers.model_replica_set.reasons import Reason
from flotilla_operator.objects.refused_writes import RefusedWrite, WriteReason
from flotilla_operator.objects.resources import PODS
from tests.builders.model_replica_set import gpu_set
from tests.builders.pods import NOW
from tests.controllers.model_replica_set.test_plan import condition, created, observed, shown
from tests.support.planned import plan_of_set as plan
from tests.support.planned import told_of_set

WORDS = 'pods "llama-x" is forbidden: exceeded quota: gpus, requested: 4, used: 0, limited: 0'


def tried(manifest: dict[str, Any], now: datetime, reason: WriteReason) -> dict[str, Any] | None:
    """The set after one look in which every pod that it makes is refused; None when it makes none."""
    done = plan(observed(manifest), now)
    refusals = [RefusedWrite(ref=PODS.ref_to(pod), reason=reason, message=WORDS) for pod in created(done)]
    if not refusals:
        return None
    return {**manifest, "status": told_of_set(observed(manifest), refusals, now).status}


def refused(times: int, reason: WriteReason = WriteReason.FORBIDDEN) -> dict[str, Any]:
    manifest = gpu_set(replicas=1)
    for _ in range(times):
        after = tried(manifest, NOW, reason)
        assert after is not None
        manifest = after
    return manifest


@pytest.mark.holds(
    "groups.md", "What a quota forbids is tried after 30 s at most; a changed spec is tried at once"
)
@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        pytest.param(
            WriteReason.QUOTA_EXCEEDED,
            [0, 10, 20, 30, 30, 30, 30, 30],
            id="a quota that is lifted is noticed within half a minute",
        ),
        pytest.param(
            WriteReason.FORBIDDEN,
            [0, 10, 20, 30, 30, 30, 30, 30],
            id="what an admission plugin forbids it may allow",
        ),
        pytest.param(
            WriteReason.INVALID,
            [0, 10, 20, 40, 80, 160, 300, 300],
            id="an invalid pod stays invalid until somebody mends it",
        ),
    ],
)
def test_each_further_refusal_waits_twice_as_long(reason: WriteReason, expected: list[int]) -> None:
    manifest, now, waits = refused(1, reason), NOW, []
    for _ in range(8):
        waited = 0
        while (after := tried(manifest, now, reason)) is None:
            done = plan(observed(manifest), now)
            manifest = {**manifest, "status": done.status}
            assert done.look_again_seconds is not None
            step = round(done.look_again_seconds)
            now, waited = now + timedelta(seconds=step), waited + step
        manifest = after
        waits.append(waited)
    assert waits == expected


def test_a_refusal_is_remembered_and_counted_once_until_pods_are_accepted() -> None:
    """It is a value in the status; what the conditions say is for people."""
    first = refused(1)
    assert first["status"]["refusedPods"]["counted"] is False
    assert WORDS in first["status"]["refusedPods"]["message"]
    second = tried(first, NOW, WriteReason.FORBIDDEN)
    assert second is not None
    looked = plan(observed(second), NOW)
    assert created(looked) == [], "after the second refusal it backs off"
    assert looked.status is not None
    assert looked.status["refusedPods"] == {**second["status"]["refusedPods"], "counted": True}
    assert looked.status["backoff"]["failures"] == 2
    unsaid = {**second, "status": {**looked.status, "conditions": []}}
    again = plan(observed(unsaid), NOW + timedelta(seconds=1))
    assert again.status is not None
    assert (created(again), again.status["backoff"]["failures"]) == ([], 2)
    accepted = plan(observed(unsaid), NOW + timedelta(seconds=60))
    assert created(accepted)
    assert accepted.status is not None
    assert accepted.status["refusedPods"] is None


@pytest.mark.holds("groups.md", "A pod that the API server refuses counts, with its words in `Placed`")
def test_why_it_waits_stands_in_the_condition_and_the_status() -> None:
    done = plan(observed(refused(2)), NOW)
    assert created(done) == []
    assert shown(done, "Placed") == ("False", Reason.BACKING_OFF)
    assert WORDS in condition(done, "Placed")["message"]
    assert done.status is not None
    assert (done.status["backoff"]["failures"], done.status["backoff"]["reason"]) == (2, "Forbidden")


@pytest.mark.parametrize(
    ("reason", "summary"),
    [
        pytest.param(WriteReason.FORBIDDEN, "Reconciling", id="a quota is given back some day"),
        pytest.param(WriteReason.INVALID, "Stalled", id="an invalid pod is for a person"),
    ],
)
def test_who_mends_it(reason: WriteReason, summary: str) -> None:
    done = plan(observed(refused(2, reason)), NOW)
    assert shown(done, summary) == ("True", Reason.BACKING_OFF)


def test_a_conflict_passes_and_is_tried_again_at_once() -> None:
    manifest = refused(5, WriteReason.CONFLICT)
    assert created(plan(observed(manifest), NOW))


@pytest.mark.holds(
    "groups.md", "What a quota forbids is tried after 30 s at most; a changed spec is tried at once"
)
def test_a_changed_spec_is_tried_at_once() -> None:
    manifest = refused(2)
    held = plan(observed(manifest), NOW)
    manifest = {**manifest, "status": held.status}
    assert created(held) == []
    metadata = {**manifest["metadata"], "generation": manifest["metadata"]["generation"] + 1}
    done = plan(observed({**manifest, "metadata": metadata}), NOW)
    assert created(done)
    assert done.status is not None
    assert done.status["backoff"] is None
