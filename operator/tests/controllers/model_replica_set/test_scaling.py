"""What of pods and routers the decision about zero rests on."""

from datetime import timedelta
from typing import Any

import pytest

from flotilla_operator.api.model_replica_set import ModelReplicaSet
from flotilla_operator.autoscaling.from_zero import ZeroReason
from flotilla_operator.controllers.conditions import timestamp
from flotilla_operator.controllers.model_replica_set.scaling import (
    as_decided_last,
    ready_seconds,
    scaling_of,
    zero_signals,
)
from flotilla_operator.controllers.model_replica_set.seen import RouterLoad
from tests.builders.model_replica_set import model_replica_set
from tests.builders.pods import NOW

SLEEPER = {"minReplicas": 0, "maxReplicas": 1, "scaleToZeroAfterSeconds": 60}


def pod(ready_for: float | None, *, deleting: bool = False) -> dict[str, Any]:
    metadata = {"name": "p"} | ({"deletionTimestamp": "x"} if deleting else {})
    condition = {
        "type": "Ready",
        "status": "False" if ready_for is None else "True",
        "lastTransitionTime": timestamp(NOW - timedelta(seconds=ready_for or 0)),
    }
    return {"metadata": metadata, "status": {"conditions": [condition]}}


@pytest.mark.parametrize(
    ("pods", "seconds"),
    [
        pytest.param([], None, id="no replica"),
        pytest.param([pod(50), pod(20)], 20, id="the youngest counts"),
        pytest.param([pod(50), pod(None)], None, id="one that loads"),
        pytest.param([pod(50), pod(None, deleting=True)], 50, id="one that leaves does not count"),
    ],
)
def test_how_long_all_have_been_ready(pods: list[dict[str, Any]], seconds: float | None) -> None:
    assert ready_seconds(pods, NOW) == seconds


def test_what_waits_and_what_runs_are_requests() -> None:
    found = zero_signals(RouterLoad(waiting=2, running=1, idle_seconds=0.5), [], NOW)
    assert found is not None
    assert (found.requests, found.idle_seconds) == (3, 0.5)
    assert zero_signals(RouterLoad(), [], NOW) is None


def test_a_set_without_autoscaling_keeps_its_own_number() -> None:
    manifest = model_replica_set(replicas=3)
    spec = ModelReplicaSet.model_validate(manifest).spec
    assert scaling_of(manifest, spec, None) is None
    assert as_decided_last(manifest, spec).replicas == 3


def test_a_replica_that_never_becomes_ready_goes_at_the_deadline_of_an_update() -> None:
    spec: dict[str, Any] = {"autoscaling": SLEEPER, "update": {"progressDeadlineSeconds": 600}}
    manifest = model_replica_set(status={"desiredReplicas": 1}, **spec)
    for idle, wanted in ((599.0, 1), (600.0, 0)):
        seen = zero_signals(RouterLoad(waiting=0, running=0, idle_seconds=idle), [pod(None)], NOW)
        decision = scaling_of(manifest, ModelReplicaSet.model_validate(manifest).spec, seen)
        assert decision is not None
        assert decision.wanted == wanted


def test_what_was_decided_last_is_read_from_the_status() -> None:
    manifest = model_replica_set(replicas=3, autoscaling=SLEEPER, status={"desiredReplicas": 1})
    spec = ModelReplicaSet.model_validate(manifest).spec
    decision = scaling_of(manifest, spec, None)
    assert decision is not None
    assert (decision.current, decision.wanted, decision.reason) == (1, 1, ZeroReason.NO_FIGURES)
    assert as_decided_last(manifest, spec).replicas == 1
    assert as_decided_last(model_replica_set(autoscaling=SLEEPER), spec).replicas == 0
