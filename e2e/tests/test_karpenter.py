"""Karpenter's KWOK provider as the local cluster runs it: what tests of node provisioning stand on."""

from collections.abc import Iterator
from typing import Any

import pytest

from local_cluster.control_plane import ControlPlane, Options
from local_cluster.karpenter import create_node_pool, karpenter
from tests.support.waiting import eventually

pytestmark = [pytest.mark.apiserver, pytest.mark.timeout(1200)]

PODS = "/api/v1/namespaces/default/pods"
GPU = "nvidia.com/gpu"


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    options = Options(controller_manager=True, scheduler=True, kwok=True)
    folder = tmp_path_factory.mktemp("karpenter")
    with ControlPlane(folder, options) as running, karpenter(running, folder):
        yield running


def pod(name: str) -> dict[str, Any]:
    container = {"name": "c", "image": "none", "resources": {"limits": {GPU: "8"}}}
    spec = {"nodeSelector": {"pool": "gpus"}, "containers": [container]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def bound(plane: ControlPlane) -> dict[str, str]:
    found = plane.client.get(PODS)["items"]
    return {p["metadata"]["name"]: node for p in found if (node := p["spec"].get("nodeName"))}


def nodes(plane: ControlPlane) -> list[str]:
    return [node["metadata"]["name"] for node in plane.client.get("/api/v1/nodes")["items"]]


def test_two_pods_of_a_whole_node_get_two_nodes_and_the_node_of_one_that_leaves_goes(
    plane: ControlPlane,
) -> None:
    create_node_pool(plane, "gpus", gpus=16, labels={"pool": "gpus"})
    for name in ("one", "two", "three"):
        plane.client.create(PODS, pod(name))
    eventually(lambda: len(bound(plane)) == 2)
    assert len(set(bound(plane).values())) == len(nodes(plane)) == 2, "a third would be beyond the limit"
    for name in ("one", "two", "three"):
        plane.client.delete(f"{PODS}/{name}?gracePeriodSeconds=0")
    eventually(lambda: not nodes(plane))
