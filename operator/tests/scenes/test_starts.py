"""The files of the start pages, on nodes as each cloud makes them, with the values of each page.

What no cloud is needed for is played: placement, taints, and that all three kinds become ready.
"""

import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from flotilla_operator.objects.resources import (
    AGENT_FLEETS,
    CONFIG_MAPS,
    MODEL_REPLICA_SETS,
    NODES,
    PODS,
    VECTOR_INDEXES,
    Resource,
)
from flotilla_runtime.contract import LABEL_COMPONENT
from tests.scenes.scene import Scene
from tests.scenes.words import NAMESPACE

pytestmark = pytest.mark.scenes

ROOT = Path(__file__).parents[3]
RESOURCES: dict[str, Resource] = {
    "AgentFleet": AGENT_FLEETS,
    "ConfigMap": CONFIG_MAPS,
    "ModelReplicaSet": MODEL_REPLICA_SETS,
    "VectorIndex": VECTOR_INDEXES,
}
TAINTS: dict[str, list[dict[str, str]]] = {
    "eks": [],
    "gke": [{"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}],
    "aks": [{"key": "sku", "value": "gpu", "effect": "NoSchedule"}],
}


def tolerations_of_the_page(cloud: str) -> list[dict[str, str]]:
    """`placement.tolerations` in the values file of a page."""
    text = (ROOT / "docs" / "start" / f"{cloud}.md").read_text(encoding="utf-8")
    written = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)]
    return [toleration for one in written for toleration in one.get("placement", {}).get("tolerations", [])]


def apply(scene: Scene, name: str) -> None:
    """`kubectl apply` of a file of examples/."""
    for document in yaml.safe_load_all((ROOT / "examples" / name).read_text(encoding="utf-8")):
        metadata: dict[str, Any] = {**document["metadata"], "namespace": NAMESPACE}
        scene.cluster.create(RESOURCES[document["kind"]], {**document, "metadata": metadata})


async def until_the_agent_is_ready(scene: Scene) -> None:
    await scene.until(partial(scene.says, "Ready", "True", name="assistant", resource=AGENT_FLEETS))


@pytest.mark.holds(
    "start/eks.md",
    "The model, the index and the agent of the file become ready on nodes like those of the page",
    case="eks",
)
@pytest.mark.holds(
    "start/gke.md",
    "The model, the index and the agent of the file become ready on nodes like those of the page",
    case="gke",
)
@pytest.mark.holds(
    "start/aks.md",
    "The model, the index and the agent of the file become ready on nodes like those of the page",
    case="aks",
)
@pytest.mark.parametrize("cloud", TAINTS)
async def test_the_file_with_a_gpu_becomes_ready_on_the_nodes_of_a_cloud(cloud: str) -> None:
    """One node has one GPU and the taint of the cloud or of the page; the two others have none."""
    async with Scene(placement={"tolerations": tolerations_of_the_page(cloud)}).playing() as scene:
        scene.node("gpu", gpus=1)
        node = scene.the(NODES, "gpu", "")
        scene.api.put(NODES, {**node, "spec": {**(node.get("spec") or {}), "taints": TAINTS[cloud]}})
        for name in ("cpu-1", "cpu-2"):
            scene.node(name, gpus=0)
        apply(scene, "start-gpu.yaml")
        await until_the_agent_is_ready(scene)
        placed = {
            pod["metadata"]["labels"][LABEL_COMPONENT]
            for pod in scene.cluster.listed(PODS)
            if pod["spec"]["nodeName"] == "gpu"
        }
        assert "engine" in placed
        assert placed == {"engine"} or not TAINTS[cloud]


@pytest.mark.holds(
    "start/kind.md", "The model, the index and the agent of the file become ready on one node without a GPU"
)
async def test_the_file_without_a_gpu_becomes_ready_on_one_node() -> None:
    async with Scene().playing() as scene:
        scene.node("flotilla-control-plane", gpus=0)
        apply(scene, "start-cpu.yaml")
        await until_the_agent_is_ready(scene)
