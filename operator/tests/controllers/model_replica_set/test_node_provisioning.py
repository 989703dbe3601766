"""Nodes from a real autoscaler: Karpenter with its KWOK provider, beside a real API server, scheduler and
garbage collector. What comes and goes when is decided in test_provisioning.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from flotilla_runtime import contract
from local_cluster.control_plane import ControlPlane
from local_cluster.karpenter import NODE_POOLS, create_node_pool, karpenter
from tests.controllers.model_replica_set.half_groups import HalfGroups, watched
from tests.controllers.model_replica_set.stage import GPU, PRODUCT, Stage
from tests.support.kinds import BIND_TIMEOUT_SECONDS
from tests.support.waiting import eventually

pytestmark = [
    pytest.mark.apiserver,
    pytest.mark.rare,
    pytest.mark.xdist_group("karpenter"),
    pytest.mark.timeout(900),
]

PRIORITY_CLASS: dict[str, Any] = {
    "apiVersion": "scheduling.k8s.io/v1",
    "kind": "PriorityClass",
    "metadata": {"name": "flotilla-placeholder"},
    "value": -5,
    "preemptionPolicy": "Never",
}
TIMEOUT_SECONDS = 60


@pytest.fixture(scope="module")
def autoscaler(
    running_control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """Karpenter brings nodes for what waits and fits a pool, and each test's pool is for its own pods."""
    priorities = "/apis/scheduling.k8s.io/v1/priorityclasses"
    running_control_plane.client.create(priorities, PRIORITY_CLASS)
    with karpenter(running_control_plane, tmp_path_factory.mktemp("karpenter")):
        yield
    running_control_plane.client.delete(f"{priorities}/{PRIORITY_CLASS['metadata']['name']}")


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
def pool(autoscaler: None, stage: Stage) -> Iterator[Pool]:
    made = Pool(stage.plane, stage.namespace)
    made.of_the_cluster = stage.of_the_cluster
    yield made
    made.client.delete(f"{made.sets}/llama")
    made.client.delete(f"{NODE_POOLS}/{made.namespace}")
    eventually(lambda: not made.brought())


@pytest.fixture
def half_groups(pool: Pool) -> Iterator[HalfGroups]:
    """Of the pool's set, watched from before it is there until the test has ended."""
    with watched(HalfGroups(pool, "llama")) as groups:
        yield groups


@pytest.mark.holds("local-cluster.md", "Karpenter runs beside a control plane")
@pytest.mark.holds("node-autoscalers.md", "Placement looks through placeholders, and replicas preempt them")
@pytest.mark.holds(
    "node-autoscalers.md", "Nodes go when replicas leave, and no loaded model is moved to save a node"
)
@pytest.mark.holds("node-autoscalers.md", "Karpenter brings the nodes")
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

    assert len(half_groups.whole) == 2
    assert half_groups.at_most < BIND_TIMEOUT_SECONDS


@pytest.mark.holds(
    "node-autoscalers.md",
    "After `timeoutSeconds` all placeholders go and `Placed` is NodeProvisioningTimedOut",
)
@pytest.mark.rare
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
