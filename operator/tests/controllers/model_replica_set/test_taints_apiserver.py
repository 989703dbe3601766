"""The README's set on tainted GPU nodes, with the real scheduler and the configuration that helm renders."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from local_cluster.control_plane import ControlPlane
from local_cluster.kwok import gpu_node
from tests.api.test_readme import applied
from tests.controllers.model_replica_set.stage import Stage, ready
from tests.support.chart import only, rendered
from tests.support.kinds import QUICK_CONFIG, Operators, enforce_restricted
from tests.support.waiting import eventually

pytestmark = [pytest.mark.apiserver, pytest.mark.rare, pytest.mark.timeout(600)]

OF_GKE = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}
OF_A_TEAM = {"key": "sku", "value": "gpu", "effect": "NoSchedule"}


def placement_of_the_chart(*tolerations: dict[str, str]) -> dict[str, Any]:
    """The section that the operator reads of the chart's values, with the tests' own time-outs."""
    manifests = rendered({"placement.tolerations": json.dumps(tolerations)})
    told: dict[str, Any] = json.loads(only(manifests, "ConfigMap")["data"]["config.json"])["placement"]
    return {**told, **QUICK_CONFIG["placement"]}


@pytest.fixture
def stage(running_control_plane: ControlPlane, running_namespace: str) -> Iterator[Stage]:
    enforce_restricted(running_control_plane, running_namespace)
    made = Stage(running_control_plane, running_namespace)
    yield made
    for path in (f"{made.sets}/qwen", *made.of_the_cluster):
        running_control_plane.client.delete(path)


def tainted_node(stage: Stage, *taints: dict[str, str]) -> str:
    name = f"gpus-{stage.namespace}"
    stage.make("/api/v1/nodes", gpu_node(name, taints=taints))
    eventually(lambda: ready(stage.client.get(f"/api/v1/nodes/{name}")))
    return name


def apply_readme(stage: Stage) -> None:
    (manifest,) = (one for one in applied() if one["kind"] == "ModelReplicaSet")
    stage.client.create(stage.sets, manifest)


@pytest.mark.holds(
    "install.md",
    "Replicas tolerate GKE's taint; another one is named, and admitted by the chart's "
    "`placement.tolerations`",
)
def test_the_readmes_set_runs_on_a_node_that_gke_taints(stage: Stage, operators: Operators) -> None:
    operators.of("ModelReplicaSet", placement=placement_of_the_chart())
    node = tainted_node(stage, OF_GKE)
    stage.node("for-routers", gpus=0)
    apply_readme(stage)
    stage.wait("Ready", "True", name="qwen")
    assert [pod["spec"]["nodeName"] for pod in stage.pods("qwen")] == [node, node]


@pytest.mark.holds(
    "install.md",
    "Replicas tolerate GKE's taint; another one is named, and admitted by the chart's "
    "`placement.tolerations`",
)
def test_another_taint_is_named_and_admitted_by_one_value_of_the_chart(
    stage: Stage, operators: Operators
) -> None:
    operators.of("ModelReplicaSet", placement=placement_of_the_chart())
    node = tainted_node(stage, OF_GKE, OF_A_TEAM)
    stage.node("for-routers", gpus=0)
    apply_readme(stage)
    message = stage.wait("Placed", "False", "NoNodeCanFit", name="qwen")
    assert "sku=gpu:NoSchedule" in message
    assert "the chart's placement.tolerations" in message
    assert stage.pods("qwen") == []
    operators.of("ModelReplicaSet", placement=placement_of_the_chart(OF_A_TEAM))
    stage.wait("Ready", "True", name="qwen")
    assert [pod["spec"]["nodeName"] for pod in stage.pods("qwen")] == [node, node]
