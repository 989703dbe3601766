"""How long replicas took to start: what is measured, kept and shown."""

from typing import Any

import pytest

from flotilla_operator.controllers.model_replica_set.reasons import Reason
from flotilla_operator.controllers.model_replica_set.tell.startups import STARTUPS_KEPT
from tests.builders.model_configs import LLAMA_70B
from tests.builders.pods import container_status
from tests.controllers.model_replica_set.sized_sets import (
    WEIGHTS_70B,
    a_set,
    capacity,
    planned,
    saying,
    started,
)
from tests.controllers.model_replica_set.test_plan import member, shown


@pytest.mark.holds(
    "capacity.md", "`startupSeconds` is the median of the last five starts, from creation to ready"
)
def test_a_start_is_measured_from_creation_to_ready_and_the_median_is_shown() -> None:
    manifest = a_set(replicas=3)
    ages = {"llama-a": (300, 200), "llama-b": (300, 180), "llama-c": (1000, 10)}
    pods = [started(manifest, name, age=age, ready_ago=ago) for name, (age, ago) in ages.items()]
    said = capacity(planned(manifest, pods=pods))
    assert [(start["group"], start["seconds"]) for start in said["startups"]] == [
        ("llama-a", 100),
        ("llama-b", 120),
        ("llama-c", 990),
    ]
    assert said["startupSeconds"] == 120


@pytest.mark.holds(
    "capacity.md", "`startupSeconds` is the median of the last five starts, from creation to ready"
)
def test_starts_outlive_their_pods_and_the_operator_and_are_never_more_than_a_few() -> None:
    manifest, status = a_set(replicas=1), None
    for number in range(STARTUPS_KEPT + 3):
        pods = [started(manifest, f"llama-{number}", age=500 - number, ready_ago=400 - number)]
        status = planned(manifest, pods=pods, status=status or {}).status
    assert status is not None
    kept = [start["group"] for start in status["capacity"]["startups"]]
    assert kept == [f"llama-{number}" for number in range(3, STARTUPS_KEPT + 3)]
    gone = planned({**manifest, "spec": {**manifest["spec"], "replicas": 0}}, None, pods=[], status=status)
    assert capacity(gone)["startupSeconds"] == 100


def test_a_replica_that_regains_its_readiness_has_not_started_anew() -> None:
    manifest = a_set(replicas=1)
    first = planned(manifest, pods=[started(manifest, "llama-a", age=500, ready_ago=400)])
    assert first.status is not None
    again = [started(manifest, "llama-a", age=500, ready_ago=10)]
    assert capacity(planned(manifest, pods=again, status=first.status))["startupSeconds"] == 100


@pytest.mark.holds(
    "capacity.md", "Of several stages the leader's start is measured, and a start with a restart is not"
)
def test_an_engine_that_crashed_first_is_not_measured() -> None:
    manifest = a_set(replicas=1)
    restarted = [container_status(ready=True, restartCount=1)]
    pods = [started(manifest, "llama-a", age=500, ready_ago=10, containers=restarted)]
    assert "startupSeconds" not in capacity(planned(manifest, pods=pods))


@pytest.mark.holds(
    "capacity.md", "Of several stages the leader's start is measured, and a start with a restart is not"
)
def test_a_stage_behind_the_leader_is_ready_before_there_is_an_answer_and_measures_no_start() -> None:
    manifest = a_set(parallelism={"pipeline": 2}, replicas=1)
    second: dict[str, Any] = {"group": "llama-a", "stage": 1, "stages": 2}
    worker = started(manifest, "llama-a-1", age=500, ready_ago=490, **second)
    leader: dict[str, Any] = {"stages": 2, "inits": saying(LLAMA_70B, WEIGHTS_70B)}
    loading = [member(manifest, "llama-a", node="a", age=500, **leader), worker]
    first = planned(manifest, pods=loading)
    again = planned(manifest, pods=loading, status=first.status)
    assert "startups" not in capacity(first)
    assert shown(again, "SpecValid") == ("False", Reason.MODEL_DOES_NOT_FIT)

    half = [started(manifest, "llama-a", age=500, ready_ago=100, **leader)]
    assert "startups" not in capacity(planned(manifest, pods=half, status=again.status))

    served = planned(manifest, pods=[*half, worker], status=again.status)
    assert capacity(served)["startupSeconds"] == 400
    assert shown(served, "SpecValid") == ("True", Reason.VALID)
