"""Room of a fleet's models, as gateways are told."""

import json
from typing import Any

import pytest

from flotilla_operator.api.model_replica_set import ModelReplicaSetSpec
from flotilla_operator.controllers.agent_fleet.capacities import capacity_of
from flotilla_operator.controllers.agent_fleet.decide import admitted_of, busy_tasks
from flotilla_operator.workloads.agent_fleet import Wiring, gateway_manifests
from flotilla_runtime import contract
from tests.builders.agent_fleet import OWNER, served_model, spec_of
from tests.builders.model_replica_set import IMAGES

KNOWN = {"sequencesPerReplica": 15.5, "sequenceTokens": 32_768}


@pytest.mark.holds(
    "tasks.md", "Room is that of all ready replicas, or of one, and another room replaces no gateway"
)
@pytest.mark.parametrize(
    ("status", "engine", "expected"),
    [
        pytest.param(
            {"capacity": KNOWN, "readyReplicas": 3}, {}, (3 * 15.5 * 32_768, 3 * 48), id="of all replicas"
        ),
        pytest.param(
            {"capacity": KNOWN, "readyReplicas": 0}, {}, (15.5 * 32_768, 48), id="none is ready: that of one"
        ),
        pytest.param({"capacity": {"startupSeconds": 9}}, {}, (None, 48), id="its memory is unknown"),
        pytest.param({}, {"maxNumSeqs": 5}, (None, 5), id="the engine's slots are in the spec"),
    ],
)
def test_a_set_has_room_for_what_its_ready_replicas_hold(
    status: dict[str, Any], engine: dict[str, Any], expected: tuple[float | None, int]
) -> None:
    spec = ModelReplicaSetSpec.model_validate(served_model(engine=engine)["spec"])
    found = capacity_of("llama", status, spec, 8192)
    assert (found.name, found.context_tokens) == ("llama", 8192)
    assert (found.kv_tokens, found.slots) == expected


@pytest.mark.holds(
    "tasks.md", "Room is that of all ready replicas, or of one, and another room replaces no gateway"
)
def test_another_capacity_replaces_no_gateway() -> None:
    def rendered(*slots: int) -> tuple[dict[str, str], Any]:
        capacities = tuple(contract.ModelCapacity(name="m", context_tokens=10, slots=one) for one in slots)
        wiring = Wiring(capacities=capacities)
        manifests = {one["kind"]: one for one in gateway_manifests(OWNER, spec_of(), wiring, IMAGES, "r")}
        return manifests["ConfigMap"]["data"], manifests["Deployment"]["spec"]["template"]

    (without, before), (few, _), (many, after) = rendered(), rendered(5), rendered(9)
    assert before == after
    assert contract.CAPACITY_FILE not in without
    assert json.loads(few[contract.CAPACITY_FILE])["models"][0]["slots"] == 5
    read = contract.FleetCapacity.model_validate_json(many[contract.CAPACITY_FILE])
    assert [model.slots for model in read.models] == [9]


@pytest.mark.holds(
    "tasks.md", "No workers are started for tasks that admission holds back, and `bottleneck` names the model"
)
def test_an_older_revision_gets_no_more_workers_than_admission_lets_run() -> None:
    figures = contract.FleetStatus(
        fleet="d/s",
        waiting=50,
        in_flight=7,
        revisions={"a": contract.RevisionTasks(waiting=40, running=5)},
        admission=contract.Admission(most=16),
    )
    assert busy_tasks(figures, "a") == 16
    assert busy_tasks(figures.model_copy(update={"admission": None}), "a") == 45
    assert admitted_of(None) is None
