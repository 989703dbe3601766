"""Nodes from a real autoscaler: Karpenter with its KWOK provider, beside a real API server, scheduler and
garbage collector. What comes and goes when is decided in test_provisioning.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from flotilla_runtime import contract
from local_cluster.control_plane import ControlPlane, Options
from local_cluster.karpenter import create_node_pool, karpenter
from local_cluster.pytest_plugin import create_namespace
from tests.controllers.model_replica_set.half_groups import BIND_TIMEOUT_SECONDS, HalfGroups, watched
from tests.controllers.model_replica_set.stage import GPU, PRODUCT, Stage
from tests.support.kinds import kind_operator
from tests.support.processes import OperatorProcess
from tests.support.waiting import eventually

pytestmark = [pytest.mark.apiserver, pytest.mark.timeout(900)]

PRIORITY_CLASS = {
    "apiVersion": "scheduling.k8s.io/v1",
    "kind": "PriorityClass",
    "metadata": {"name": "flotilla-placeholder"},
    "value": -5,
    "preemptionPolicy": "Never",
}
TIMEOUT_SECONDS = 60


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """One of its own: Karpenter brings nodes for whatever waits."""
    folder = tmp_path_factory.mktemp("autoscaled")
    options = Options(controller_manager=True, scheduler=True, kwok=True)
    with ControlPlane(folder, options) as running, karpenter(running, folder):
        running.client.create("/apis/scheduling.k8s.io/v1/priorityclasses", PRIORITY_CLASS)
        yield running


@pytest.fixture(scope="module", autouse=True)
def operator(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OperatorProcess]:
    with kind_operator(plane, tmp_path_factory.mktemp("operator"), "ModelReplicaSet") as process:
        yield process


class Pool(Stage):
    """A stage with a node pool instead of nodes."""

    def limited_to(self, *, nodes: int) -> None:
        labels = {"stage": self.namespace, f"{GPU}.product": PRODUCT}
        create_node_pool(self.plane, self.namespace, gpus=8 * nodes, labels=labels)

    def asks(self, *, replicas: int, stages: int) -> None:
        """A set that asks for nodes; each stage takes all eight GPUs of one."""
        wishes = {
            "nodeSelector": {"stage": self.namespace},
            "nodeProvisioning": {"mode": "Placeholders", "timeoutSeconds": TIMEOUT_SECONDS},
        }
        self.create(replicas=replicas, parallelism={"tensor": 8, "pipeline": stages}, placement=wishes)

    def placeholders(self) -> list[dict[str, Any]]:
        selector = "app.kubernetes.io/component=placeholder"
        path = f"/api/v1/namespaces/{self.namespace}/pods?labelSelector={selector}"
        found: list[dict[str, Any]] = self.client.get(path)["items"]
        return found

    def brought(self) -> set[str]:
        """The nodes that the autoscaler brought and did not take back."""
        path = f"/api/v1/nodes?labelSelector=karpenter.sh/nodepool={self.namespace}"
        return {node["metadata"]["name"] for node in self.client.get(path)["items"]}

    def in_use(self) -> set[str]:
        return {pod["spec"]["nodeName"] for pod in self.pods() if pod["spec"].get("nodeName")}


@pytest.fixture
def pool(plane: ControlPlane) -> Iterator[Pool]:
    stage = Pool(plane, create_namespace(plane))
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    plane.client.merge(f"/api/v1/namespaces/{stage.namespace}", {"metadata": {"labels": labels}})
    yield stage
    plane.client.delete(f"{stage.sets}/llama")


@pytest.fixture
def half_groups(pool: Pool) -> Iterator[HalfGroups]:
    """Of the pool's set, watched from before it is there until the test has ended."""
    with watched(HalfGroups(pool, "llama")) as groups:
        yield groups


def test_a_set_gets_the_nodes_it_lacks_and_gives_them_back(pool: Pool, half_groups: HalfGroups) -> None:
    own = pool.node("own")
    pool.limited_to(nodes=8)
    pool.asks(replicas=2, stages=2)
    pool.wait("Ready", "True")
    assert len(pool.in_use()) == 4
    assert pool.in_use() - {own} == pool.brought(), "three nodes came and no more"
    eventually(lambda: not pool.placeholders())

    pool.change(replicas=1)
    eventually(lambda: len(pool.pods()) == 2)
    eventually(lambda: pool.brought() == pool.in_use() - {own})
    assert pool.condition("Available")["status"] == "True"

    pool.change(replicas=0)
    eventually(lambda: not pool.brought())
    assert len(half_groups.whole) == 2
    assert half_groups.at_most < BIND_TIMEOUT_SECONDS


def test_a_pool_at_its_limit_leaves_no_half_replica_and_no_placeholder_and_says_so(
    pool: Pool, half_groups: HalfGroups
) -> None:
    pool.limited_to(nodes=3)
    pool.asks(replicas=2, stages=2)
    pool.wait("Available", "True")
    eventually(lambda: len(pool.brought()) == 3 and len(pool.placeholders()) == 2)
    message = pool.wait("Placed", "False", "NodeProvisioningTimedOut")
    assert f"1 of 2 placeholder pods found no node within {TIMEOUT_SECONDS} s" in message
    eventually(lambda: not pool.placeholders())
    eventually(lambda: pool.brought() == pool.in_use())
    assert len(pool.pods()) == len(pool.in_use()) == 2, "one replica, whole"
    assert {pod["metadata"]["labels"][contract.LABEL_GROUP] for pod in pool.pods()} == half_groups.whole
    assert half_groups.at_most < BIND_TIMEOUT_SECONDS
    assert pool.get()["status"]["placement"]["nodeProvisioning"]["timeouts"] == 1
