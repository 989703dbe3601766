"""Nodes that clouds taint: GKE by the accelerator's resource, administrators as they like."""

from typing import Any

import pytest

from flotilla_operator.controllers.config import parse_config
from flotilla_operator.objects.resources import MODEL_REPLICA_SETS, NODES
from tests.api.test_readme import applied
from tests.builders.world import IMAGES
from tests.scenes.scene import Scene
from tests.scenes.words import NAMESPACE

pytestmark = pytest.mark.scenes

OF_GKE = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}
OF_A_TEAM = {"key": "sku", "value": "gpu", "effect": "NoSchedule"}
EVICTING = {"key": "team", "value": "search", "effect": "NoExecute"}


def readme_set() -> dict[str, Any]:
    """The set of README.md, with nothing changed but the namespace that `kubectl apply` adds."""
    (manifest,) = (one for one in applied() if one["kind"] == "ModelReplicaSet")
    return {**manifest, "metadata": {**manifest["metadata"], "namespace": NAMESPACE}}


def tainted_node(scene: Scene, name: str, *taints: dict[str, str]) -> None:
    scene.node(name)
    node = scene.the(NODES, name, "")
    scene.api.put(NODES, {**node, "spec": {**(node.get("spec") or {}), "taints": list(taints)}})


async def upgraded(scene: Scene, *tolerations: dict[str, str]) -> None:
    """The chart has these `placement.tolerations` from now on, so its operator is replaced."""
    await scene.operator.kill()
    scene.config = parse_config({"images": IMAGES, "placement": {"tolerations": list(tolerations)}})
    await scene.start_operator()


@pytest.mark.holds(
    "install.md",
    "Replicas tolerate GKE's taint; another one is named, and admitted by the chart's "
    "`placement.tolerations`",
)
@pytest.mark.holds(
    "placement.md", "Pods tolerate the taint of their accelerator, their own, and the chart's, each once"
)
async def test_the_readmes_set_runs_on_nodes_that_gke_taints(scene: Scene) -> None:
    tainted_node(scene, "a", OF_GKE)
    scene.node("for-routers", gpus=0)
    scene.cluster.create(MODEL_REPLICA_SETS, readme_set())
    await scene.until_ready("qwen")
    assert [pod["spec"]["nodeName"] for pod in scene.pods("qwen")] == ["a", "a"]


@pytest.mark.holds(
    "install.md",
    "Replicas tolerate GKE's taint; another one is named, and admitted by the chart's "
    "`placement.tolerations`",
)
@pytest.mark.holds("placement.md", "One value of the chart admits the pods that were refused")
async def test_another_taint_is_named_and_admitted_by_one_value_of_the_chart(scene: Scene) -> None:
    tainted_node(scene, "a", OF_GKE, OF_A_TEAM)
    scene.node("for-routers", gpus=0)
    scene.cluster.create(MODEL_REPLICA_SETS, readme_set())
    message = await scene.until_says("Placed", "False", "NoNodeCanFit", name="qwen")
    assert "sku=gpu:NoSchedule" in message
    assert "spec.placement.tolerations" in message
    assert "the chart's placement.tolerations" in message
    await upgraded(scene, OF_A_TEAM)
    await scene.until_ready("qwen")


@pytest.mark.holds(
    "placement.md",
    "A change of the chart's tolerations replaces no replica, and what a replica's own pods "
    "tolerate keeps it where it is",
)
@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param((), (EVICTING,), id="one more"),
        pytest.param((EVICTING,), (), id="one less, whose taint drives pods away"),
    ],
)
async def test_a_value_of_the_chart_replaces_nothing_that_runs(
    scene: Scene, before: tuple[dict[str, str], ...], after: tuple[dict[str, str], ...]
) -> None:
    await upgraded(scene, *before)
    tainted_node(scene, "a", *before)
    scene.node("for-routers", gpus=0)
    scene.create()
    await scene.until_ready()
    uids = scene.uids()
    scene.node("has-room")
    await upgraded(scene, *after)
    with scene.throughout(lambda: scene.uids() == uids and scene.two_serve()):
        await scene.pass_time(3600)
    assert scene.is_ready()
    assert scene.says("Progressing", "False", "Settled")


@pytest.mark.holds(
    "placement.md",
    "An accelerator that only the engine's resources name is `AcceleratorInResources`, and what runs stays",
)
async def test_an_accelerator_in_the_engines_limits_alone_is_a_condition_and_what_runs_stays(
    scene: Scene,
) -> None:
    scene.node("a")
    scene.create()
    await scene.until_ready()
    before = scene.uids()
    with scene.throughout(lambda: scene.uids() == before and scene.two_serve()):
        limits = {"limits": {"nvidia.com/gpu": "1"}}
        scene.change(accelerator=None, parallelism=None, engine={"resources": limits})
        message = await scene.until_says("SpecValid", "False", "AcceleratorInResources")
        await scene.pass_time(3600)
    assert "accelerator: {resource: nvidia.com/gpu}" in message


@pytest.mark.holds(
    "placement.md",
    "An accelerator that only the engine's resources name is `AcceleratorInResources`, and what runs stays",
)
async def test_with_an_accelerator_in_the_limits_alone_nothing_starts_until_it_is_said(scene: Scene) -> None:
    scene.node("a")
    limits = {"limits": {"nvidia.com/gpu": "4"}}
    scene.create(accelerator=None, parallelism={}, engine={"resources": limits})
    with scene.throughout(lambda: scene.engines() == []):
        message = await scene.until_says("SpecValid", "False", "AcceleratorInResources")
        assert scene.says("Stalled", "True")
        await scene.pass_time(3600)
    assert "spec.accelerator: {resource: nvidia.com/gpu} and spec.parallelism.tensor: 4" in message
    scene.change(accelerator={"resource": "nvidia.com/gpu"}, parallelism={"tensor": 4})
    await scene.until_ready()
